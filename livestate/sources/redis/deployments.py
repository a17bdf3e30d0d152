"""Which servers of Redis a URL names."""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import SplitResult, unquote

from twisted.internet.endpoints import UNIXClientEndpoint

from livestate.errors import SettingsError
from livestate.sources.redis.cluster import ClusterDeployment
from livestate.sources.redis.connection import Login, RedisServer, Servers
from livestate.sources.redis.deployment import Deployment, Standalone
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.sentinel_deployment import SentinelDeployment
from livestate.sources.redis.sentinels import Sentinels
from livestate.sources.redis.url import NodeAddress, addresses_of
from livestate.sources.url import port_of

#: The values of `read_from`; the first is the default.
_READ_FROM = "primary", "prefer_replica"


def make_deployment(
    reactor: Any,
    parts: SplitResult,
    query: dict[str, str],
    key: bytes,
    max_size: int,
    source: str,
    make_connection: Callable[[RedisServer], PersistentConnection] | None = None,
) -> Deployment:
    """Return the deployment that a URL describes.

    :param key: the key to read, which says which node of a cluster to ask.
    :param max_size: the maximum size of a value in bytes.
    :param source: the name of the source, for log lines.
    :param make_connection: makes the connections for reading; None: ones for values one at a time. Not of a cluster.

    :raises SettingsError: when part of the URL is missing or not valid.
    """
    make_connection = make_connection or partial(PersistentConnection, max_size=max_size)
    security, _, kind = parts.scheme.partition("+")
    if kind == "unix":
        if not parts.path:
            raise SettingsError("the URL has no socket: redis+unix:///path/to/redis.sock?key=…")
        endpoint = UNIXClientEndpoint(reactor, unquote(parts.path))
        return Standalone(RedisServer(endpoint, Login.of(parts, query.get("db", "0"))), make_connection)
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
            make_connection=make_connection,
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
    return Standalone(servers.at(address), make_connection)
