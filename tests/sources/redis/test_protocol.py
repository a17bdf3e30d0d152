"""Redis's protocol when the peer is not Redis, or sends nonsense."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SourceError
from livestate.sources.redis.connection import RedisProtocol
from tests.sources.redis.test_channel import Transport
from tests.support import few

MAX_SIZE = 1000

#: Valid and invalid pieces of input.
PIECES = (
    b"$2\r\nhi\r\n",
    b"$-1\r\n",
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":1\r\n",
    b"*2\r\n",
    b"$5000\r\n",
    b"\r\n",
    b"\xff",
    b"x",
)


class ProtocolTests(SynchronousTestCase):
    """One connection."""

    def connect(self):
        self.clock = Clock()
        self.transport = Transport(self.clock)
        self.protocol = self.transport.protocol = RedisProtocol(MAX_SIZE)
        self.protocol.makeConnection(self.transport)

    def ask(self) -> "Deferred[object]":
        return Deferred.fromCoroutine(self.protocol.ask("GET", "k"))

    def receive(self, data: bytes) -> None:
        """Receive data in the chunks that a transport reads, as long as it is connected."""
        for start in range(0, len(data), 65536):
            if not self.transport.disconnected:
                self.protocol.dataReceived(data[start : start + 65536])
            self.clock.pump([0] * 4)

    def failure(self, data: bytes) -> str:
        """Send a command, answer with `data`, and return the error, which must also end the connection."""
        self.connect()
        pending = self.ask()
        self.receive(data)
        error: Any = self.failureResultOf(pending, SourceError).value
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(len(self.protocol.replyQueue.pending), 0)
        return str(error)

    def test_values(self):
        """A value of the maximum size, a null value, an empty value and an array are returned unchanged."""
        self.connect()
        for reply, value in (
            (b"$1000\r\n" + b"x" * 1000 + b"\r\n", b"x" * 1000),
            (b"$-1\r\n", None),
            (b"$0\r\n\r\n", b""),
            (b"*2\r\n$1\r\na\r\n*-1\r\n", [b"a", None]),
        ):
            pending = self.ask()
            self.receive(reply[:3])
            self.assertNoResult(pending)
            self.receive(reply[3:])
            self.assertEqual(self.successResultOf(pending), value)
        self.assertFalse(self.transport.disconnected)

    def test_no_reply(self):
        """Input that no Redis sends ends the connection at once, always with the same message."""
        for data in (
            b"\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\xff\xfe\r\n",
            b"$-5\r\n",
            b"$abc\r\n",
            b"$" + b"9" * 5000 + b"\r\n",
            b"*-2\r\n",
            b":1.5\r\n",
            b"+" + b"x" * 200_000,
            b"x" * 200_000,
            b"*1\r\n" * 100_000,
            b"*1000000000\r\n" + b":1\r\n" * 100_000,
        ):
            self.assertEqual(self.failure(data), "not a Redis reply", data[:40])

    def test_too_large(self):
        """A value of 1 GB is refused when it is announced, and an array once its total size is too large."""
        self.assertEqual(
            self.failure(b"$1073741824\r\n" + b"x" * 1000), "the value has 1,073,741,824 bytes, and --max-size is 1,000"
        )
        self.assertIn("too long", self.failure(b"*1000\r\n" + (b"$999\r\n" + b"x" * 999 + b"\r\n") * 500))
        self.assertLess(len(self.protocol.parser.arrays[0][0]), 400)

    def test_unexpected_reply(self):
        """A reply to no command ends the connection, or it would be taken for the reply to the next one."""
        self.connect()
        pending = self.ask()
        self.receive(b"$1\r\n1\r\n$1\r\n2\r\n")
        self.assertEqual(self.successResultOf(pending), b"1")
        self.assertTrue(self.transport.disconnected)
        self.assertFalse(self.protocol.connected)
        self.assertIsInstance(self.failureResultOf(self.ask()).value, SourceError)

    def test_lost(self):
        """A connection that is lost in the middle of a reply raises SourceError."""
        self.connect()
        pending = self.ask()
        self.receive(b"$10\r\nabc")
        self.transport.abortConnection()
        self.clock.advance(0)
        self.assertEqual(str(self.failureResultOf(pending).value), "the connection was lost")

    def test_abort_when_lost(self):
        """A connection that is lost already is not aborted: Twisted's TLS would raise AttributeError."""
        self.connect()
        self.transport.abortConnection()
        self.clock.advance(0)
        self.patch(self.transport, "abortConnection", lambda: self.fail("aborted"))
        self.protocol.abort()

    @few
    @given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.integers(1, 9))
    def test_anything(self, data, size):
        """Any input, in any chunks, gives an answer or a SourceError, and leaves no reply for the next command."""
        self.connect()
        pending = self.ask()
        for start in range(0, len(data), size):
            self.receive(data[start : start + size])
        self.protocol.abort()
        self.clock.advance(0)
        results: list[Any] = []
        pending.addBoth(results.append)
        [result] = results
        if hasattr(result, "value"):
            self.assertIsInstance(result.value, SourceError)
        self.assertEqual(len(self.protocol.replyQueue.pending), 0)
