"""Learning from Redis which keys have changed: client-side caching (CLIENT TRACKING, Redis 6.0 or later).

https://redis.io/docs/latest/develop/reference/client-side-caching/. Redis remembers which keys the connection for
reading has read, and tells a second connection when one of them is changed, deleted or has expired. It tells it once,
until the key is read again, and it costs the server nothing for keys that no one reads: so a change of one key of a
million is not heard unless it is in use. (The broadcasting mode, by prefixes, would announce them all.) It needs no
setting of the server and no PUBLISH.

    untracked --CLIENT ID, SUBSCRIBE, CLIENT TRACKING ON--> tracked --either connection lost--> untracked
    untracked --refused (an old server, an ACL, a proxy)--> polling --RETRY_INTERVAL--> untracked

Nothing is missed between two connections: whatever was read before has to be read again on the new one, so establishing
one counts as a change of all keys. While a pair of connections lives, which a PING on each shows, a key that was read
and not reported since is unchanged: the report of any change that happened before the PING was sent precedes its reply.

The two connections are separate sockets, so the report of a change may come before the reply to the read that it is
newer than. That does no harm: a key that is reported while it is read is read once more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from livestate.errors import SourceError
from livestate.sources.notification_trouble import NotificationTrouble
from livestate.sources.redis.connection import ErrorReply, RedisProtocol, RedisServer
from livestate.sources.redis.persistent_connection import PersistentConnection

#: The channel on which Redis reports changes to connections that speak RESP2.
CHANNEL = b"__redis__:invalidate"

#: Seconds until a server that has refused tracking is asked again: it may have been upgraded, or its ACL changed.
RETRY_INTERVAL = 60.0

#: Bytes that the keys of one report may have. FLUSHALL sends none, and an eviction few.
_MAX_REPORT = 1024 * 1024


class Tracking:
    """What Redis tells of the keys of one store."""

    def __init__(self, clock: Any, source: str) -> None:
        """:param source: the name of the store, for log lines."""
        #: Called with each key that may have changed, or with None for all of them.
        self.changed: Callable[[str | None], None] = _ignore
        self._clock = clock
        self._report = NotificationTrouble(source)
        #: The connection whose reads are tracked, or the one that the server has refused to track.
        self._connection: TrackedConnection | None = None
        self._untracked: TrackedConnection | None = None
        self._retry_at: float | None = None

    def wanted(self) -> bool:
        """Return whether a new connection should ask for tracking."""
        return self._retry_at is None or self._clock.seconds() >= self._retry_at

    async def confirm(self) -> bool:
        """Return whether every key that was read, and not reported since, is unchanged.

        :raises SourceError: the connection was lost.
        """
        connection = self._connection
        if connection is None:
            if self._untracked is not None and self.wanted():
                self._untracked.drop()
            return False
        await connection.ping()
        return connection is self._connection

    def established(self, connection: "TrackedConnection") -> None:
        """Note that what this connection reads is tracked from now on."""
        self._connection = connection
        self._retry_at = None
        self._report.listening("by client tracking")
        self.changed(None)

    def lost(self, connection: "TrackedConnection") -> None:
        """Note that what this connection has read is no longer tracked."""
        if connection is self._connection:
            self._connection = None
        if connection is self._untracked:
            self._untracked = None

    def refused(self, connection: "TrackedConnection", reason: str) -> None:
        """Note that the server does not track what this connection reads."""
        self._untracked = connection
        self._retry_at = self._clock.seconds() + RETRY_INTERVAL
        self._report.failed(reason)


class _Listener(RedisProtocol):
    """The connection on which Redis reports changes."""

    def __init__(self, tracking: Tracking, lost: Callable[[], None]) -> None:
        super().__init__(_MAX_REPORT)
        self._tracking = tracking
        self._lost = lost

    def replyReceived(self, reply: object) -> None:
        """Handle a report; pass on any other reply."""
        if isinstance(reply, list) and reply[:2] == [b"message", CHANNEL]:
            keys = reply[2] if len(reply) > 2 else None
            for key in keys if isinstance(keys, list) else (None,):
                self._tracking.changed(key.decode(errors="surrogateescape") if isinstance(key, bytes) else None)
        else:
            super().replyReceived(reply)

    def connectionLost(self, why: Failure) -> None:
        """Note that nothing is reported from now on."""
        super().connectionLost(why)
        self._lost()


class TrackedConnection(PersistentConnection):
    """A persistent connection whose reads Redis tracks, where it does."""

    def __init__(self, server: RedisServer, max_size: int, tracking: Tracking) -> None:
        """Prepare to connect to `server`.

        :param max_size: the maximum size of a value in bytes.
        """
        super().__init__(server, max_size)
        self._tracking = tracking
        self._listener: _Listener | None = None

    async def ping(self) -> None:
        """Wait for the replies to a PING on each of the two connections.

        :raises SourceError: one of them was lost.
        """
        protocol, listener = self._protocol, self._listener
        if protocol is None or listener is None:
            raise SourceError("the connection was lost")
        try:
            await gatherResults(
                [Deferred.fromCoroutine(protocol.ask("PING")), Deferred.fromCoroutine(listener.ask("PING"))],
                consumeErrors=True,
            )
        except BaseException as error:
            self.drop()
            if isinstance(error, Exception) and not isinstance(error, SourceError):
                raise SourceError("the connection was lost") from None
            raise

    def drop(self) -> None:
        """Close both connections; the next `ask` makes new ones."""
        listener, self._listener = self._listener, None
        self._tracking.lost(self)
        super().drop()
        if listener is not None:
            listener.abort()

    async def _open(self) -> RedisProtocol:
        if not self._tracking.wanted():
            return await super()._open()
        listener = await self._server.connect(partial(_Listener, self._tracking, self._listener_lost))
        try:
            protocol = await super()._open()
        except BaseException:
            listener.abort()
            raise
        try:
            client = await listener.ask("CLIENT", "ID")
            await listener.ask("SUBSCRIBE", CHANNEL)
            await protocol.ask("CLIENT", "TRACKING", "ON", "REDIRECT", client)
        except ErrorReply as error:
            listener.abort()
            self._tracking.refused(self, str(error))
            return protocol
        except BaseException:
            listener.abort()
            protocol.abort()
            raise
        self._listener = listener
        self._tracking.established(self)
        return protocol

    def _listener_lost(self) -> None:
        # What is read from now on would not be reported.
        if self._listener is not None:
            self.drop()


def _ignore(key: str | None) -> None:
    """Do nothing: the default for `changed`."""
