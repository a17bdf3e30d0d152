"""Subscribing to a Redis channel, with a fake Redis."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from txredisapi import LineReceiver

from livestate.errors import SettingsError, SourceError
from livestate.sources.api import ISource, IWatching
from livestate.sources.factory import make_source
from livestate.sources.redis.channel import MAX_DELAY, PING_INTERVAL, TIMEOUT, RedisChannel, keyspace_channel
from tests.support import FakeReactor, log_lines

SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"
PONG = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
REFUSED = b"-NOPERM this user has no permissions\r\n"


class Transport(StringTransport):
    """A fake connection that can be aborted. As in reality, the protocol learns of it in the next reactor turn."""

    protocol: Any

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def abortConnection(self):
        if not self.disconnected:
            self.disconnected = True
            self.clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))

    def commands(self):
        """Return the names of the commands received since the last call."""
        words = self.value().split(b"\r\n")[2::2]
        self.clear()
        return [word.decode() for word in words if word.isupper()]


class FakeServer:
    """A fake deployment that makes connections, or fails with `answer`."""

    def __init__(self, clock):
        self.clock = clock
        self.answer = None
        self.transports = []

    async def connect(self, make):
        if self.answer is not None:
            if isinstance(self.answer, Deferred):
                await self.answer
            raise self.answer
        transport = Transport(self.clock)
        transport.protocol = make()
        transport.protocol.makeConnection(transport)
        self.transports.append(transport)
        return transport.protocol


class ChannelTests(SynchronousTestCase):
    """Listening on one channel."""

    def start(self, keyspace=False):
        self.clock = Clock()
        # txredisapi calls the global reactor between two values.
        self.patch(LineReceiver, "callLater", self.clock.callLater)
        self.server = FakeServer(self.clock)
        self.changes: list[float] = []
        server: Any = self.server
        self.channel = RedisChannel(self.clock, server, b"c", keyspace, "redis://h/0", 1000)
        self.channel.start(lambda: self.changes.append(self.clock.seconds()))

    def receive(self, data):
        """Receive data on the latest connection."""
        self.server.transports[-1].protocol.dataReceived(data)
        self.clock.pump([0] * 20)

    def commands(self):
        return self.server.transports[-1].commands()

    def listen(self):
        self.start()
        self.assertEqual(self.commands(), ["SUBSCRIBE"])
        self.receive(SUBSCRIBED)

    def run_for(self, seconds):
        self.clock.pump([0.1] * round(10 * seconds) + [0.001])

    def test_notifies(self):
        """It notifies when the subscription starts, not before, and at each message."""
        with log_lines() as lines:
            self.start()
            self.assertEqual(self.changes, [])
            self.receive(SUBSCRIBED)
            self.assertEqual(len(self.changes), 1)
            self.receive(MESSAGE * 3)
            self.assertEqual(len(self.changes), 4)
        self.assertEqual(lines, ["redis://h/0: listening for changes on the channel c"])

    def test_pings(self):
        """While listening it sends a PING every 5 s; the answers do not count as messages."""
        self.listen()
        for _ in range(20):
            self.run_for(PING_INTERVAL)
            self.assertEqual(self.commands(), ["PING"])
            self.receive(PONG)
        self.assertEqual((len(self.changes), len(self.server.transports)), (1, 1))

    def test_ping_refused(self):
        """A refused PING counts as an answer: the connection stays."""
        self.listen()
        for _ in range(20):
            self.run_for(PING_INTERVAL)
            self.receive(REFUSED)
        self.assertEqual(len(self.server.transports), 1)

    def test_silent(self):
        """A connection without an answer to PING is replaced within 10 s, with one log line."""
        with log_lines() as lines:
            self.listen()
            self.run_for(PING_INTERVAL + TIMEOUT + 0.1)
            self.assertTrue(self.server.transports[0].disconnected)
            self.run_for(MAX_DELAY)
            self.assertEqual(len(self.server.transports), 2)
            self.receive(SUBSCRIBED)
        self.assertEqual(len(self.changes), 2)
        self.assertEqual(len(lines), 3, lines)
        self.assertIn("change notifications unavailable: no answer within 5 s; polling, retrying", lines[1])

    def test_silent_from_the_start(self):
        """If Redis accepts but does not answer, the connection is retried indefinitely, with one log line."""
        with log_lines() as lines:
            self.start()
            self.run_for(60)
        self.assertApproximates(len(self.server.transports), 60 / (TIMEOUT + 0.8), 2)
        self.assertTrue(all(transport.disconnected for transport in self.server.transports[:-1]))
        self.assertEqual(len(lines), 1, lines)

    def test_lost(self):
        """A lost connection is replaced at once; one that is always lost is retried about once a second."""
        self.listen()
        self.server.transports[0].abortConnection()
        self.run_for(0.4)
        self.assertEqual(len(self.server.transports), 2)
        for _ in range(10):
            self.receive(SUBSCRIBED)
            self.server.transports[-1].abortConnection()
            self.run_for(MAX_DELAY)
        before = len(self.server.transports)
        self.assertLessEqual(before, 13)

    def test_refused(self):
        """A refused subscription is retried, and logged only once."""
        with log_lines() as lines:
            self.start()
            for _ in range(30):
                if not self.server.transports[-1].disconnected:
                    self.receive(REFUSED)
                self.run_for(MAX_DELAY)
            self.assertGreater(len(self.server.transports), 20)
            self.receive(SUBSCRIBED)
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("Redis refused the channel 'c': NOPERM", lines[0])
        self.assertEqual(len(self.changes), 1)

    def test_lost_after_failures(self):
        """An answered PING resets the backoff: after a loss the delay is the shortest again."""
        self.start()
        for _ in range(10):
            self.server.transports[-1].abortConnection()
            self.run_for(MAX_DELAY + 0.2)
        self.receive(SUBSCRIBED)
        self.run_for(PING_INTERVAL)
        self.receive(PONG)
        before = len(self.server.transports)
        self.server.transports[-1].abortConnection()
        self.run_for(0.4)
        self.assertEqual(len(self.server.transports), before + 1)

    def test_not_connected(self):
        """The reason for a failed connection is logged when it is new or changes."""
        with log_lines() as lines:
            self.start()
            self.server.transports[-1].abortConnection()
            for reason in ("refused", "refused", "no route"):
                self.server.answer = SourceError(reason)
                self.run_for(5)
        self.assertEqual(
            [line.split(": ")[2].split(";")[0] for line in lines], ["the connection was lost", "refused", "no route"]
        )

    def test_fault(self):
        """An unexpected exception does not stop the listening, and is logged once, with its traceback."""
        self.start()
        self.server.transports[-1].abortConnection()
        self.server.answer = ZeroDivisionError("oops")
        self.run_for(10)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.server.answer = None
        self.run_for(2)
        self.receive(SUBSCRIBED)
        self.assertEqual(len(self.changes), 1)

    def test_hostile(self):
        """Unexpected, oversized and invalid replies end the connection, with a reason."""
        for data, reason in (
            (b"+OK\r\n", "unexpected reply"),
            (b"-ERR max clients\r\n", "max clients"),
            (b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5000\r\n", "5,000 bytes"),
            (b"HTTP/1.1 200\r\n", "not a Redis reply"),
            (b"\xff\xff\r\n", "not a Redis reply"),
        ):
            with log_lines() as lines:
                self.listen()
                self.receive(data)
            self.assertTrue(self.server.transports[0].disconnected, data)
            self.assertIn(reason, lines[-1])
            self.channel.stop()

    def test_stop(self):
        """Stopping in any state closes the connection, logs nothing and leaves nothing behind."""

        def connecting():
            self.start()
            self.server.transports[-1].abortConnection()
            self.server.answer = Deferred(lambda d: d.errback(ConnectingCancelledError("h")))
            self.run_for(0.5)

        def pausing():
            self.start()
            self.receive(REFUSED)

        def pinging():
            self.listen()
            self.run_for(PING_INTERVAL)

        for prepare in (self.start, self.listen, pausing, pinging, connecting):
            prepare()
            with log_lines() as lines:
                self.channel.stop()
                self.run_for(0.1)
                self.assertEqual(self.clock.getDelayedCalls(), [], prepare)
                self.run_for(30)
            self.assertTrue(all(transport.disconnected for transport in self.server.transports))
            self.assertEqual(lines, [], prepare)
            self.assertLess(len(self.changes), 2)

    def test_stop_before_start(self):
        """A channel that was never started can be stopped."""
        server: Any = FakeServer(Clock())
        RedisChannel(Clock(), server, b"c", False, "redis://h/0", 1000).stop()


class URLTests(SynchronousTestCase):
    """`notify` in the URL."""

    def test_only_if_requested(self):
        """A source notifies of changes only if its URL has `notify`."""
        for query, watching in (("", False), ("?key=a", False), ("?notify=results", True), ("?notify=keyspace", True)):
            source = make_source(FakeReactor(), f"redis://h/0{query}", 100)
            self.assertTrue(ISource.providedBy(source))
            self.assertEqual(IWatching.providedBy(source), watching, query)
            source.close()

    def test_empty(self):
        """An empty `notify` is refused."""
        error = self.assertRaises(SettingsError, make_source, FakeReactor(), "redis://h/0?notify=", 100)
        self.assertIn("notify must be the name of a channel, keyspace, or poll", str(error))

    def test_keyspace_channel(self):
        """The name of a key's channel has the database and the unmodified key."""
        self.assertEqual(keyspace_channel(3, b"a:*"), b"__keyspace@3__:a:*")
