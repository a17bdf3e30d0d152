"""A document from a key in Redis.

    redis://[[user]:password@]host[:6379]/[database]?key=livestate
    rediss://…?key=…&cafile=ca.pem            TLS, the certificate verified against the system's roots or `cafile`
    redis+unix://[[user]:password@]/path/to/redis.sock?key=…&db=0
    redis+sentinel://[[user]:password@]host[:26379][,host…]/service[/database]?key=…
    …&sentinel_username=…&sentinel_password=… the login for the Sentinels; the one before the @ is for the servers
    …&read_from=prefer_replica                read from a replica as long as one is healthy
    redis+cluster://[[user]:password@]host[:6379][,host…]/?key=…
    rediss+sentinel://… rediss+cluster://…    TLS to all servers, and to the Sentinels
    …&notify=CHANNEL                          fetch at once when anything is published on this channel
    …&notify=keyspace                         fetch at once when Redis reports a change of the key
    …&notify=poll                             fetch only at every interval, where a store would be tracked (see `store`)

The value is served unchanged. One connection stays open for it. After any failure, a cancelled fetch included, that
connection is dropped and the next fetch makes a new one. With `notify` there is a second connection, see `channel`.
"""

from collections.abc import Callable
from typing import Any

from zope.interface import alsoProvides, implementer

from livestate.config.redaction import redacted
from livestate.errors import DocumentMissing, SourceError
from livestate.sources.api import IWatching, IWritableSource
from livestate.sources.redis.channel import RedisChannel, keyspace_channel
from livestate.sources.redis.deployments import make_deployment
from livestate.sources.redis.url import KEYSPACE, POLL, parse


@implementer(IWritableSource)
class RedisSource:
    """Fetches and sets one key; notifies of changes if the URL has `notify`."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Parse `url`, which has one of the forms in the module's docstring.

        :raises SettingsError: when it does not.
        """
        parts, query = parse(url)
        self._key = query.get("key", "livestate").encode()
        self._name = redacted(url)
        self._deployment = make_deployment(reactor, parts, query, self._key, max_size, self._name)
        self._notify = None if query.get("notify") == POLL else query.get("notify")
        if self._notify is not None:
            keyspace = self._notify == KEYSPACE
            database = self._deployment.database
            channel = keyspace_channel(database, self._key) if keyspace else self._notify.encode()
            self._channel = RedisChannel(reactor, self._deployment, channel, keyspace, self._name, max_size)
            self._deployment.moved = self._channel.reconnect
            alsoProvides(self, IWatching)

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """GET the key."""
        value = await self._deployment.read("GET", self._key)
        if value is None:
            raise DocumentMissing(f"no such key: {self._key.decode(errors='replace')!r}")
        if not isinstance(value, bytes):
            self._deployment.disconnect()
            raise SourceError("not a Redis reply to GET")
        return value

    async def publish(self, data: bytes) -> None:
        """SET the key, and PUBLISH to the channel of `notify` in the same transaction."""
        command = "SET", self._key, data
        if self._notify in (None, KEYSPACE):
            await self._deployment.write(command)
        else:
            await self._deployment.write(("MULTI",), command, ("PUBLISH", self._notify, self._key), ("EXEC",))

    def watch(self, changed: Callable[[], None]) -> None:
        """Subscribe to the channel of `notify`, on a separate connection."""
        self._channel.start(changed)

    def close(self) -> None:
        """Close the connections."""
        self._deployment.disconnect()
        if self._notify is not None:
            self._channel.stop()
