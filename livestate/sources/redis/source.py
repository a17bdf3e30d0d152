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

The value is served unchanged. One connection stays open for it. After any failure, a cancelled fetch included, that
connection is dropped and the next fetch makes a new one. With `notify` there is a second connection, see `channel`.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from twisted.internet.endpoints import UNIXClientEndpoint
from zope.interface import alsoProvides, implementer

from livestate.config.redaction import redacted
from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.sources.api import IStore, IWatching
from livestate.sources.redis.channel import RedisChannel, keyspace_channel
from livestate.sources.redis.cluster import ClusterDeployment
from livestate.sources.redis.connection import Login, RedisServer, Servers
from livestate.sources.redis.deployment import Deployment, Standalone
from livestate.sources.redis.sentinel_deployment import SentinelDeployment
from livestate.sources.redis.sentinels import Sentinels
from livestate.sources.redis.url import NodeAddress, addresses_of, split
from livestate.sources.url import port_of, query_of

_PARAMETERS = frozenset({"key", "cafile", "notify"})
#: The parameters that only one kind of URL may have, by the part of its scheme after the +.
_PARAMETERS_OF = {
    "": frozenset[str](),
    "unix": frozenset({"db"}),
    "sentinel": frozenset({"read_from", "sentinel_username", "sentinel_password"}),
    "cluster": frozenset[str](),
}
#: The values of `read_from`; the first is the default.
_READ_FROM = "primary", "prefer_replica"

#: The value of `notify` that is not the name of a channel, but means Redis's own channel for the key; see `channel`.
_KEYSPACE = "keyspace"


@implementer(IStore)
class RedisSource:
    """Fetches and sets one key; notifies of changes if the URL has `notify`."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Parse `url`, which has one of the forms in the module's docstring.

        :raises SettingsError: when it does not.
        """
        kind = url.partition(":")[0].lower().partition("+")[2]
        parts = split(url) if kind in ("sentinel", "cluster") else urlsplit(url)
        query = query_of(parts, _PARAMETERS | _PARAMETERS_OF[kind])
        self._key = query.get("key", "livestate").encode()
        self._name = redacted(url)
        self._deployment = _deployment(reactor, parts, query, self._key, max_size, self._name)
        self._notify = query.get("notify")
        if self._notify is not None:
            if not self._notify:
                raise SettingsError("notify must be the name of a channel, or keyspace: &notify=results")
            keyspace = self._notify == _KEYSPACE
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
        if self._notify in (None, _KEYSPACE):
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


def _deployment(
    reactor: Any, parts: SplitResult, query: dict[str, str], key: bytes, max_size: int, source: str
) -> Deployment:
    """Return the deployment that a URL describes.

    :raises SettingsError: when part of the URL is missing or not valid.
    """
    security, _, kind = parts.scheme.partition("+")
    if kind == "unix":
        if not parts.path:
            raise SettingsError("the URL has no socket: redis+unix:///path/to/redis.sock?key=…")
        endpoint = UNIXClientEndpoint(reactor, unquote(parts.path))
        return Standalone(RedisServer(endpoint, Login.of(parts, query.get("db", "0"))), max_size)
    tls, cafile = security == "rediss", query.get("cafile")
    if kind == "sentinel":
        sentinels = addresses_of(parts, 26379)
        service, _, database = unquote(parts.path).strip("/").partition("/")
        if not service:
            raise SettingsError("the URL has no service: redis+sentinel://HOST,HOST/SERVICE?key=…")
        read_from = query.get("read_from", _READ_FROM[0])
        if read_from not in _READ_FROM:
            raise SettingsError(f"read_from must be {' or '.join(_READ_FROM)}, not {read_from!r}")
        login = Login(query.get("sentinel_username", ""), query.get("sentinel_password", ""))
        sentinel_servers = Servers(reactor, tls, cafile, login)
        return SentinelDeployment(
            reactor,
            Servers(reactor, tls, cafile, Login.of(parts, database or "0")),
            Sentinels(reactor, sentinel_servers, sentinels, service),
            prefer_replica=read_from == _READ_FROM[1],
            max_size=max_size,
            source=source,
        )
    if kind == "cluster":
        nodes = addresses_of(parts, 6379)
        if parts.path.strip("/") not in ("", "0"):
            raise SettingsError("a cluster has only the database 0")
        servers = Servers(reactor, tls, cafile, Login.of(parts, "0"))
        for node in nodes:
            servers.at(node)  # Fails now, not at the first fetch, if `cafile` cannot be used.
        return ClusterDeployment(servers, nodes, key, max_size=max_size, source=source)
    address = NodeAddress(parts.hostname or "127.0.0.1", port_of(parts) or 6379)
    servers = Servers(reactor, tls, cafile, Login.of(parts, parts.path.strip("/") or "0"))
    return Standalone(servers.at(address), max_size)
