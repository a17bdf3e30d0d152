"""Connections that are quiet, unfinished or stuck are ended, without a timer of their own."""

from twisted.trial.unittest import SynchronousTestCase

from livestate.web.http1 import timed_channel
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.timed_channel import MIN_PROGRESS
from livestate.web.idle_timeout import CHECK_INTERVAL, LINGERING, QUIET, UNFINISHED, IdleTimeouts
from tests.web.http1.test_channel import Pair, PausableTransport, request


class SweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair()
        self.sweep = IdleTimeouts(self.pair.clock, lambda: self.pair.site.connections.open)
        self.sweep.startService()
        self.addCleanup(self.sweep.stopService)
        self.channel, self.transport = self.connect()

    def connect(self) -> tuple[LiveChannel, PausableTransport]:
        return self.pair.fast()

    def wait(self, looks: int) -> None:
        self.pair.clock.pump([CHECK_INTERVAL] * looks)

    def test_quiet(self) -> None:
        """A connection without a request for a minute is closed, and not before."""
        self.wait(QUIET - 1)
        self.assertFalse(self.transport.disconnecting)
        self.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_polling(self) -> None:
        """A connection with a request now and then stays, on either way."""
        for target in (b"/", b"/nothing") * 20:
            self.channel.dataReceived(request(target=target))
            self.wait(QUIET - 2)
        self.assertFalse(self.transport.disconnecting)

    def test_dripping(self) -> None:
        """A request that comes in byte by byte has its time, however lively it drips."""
        for byte in request(b"X: " + b"x" * 1000)[:UNFINISHED]:
            self.assertFalse(self.transport.disconnecting)
            self.channel.dataReceived(bytes([byte]))
            self.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_split_requests(self) -> None:
        """Requests that come in two pieces each do not add up to an unfinished one."""
        for _ in range(5 * UNFINISHED):
            self.channel.dataReceived(request()[:9])
            self.channel.dataReceived(request()[9:])
            self.wait(1)
        self.assertFalse(self.transport.disconnecting)

    def test_slow_reader(self) -> None:
        """A reader who takes what is sent, if slowly, is kept; one who takes next to nothing is not."""
        waiting = 1_000_000
        self.patch(timed_channel, "unsent", lambda transport: waiting)
        for _ in range(60):
            waiting -= MIN_PROGRESS
            self.wait(1)
        self.assertFalse(self.transport.disconnecting)
        waiting -= MIN_PROGRESS - 1
        self.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_dripping_body(self) -> None:
        """A body that comes in byte by byte has its time as well, of either kind."""
        for field, piece in ((b"Content-Length: 1000", b"x"), (b"Transfer-Encoding: chunked", b"1\r\nx\r\n")):
            channel, transport = self.pair.fast()
            channel.dataReceived(request(field))
            for _ in range(UNFINISHED):
                self.assertFalse(transport.disconnecting)
                channel.dataReceived(piece)
                self.wait(1)
            self.assertTrue(transport.disconnecting)

    def test_slow_reader_on_the_long_way(self) -> None:
        """A reader who is slow to take twisted.web's answer has no request unfinished."""
        self.transport.limit = 10
        self.channel.dataReceived(request(target=b"/nothing"))
        self.wait(UNFINISHED + 1)
        self.assertFalse(self.transport.disconnecting)

    def test_lingering(self) -> None:
        """A connection that was ended, and stays for what its reader does not take, is cut off."""
        self.wait(QUIET + LINGERING - 1)
        self.assertFalse(self.transport.aborted)
        self.wait(1)
        self.assertTrue(self.transport.aborted)

    def test_lingering_on_either_way(self) -> None:
        """One whose last answer it was, by the client's wish, and who takes nothing of it, is cut off as well."""
        for fields in ([b"Connection: close"], [b"Connection: close", b"Prefer: wait=0"]):
            channel, transport = self.connect()
            channel.dataReceived(request(*fields))
            self.assertTrue(transport.disconnecting)
            # As real transports have it.
            transport.unregisterProducer = lambda: None  # type: ignore[method-assign]
            self.wait(QUIET + LINGERING + 1)
            self.assertTrue(transport.aborted, fields)

    def test_gone(self) -> None:
        """A connection that is lost is looked at no more."""
        self.channel.connectionLost(None)
        self.assertEqual(self.pair.site.connections.open, set())
        self.wait(QUIET)
        self.assertFalse(self.transport.disconnecting)

    def test_broken(self) -> None:
        """A connection that cannot be checked is closed, and the others are checked all the same."""
        others = [self.connect()[1] for _ in range(5)]

        def fail(quiet: int, unfinished: int) -> bool:
            raise ZeroDivisionError

        self.patch(self.channel, "overdue", fail)
        self.wait(1)
        self.assertTrue(self.transport.aborted)
        self.wait(QUIET)
        self.assertTrue(all(transport.disconnecting for transport in others))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), QUIET + 1)
