"""Draining the connections of a site, with a simulated clock."""

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.drain import GRACE, LIMIT, PACE, SPREAD, STEP, ConnectionDrain


class Connection:
    """A stand-in for a channel."""

    def __init__(self, connections: "Connections", idle: bool) -> None:
        self.connections = connections
        self.transport = None
        self._idle = idle
        self.aborted = False
        connections.open.add(self)

    def idle(self) -> bool:
        return self._idle

    def close_idle(self) -> None:
        self.connections.open.discard(self)

    def abortConnection(self) -> None:
        self.aborted = True
        self.connections.open.discard(self)


class Connections:
    """A stand-in for the connections of a site."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()
        self.draining = False

    def drain(self) -> None:
        self.draining = True


class DrainTests(SynchronousTestCase):
    """Drains one site."""

    def setUp(self):
        self.clock = Clock()
        self.connections = Connections()
        self.streams: list[Connection] = []
        self.drain = ConnectionDrain(
            self.clock,
            cast(Any, self.connections),
            lambda: [stream.close_idle for stream in self.streams if stream in self.connections.open],
        )

    def add_streams(self, count: int) -> None:
        """Open some event streams."""
        self.streams += [Connection(self.connections, idle=False) for _ in range(count)]

    def run_for(self, seconds: float) -> None:
        """Advance the clock in steps."""
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def test_no_connections(self):
        """Without connections a drain is over at once, and leaves no delayed call."""
        self.assertIsNone(self.successResultOf(self.drain.start()))
        self.assertTrue(self.connections.draining)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_few_streams(self):
        """A few streams are closed at once."""
        self.add_streams(int(PACE * STEP))
        done = self.drain.start()
        self.run_for(STEP)
        self.successResultOf(done)

    def test_pace(self):
        """Many streams are closed evenly over the available time, and none is aborted."""
        self.add_streams(20_000)
        done = self.drain.start()
        before = len(self.connections.open)
        closed = []
        while self.connections.open:
            self.assertNoResult(done)
            self.clock.advance(STEP)
            closed.append(before - len(self.connections.open))
            before = len(self.connections.open)
        self.assertLess(max(closed), 20_000 * STEP / SPREAD * 1.1 + 2)
        self.assertLessEqual(len(closed) * STEP, SPREAD + STEP)
        self.assertFalse(any(stream.aborted for stream in self.streams))
        self.run_for(STEP)
        self.successResultOf(done)

    def test_idle_connection(self):
        """An idle connection is closed after a grace period."""
        Connection(self.connections, idle=True)
        done = self.drain.start()
        self.run_for(GRACE - STEP)
        self.assertNoResult(done)
        self.run_for(3 * STEP)
        self.successResultOf(done)

    def test_new_connection(self):
        """A stream that was opened during the drain is closed too."""
        busy = Connection(self.connections, idle=False)
        done = self.drain.start()
        self.run_for(1)
        self.add_streams(1)
        self.run_for(2 * STEP)
        self.assertEqual(self.connections.open, {busy})
        busy.close_idle()
        self.run_for(STEP)
        self.successResultOf(done)

    def test_time_limit(self):
        """A connection whose client does not read its response is aborted at the time limit, not before."""
        slow = Connection(self.connections, idle=False)
        done = self.drain.start()
        self.run_for(LIMIT - 2 * STEP)
        self.assertFalse(slow.aborted)
        self.run_for(3 * STEP)
        self.assertTrue(slow.aborted)
        self.successResultOf(done)

    def test_abort_remaining(self):
        """`abort_remaining` aborts all connections and ends the drain."""
        self.add_streams(1000)
        done = self.drain.start()
        self.drain.abort_remaining()
        self.clock.advance(0)
        self.successResultOf(done)
        self.drain.abort_remaining()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken(self):
        """A connection whose end raises keeps neither the others nor the drain from ending."""

        class Broken(Connection):
            def close_idle(self) -> None:
                raise ZeroDivisionError

            abortConnection = close_idle

        self.streams.append(Broken(self.connections, idle=True))
        self.add_streams(1000)
        done = self.drain.start()
        self.run_for(LIMIT + 2 * STEP)
        self.assertEqual(len(self.connections.open), 1)
        self.assertFalse(any(stream.aborted for stream in self.streams))
        self.successResultOf(done)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
