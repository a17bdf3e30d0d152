"""Clients with many requests continue in turn, for a slice of time in each turn of the reactor."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from livestate.web.http1.fair_scheduler import SLICE, FairScheduler
from tests.web.http1.test_channel import BODY, Pair, request


class ManualClock:
    """A clock and reactor that is advanced by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], None]] = []

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        """Call what was due when the turn began."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class FairSchedulerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.scheduler = FairScheduler(self.clock)
        self.done: list[str] = []

    def work(self, name: str, seconds: float = 0, times: int = 1) -> Callable[[], None]:
        """Return work that takes some seconds each time it runs, and is queued `times` times in total."""

        def run() -> None:
            nonlocal times
            times -= 1
            self.done.append(name)
            self.clock.now += seconds
            if times:
                self.scheduler.wait(run)

        return run

    def test_order(self) -> None:
        """No work runs at once, nor twice before the others."""
        for name in "abc":
            self.scheduler.wait(self.work(name, times=2))
        self.assertEqual(self.done, [])
        self.clock.turn()
        self.assertEqual(self.done, ["a", "b", "c"])
        self.clock.turn()
        self.assertEqual(self.done, ["a", "b", "c"] * 2)
        self.assertEqual(self.clock.calls, [])

    def test_slice(self) -> None:
        """However much work is queued, a turn of the reactor takes no longer than a slice and one piece of work."""
        for n in range(10):
            self.scheduler.wait(self.work(str(n), SLICE / 2))
        for turn in range(1, 6):
            self.clock.turn()
            self.assertEqual(len(self.done), 2 * turn)
        self.assertEqual(self.clock.calls, [])


class ChannelTests(SynchronousTestCase):
    """A channel in the queue."""

    def test_flood(self) -> None:
        """Only a few requests of a flood, on either path, are answered before other clients have their turn."""
        for target in (b"/", b"/nothing"):
            pair = Pair()
            flooding, flood_transport = pair.fast()
            flooding.dataReceived(request(target=target) * 1000)
            self.assertLess(flood_transport.value().count(b"HTTP/1.1 "), 50)
            self.assertEqual(flood_transport.producerState, "paused")
            honest, transport = pair.fast()
            honest.dataReceived(request())
            self.assertTrue(transport.value().endswith(BODY))
            # Requests that arrive meanwhile, as decrypted TLS data can, are answered behind the pending ones.
            flooding.dataReceived(request(b"Connection: close"))
            pair.turn()
            self.assertEqual(flood_transport.value().count(b"HTTP/1.1 "), 1001)
            self.assertTrue(flood_transport.disconnecting)

    def test_paused_transport(self) -> None:
        """A client that does not read is not sent more when its turn comes, but only once it reads."""
        pair = Pair()
        channel, transport = pair.fast()
        channel.dataReceived(request() * 100)
        channel.pauseProducing()
        before = transport.value().count(b"HTTP/1.1 ")
        pair.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), before)
        channel.resumeProducing()
        pair.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 100)
        self.assertEqual(transport.producerState, "producing")

    def test_resumed_before_its_turn(self) -> None:
        """A client that resumes reading before its turn still waits for it."""
        pair = Pair()
        channel, transport = pair.fast()
        channel.dataReceived(request() * 100)
        before = transport.value().count(b"HTTP/1.1 ")
        channel.pauseProducing()
        channel.resumeProducing()
        self.assertEqual((transport.value().count(b"HTTP/1.1 "), transport.producerState), (before, "paused"))
        pair.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 100)

    def test_disconnect(self) -> None:
        """A client that has disconnected meanwhile is sent no more responses."""
        pair = Pair()
        channel, transport = pair.fast()
        channel.dataReceived(request() * 100)
        channel.connectionLost(None)
        before = transport.value()
        pair.turn()
        self.assertEqual(transport.value(), before)
