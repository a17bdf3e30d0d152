"""Those who asked for much go on in turn, a slice of time in each turn of the reactor."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from livestate.web.http1.fair_scheduler import SLICE, FairScheduler
from tests.web.http1.test_channel import BODY, Pair, request


class Reactor:
    """One that turns when it is told to."""

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


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Reactor()
        self.turns = FairScheduler(self.clock)
        self.done: list[str] = []

    def work(self, name: str, seconds: float = 0, times: int = 1) -> Callable[[], None]:
        """Give work that takes so long, and is put into the queue so many times in all."""

        def go_on() -> None:
            nonlocal times
            times -= 1
            self.done.append(name)
            self.clock.now += seconds
            if times:
                self.turns.wait(go_on)

        return go_on

    def test_in_turn(self) -> None:
        """Nobody goes on at once, nor twice before others."""
        for name in "abc":
            self.turns.wait(self.work(name, times=2))
        self.assertEqual(self.done, [])
        self.clock.turn()
        self.assertEqual(self.done, ["a", "b", "c"])
        self.clock.turn()
        self.assertEqual(self.done, ["a", "b", "c"] * 2)
        self.assertEqual(self.clock.calls, [])

    def test_slice(self) -> None:
        """However many wait, a turn of the reactor takes no longer than a slice and one of them."""
        for n in range(10):
            self.turns.wait(self.work(str(n), SLICE / 2))
        for turn in range(1, 6):
            self.clock.turn()
            self.assertEqual(len(self.done), 2 * turn)
        self.assertEqual(self.clock.calls, [])


class ChannelTests(SynchronousTestCase):
    """A channel in the queue."""

    def test_others_are_served_between(self) -> None:
        """Of a flood, on either way, a few requests are answered before it is another reader's turn."""
        for target in (b"/", b"/nothing"):
            pair = Pair()
            flooding, flooded = pair.fast()
            flooding.dataReceived(request(target=target) * 1000)
            self.assertLess(flooded.value().count(b"HTTP/1.1 "), 50)
            self.assertEqual(flooded.producerState, "paused")
            honest, transport = pair.fast()
            honest.dataReceived(request())
            self.assertTrue(transport.value().endswith(BODY))
            # What comes meanwhile, as what TLS has decrypted may, is answered behind the rest.
            flooding.dataReceived(request(b"Connection: close"))
            pair.turn()
            self.assertEqual(flooded.value().count(b"HTTP/1.1 "), 1001)
            self.assertTrue(flooded.disconnecting)

    def test_full_transport(self) -> None:
        """Who reads nothing is not given more because it is his turn; he is when he reads."""
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

    def test_reads_before_its_turn(self) -> None:
        """Who reads again before it is his turn waits for it."""
        pair = Pair()
        channel, transport = pair.fast()
        channel.dataReceived(request() * 100)
        before = transport.value().count(b"HTTP/1.1 ")
        channel.pauseProducing()
        channel.resumeProducing()
        self.assertEqual((transport.value().count(b"HTTP/1.1 "), transport.producerState), (before, "paused"))
        pair.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 100)

    def test_gone(self) -> None:
        """Who has left in the meantime is answered no more."""
        pair = Pair()
        channel, transport = pair.fast()
        channel.dataReceived(request() * 100)
        channel.connectionLost(None)
        before = transport.value()
        pair.turn()
        self.assertEqual(transport.value(), before)
