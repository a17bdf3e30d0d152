"""A document that is the value of a key in Redis.

    redis://[[user]:password@]host[:6379]/[database]?key=livestate
    rediss://…?key=…&cafile=ca.pem            TLS, the certificate verified against the system's roots or `cafile`
    redis+unix://[[user]:password@]/path/to/redis.sock?key=…&db=0

The value is served as it is. One connection is kept; after any failure, a cancelled fetch included, it is dropped
and the next fetch makes a new one. txredisapi's own reconnecting factory is left out: it stops for good when AUTH
or SELECT fails, and its replies would shift by one after a fetch that was given up.
"""

from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import BaseRedisProtocol, RedisError, ResponseError
from zope.interface import implementer

from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.interfaces import IStore
from livestate.sources import ATTEMPT_DELAY, port_of, query_of, redacted
from livestate.tls import client_options, tls_trouble

_PARAMETERS = frozenset({"key", "cafile"})


class _Protocol(BaseRedisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """txredisapi's parser, made safe against what is not Redis.

    `BaseRedisProtocol`, not `RedisProtocol`: the latter is another one where hiredis is installed.
    """

    def __init__(self, max_size: int) -> None:
        # Without these two, values that look like numbers or text come back as such.
        super().__init__(charset=None, convertNumbers=False)
        self._max_size = max_size

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        try:
            super().dataReceived(data, unpause)
        except ValueError as error:  # bytes that are not ASCII where a reply's first line should be
            self._give_up(f"not a Redis reply: {error}")

    def lineReceived(self, line: str) -> None:
        length = line[1:]
        if line[:1] == "$" and length.isdigit() and int(length) > self._max_size:
            # Not read at all: a value of 1 GB would be held in memory first and refused then.
            self._give_up(f"the value has {int(length):,} bytes, and --max-size is {self._max_size:,}")
        elif line[:1] not in ("$", "*", "+", "-", ":"):
            self._give_up("not a Redis reply")
        else:
            super().lineReceived(line)

    def connectionLost(self, why: Failure) -> None:
        if why.value is not None and not why.check(ConnectionDone, ConnectionLost):
            # Else the replies that are waited for would only say "Lost connection", of a certificate refused too.
            while self.replyQueue.waiting:
                self.replyReceived(RedisError(tls_trouble(why.value)))
        super().connectionLost(why)

    def _give_up(self, why: str) -> None:
        self.replyReceived(RedisError(why))
        self.transport.abortConnection()


class _Factory(Factory[_Protocol]):
    #: Twisted would log the start and the stop of it at each try.
    noisy = False

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size

    def buildProtocol(self, addr: object) -> _Protocol:
        return _Protocol(self._max_size)


@implementer(IStore)
class RedisSource:
    """Fetches one key, and sets it."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Understand `url`, as in the module's description.

        :raises SettingsError: it is not such a URL.
        """
        parts = urlsplit(url)
        port = port_of(parts)
        over_socket = parts.scheme == "redis+unix"
        query = query_of(parts, _PARAMETERS | {"db"} if over_socket else _PARAMETERS)
        database = query.get("db", "0") if over_socket else parts.path.strip("/") or "0"
        if not database.isdecimal() or len(database) > 9:
            raise SettingsError(f"the database is a number, not {database!r}")
        self._key = query.get("key", "livestate").encode()
        self._database = int(database)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._name = redacted(url)
        self._endpoint = (
            _unix_endpoint(reactor, parts.path) if over_socket else _tcp_endpoint(reactor, parts, port, query)
        )
        self._factory = _Factory(max_size)
        self._protocol: _Protocol | None = None

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """GET the key."""
        value = await self._command("GET", self._key)
        if value is None:
            raise DocumentMissing(f"there is no key {self._key.decode(errors='replace')!r}")
        if not isinstance(value, bytes):
            self.close()
            raise SourceError("not a Redis reply to GET")
        return value

    async def publish(self, data: bytes) -> None:
        """SET the key."""
        await self._command("SET", self._key, data)

    def close(self) -> None:
        """Drop the connection."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abortConnection()

    async def _command(self, *command: object) -> object:
        """Ask Redis one thing, on the kept connection or a new one; after any failure it is kept no longer."""
        try:
            if self._protocol is None or not self._protocol.connected:
                await self._connect()
            return await self._ask(*command)
        except ResponseError as error:
            self.close()
            raise SourceError(f"Redis says: {error}") from None
        except RedisError as error:
            self.close()
            raise SourceError(str(error)) from None
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> None:
        try:
            self._protocol = cast(_Protocol, await self._endpoint.connect(self._factory))
        except ConnectError as error:
            raise SourceError(tls_trouble(error)) from None
        except OSError as error:
            raise SourceError(str(error)) from None
        try:
            if self._password:
                user = [self._user] if self._user else []
                await self._ask("AUTH", *user, self._password)
            if self._database:
                await self._ask("SELECT", self._database)
        except ResponseError as error:
            raise SourceError(f"Redis refuses the login or the database: {error}") from None

    async def _ask(self, *command: object) -> object:
        assert self._protocol is not None  # noqa: S101  # for the type checker; fetch sees to it
        answer: object = await self._protocol.execute_command(*command)
        return answer


def _tcp_endpoint(reactor: Any, parts: SplitResult, port: int | None, query: dict[str, str]) -> IStreamClientEndpoint:
    host = parts.hostname or "127.0.0.1"
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, host, port or 6379, attemptDelay=ATTEMPT_DELAY)
    if parts.scheme == "rediss":
        return wrapClientTLS(client_options(host, query.get("cafile")), endpoint)
    if "cafile" in query:
        raise SettingsError("cafile goes with rediss://")
    return endpoint


def _unix_endpoint(reactor: Any, path: str) -> IStreamClientEndpoint:
    if not path:
        raise SettingsError("it names no socket: redis+unix:///path/to/redis.sock?key=…")
    return UNIXClientEndpoint(reactor, unquote(path))
