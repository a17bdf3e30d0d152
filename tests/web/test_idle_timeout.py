"""Connections that are idle, have an unfinished request or are stuck are closed, without a timer for each."""

from twisted.trial.unittest import SynchronousTestCase

from livestate.web.http1 import timed_channel
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.timed_channel import MIN_PROGRESS
from livestate.web.idle_timeout import CHECK_INTERVAL, LINGERING, QUIET, UNFINISHED, IdleTimeouts
from tests.web.http1.test_channel import Pair, PausableTransport, request


class IdleTimeoutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair()
        self.idle_timeouts = IdleTimeouts(self.pair.clock, lambda: self.pair.site.connections.open)
        self.idle_timeouts.startService()
        self.addCleanup(self.idle_timeouts.stopService)
        self.channel, self.transport = self.connect()

    def connect(self) -> tuple[LiveChannel, PausableTransport]:
        return self.pair.fast()

    def wait(self, checks: int) -> None:
        self.pair.clock.pump([CHECK_INTERVAL] * checks)

    def test_idle_connection(self) -> None:
        """A connection without a request is closed after a minute, and not before."""
        self.wait(QUIET - 1)
        self.assertFalse(self.transport.disconnecting)
        self.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_polling_client(self) -> None:
        """A connection with a request now and then stays open, on either path."""
        for target in (b"/", b"/nothing") * 20:
            self.channel.dataReceived(request(target=target))
            self.wait(QUIET - 2)
        self.assertFalse(self.transport.disconnecting)

    def test_slow_request(self) -> None:
        """A request that arrives byte by byte has a time limit, however steadily the bytes arrive."""
        for byte in request(b"X: " + b"x" * 1000)[:UNFINISHED]:
            self.assertFalse(self.transport.disconnecting)
            self.channel.dataReceived(bytes([byte]))
            self.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_split_requests(self) -> None:
        """Requests that arrive in two pieces each do not count as one unfinished request."""
        for _ in range(5 * UNFINISHED):
            self.channel.dataReceived(request()[:9])
            self.channel.dataReceived(request()[9:])
            self.wait(1)
        self.assertFalse(self.transport.disconnecting)

    def test_slow_reader(self) -> None:
        """A client that reads slowly keeps its connection; a client that reads next to nothing does not."""
        unsent = 1_000_000
        self.patch(timed_channel, "unsent", lambda transport: unsent)
        for _ in range(60):
            unsent -= MIN_PROGRESS
            self.wait(1)
        self.assertFalse(self.transport.disconnecting)
        unsent -= MIN_PROGRESS - 1
        self.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_slow_body(self) -> None:
        """A body that arrives byte by byte has a time limit too, with either framing."""
        for field, piece in ((b"Content-Length: 1000", b"x"), (b"Transfer-Encoding: chunked", b"1\r\nx\r\n")):
            channel, transport = self.pair.fast()
            channel.dataReceived(request(field))
            for _ in range(UNFINISHED):
                self.assertFalse(transport.disconnecting)
                channel.dataReceived(piece)
                self.wait(1)
            self.assertTrue(transport.disconnecting)

    def test_slow_reader_of_a_twisted_web_response(self) -> None:
        """A client that reads twisted.web's response slowly does not have an unfinished request."""
        self.transport.limit = 10
        self.channel.dataReceived(request(target=b"/nothing"))
        self.wait(UNFINISHED + 1)
        self.assertFalse(self.transport.disconnecting)

    def test_lingering_connection(self) -> None:
        """A closed connection that lingers because its client does not read the unsent data is aborted."""
        self.wait(QUIET + LINGERING - 1)
        self.assertFalse(self.transport.aborted)
        self.wait(1)
        self.assertTrue(self.transport.aborted)

    def test_lingering_on_either_path(self) -> None:
        """The same holds if the client asked to close the connection and does not read the last response."""
        for fields in ([b"Connection: close"], [b"Connection: close", b"Prefer: wait=0"]):
            channel, transport = self.connect()
            channel.dataReceived(request(*fields))
            self.assertTrue(transport.disconnecting)
            # As in real transports.
            transport.unregisterProducer = lambda: None  # type: ignore[method-assign]
            self.wait(QUIET + LINGERING + 1)
            self.assertTrue(transport.aborted, fields)

    def test_lost_connection(self) -> None:
        """A lost connection is no longer checked."""
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
