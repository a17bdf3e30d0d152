"""A document that is the value of a key in Redis.

    redis://[[user]:password@]host[:6379]/[database]?key=livestate
    rediss://…?key=…&cafile=ca.pem            TLS, the certificate verified against the system's roots or `cafile`
    redis+unix://[[user]:password@]/path/to/redis.sock?key=…&db=0
    …&notify=CHANNEL                          fetched at once when anything is published on this channel
    …&notify=keyspace                         fetched at once when Redis says that the key was touched

The value is served as it is. One connection is kept for it; after any failure, a cancelled fetch included, it is
dropped and the next fetch makes a new one. With `notify` there is a second one, see `redis_channel`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from zope.interface import alsoProvides, implementer

from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.interfaces import IStore, IWatching
from livestate.redaction import redacted
from livestate.sources import query_of
from livestate.sources.redis_channel import RedisChannel, keyspace_channel
from livestate.sources.redis_connection import RedisProtocol, RedisServer

_PARAMETERS = frozenset({"key", "cafile", "notify"})

#: The value of `notify` that is no channel of the user's. In Redis's terms it is one all the same, see `redis_channel`.
_KEYSPACE = "keyspace"


@implementer(IStore)
class RedisSource:
    """Fetches one key, and sets it; tells of changes where the URL says `notify`."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Understand `url`, as in the module's description.

        :raises SettingsError: it is not such a URL.
        """
        parts = urlsplit(url)
        query = query_of(parts, _PARAMETERS | {"db"} if parts.scheme == "redis+unix" else _PARAMETERS)
        self._key = query.get("key", "livestate").encode()
        self._name = redacted(url)
        self._server = RedisServer(reactor, parts, query)
        self._make = partial(RedisProtocol, max_size)
        self._protocol: RedisProtocol | None = None
        self._notify = query.get("notify")
        if self._notify is not None:
            if not self._notify:
                raise SettingsError("notify names a channel, or is keyspace: &notify=results")
            keyspace = self._notify == _KEYSPACE
            channel = keyspace_channel(self._server.database, self._key) if keyspace else self._notify.encode()
            self._channel = RedisChannel(reactor, self._server, channel, keyspace, self._name, max_size)
            alsoProvides(self, IWatching)

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """GET the key."""
        value = await self._ask(("GET", self._key))
        if value is None:
            raise DocumentMissing(f"there is no key {self._key.decode(errors='replace')!r}")
        if not isinstance(value, bytes):
            self._disconnect()
            raise SourceError("not a Redis reply to GET")
        return value

    async def publish(self, data: bytes) -> None:
        """SET the key, and tell those who listen on the channel of `notify`: both, or nothing at all."""
        command = "SET", self._key, data
        if self._notify in (None, _KEYSPACE):
            await self._ask(command)
        else:
            await self._ask(("MULTI",), command, ("PUBLISH", self._notify, self._key), ("EXEC",))

    def watch(self, changed: Callable[[], None]) -> None:
        """Listen on the channel of `notify`, on a connection of its own."""
        self._channel.start(changed)

    def close(self) -> None:
        """Drop the connections."""
        self._disconnect()
        if self._notify is not None:
            self._channel.stop()

    def _disconnect(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.abort()

    async def _ask(self, *commands: tuple[object, ...]) -> object:
        """Give these commands, on the kept connection or a new one, and give the last one's answer.

        After any failure the connection is kept no longer, which also ends a transaction that was begun on it.
        """
        try:
            if self._protocol is None or not self._protocol.connected:
                self._protocol = await self._server.connect(self._make)
            protocol = self._protocol
            answer: object = None
            for command in commands:
                answer = await protocol.ask(*command)
            return answer
        except BaseException:
            self._disconnect()
            raise
