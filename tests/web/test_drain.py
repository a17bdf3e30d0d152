"""Coming to an end with all readers, in a time that stands still until it is told to go on."""

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.drain import GRACE, LIMIT, PACE, SPREAD, STEP, ConnectionDrain


class Connection:
    """Stands for a channel."""

    def __init__(self, connections: "Connections", idle: bool) -> None:
        self.connections = connections
        self.transport = None
        self._idle = idle
        self.aborted = False
        connections.open.add(self)

    def idle(self) -> bool:
        return self._idle

    def leave(self) -> None:
        self.connections.open.discard(self)

    def close_idle(self) -> None:
        self.leave()

    def abortConnection(self) -> None:
        self.aborted = True
        self.connections.open.discard(self)


class Connections:
    """Stands for the connections of a site."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()
        self.draining = False

    def drain(self) -> None:
        self.draining = True


class DrainTests(SynchronousTestCase):
    """A site that is drained."""

    def setUp(self):
        self.clock = Clock()
        self.connections = Connections()
        self.readers: list[Connection] = []
        self.drain = ConnectionDrain(
            self.clock,
            cast(Any, self.connections),
            lambda: [r.leave for r in self.readers if r in self.connections.open],
        )

    def read(self, count: int) -> None:
        """Have some readers of events."""
        self.readers += [Connection(self.connections, idle=False) for _ in range(count)]

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def test_nobody(self):
        """With nobody there it is over at once, and nothing is left in the clock."""
        self.assertIsNone(self.successResultOf(self.drain.start()))
        self.assertTrue(self.connections.draining)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_few(self):
        """A few readers are let go at once."""
        self.read(int(PACE * STEP))
        done = self.drain.start()
        self.run_for(STEP)
        self.successResultOf(done)

    def test_pace(self):
        """Many are let go evenly, as slowly as there is time for, and all of them before it is over."""
        self.read(20_000)
        done = self.drain.start()
        before = len(self.connections.open)
        gone = []
        while self.connections.open:
            self.assertNoResult(done)
            self.clock.advance(STEP)
            gone.append(before - len(self.connections.open))
            before = len(self.connections.open)
        self.assertLess(max(gone), 20_000 * STEP / SPREAD * 1.1 + 2)
        self.assertLessEqual(len(gone) * STEP, SPREAD + STEP)
        self.assertFalse(any(reader.aborted for reader in self.readers))
        self.run_for(STEP)
        self.successResultOf(done)

    def test_idle(self):
        """A connection that is quiet is waited for a while, and then closed."""
        Connection(self.connections, idle=True)
        done = self.drain.start()
        self.run_for(GRACE - STEP)
        self.assertNoResult(done)
        self.run_for(3 * STEP)
        self.successResultOf(done)

    def test_newcomer(self):
        """A reader who comes meanwhile is let go too."""
        busy = Connection(self.connections, idle=False)
        done = self.drain.start()
        self.run_for(1)
        self.read(1)
        self.run_for(2 * STEP)
        self.assertEqual(self.connections.open, {busy})
        busy.leave()
        self.run_for(STEP)
        self.successResultOf(done)

    def test_limit(self):
        """One whose answer is not taken is cut off when the time is over, not before."""
        slow = Connection(self.connections, idle=False)
        done = self.drain.start()
        self.run_for(LIMIT - 2 * STEP)
        self.assertFalse(slow.aborted)
        self.run_for(3 * STEP)
        self.assertTrue(slow.aborted)
        self.successResultOf(done)

    def test_hurry(self):
        """In a hurry all are cut off."""
        self.read(1000)
        done = self.drain.start()
        self.drain.abort_remaining()
        self.clock.advance(0)
        self.successResultOf(done)
        self.drain.abort_remaining()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken(self):
        """A connection whose end raises keeps neither the others nor the drain from ending."""

        class Broken(Connection):
            def leave(self) -> None:
                raise ZeroDivisionError

            close_idle = abortConnection = leave

        self.readers.append(Broken(self.connections, idle=True))
        self.read(1000)
        done = self.drain.start()
        self.run_for(LIMIT + 2 * STEP)
        self.assertEqual(len(self.connections.open), 1)
        self.assertFalse(any(reader.aborted for reader in self.readers))
        self.successResultOf(done)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
