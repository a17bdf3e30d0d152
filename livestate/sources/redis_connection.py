"""Where a Redis is, how to log in there, and its protocol made safe: what fetching and listening have in common.

txredisapi's own reconnecting factory is left out: it stops for good when AUTH or SELECT fails, and its replies would
shift by one after a fetch that was given up.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, unquote

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import BaseRedisProtocol, RedisError, ResponseError

from livestate.errors import SettingsError, SourceError
from livestate.sources import ATTEMPT_DELAY, port_of
from livestate.tls import client_options, tls_trouble


class RedisProtocol(BaseRedisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """txredisapi's parser, made safe against what is not Redis.

    `BaseRedisProtocol`, not txredisapi's `RedisProtocol`: the latter is another one where hiredis is installed.
    """

    def __init__(self, max_size: int) -> None:
        # Without these two, values that look like numbers or text come back as such.
        super().__init__(charset=None, convertNumbers=False)
        self._max_size = max_size

    async def ask(self, *command: object, refusal: str = "Redis says") -> object:
        """Send one command and give the answer.

        :param refusal: what to put before the text of an error that Redis answers with.
        :raises SourceError: the connection was lost, the answer cannot be used, or Redis refuses.
        """
        try:
            answer: object = await self.execute_command(*command)
        except ResponseError as error:
            raise SourceError(f"{refusal}: {error}") from None
        except RedisError as error:
            raise SourceError(str(error)) from None
        return answer

    def abort(self) -> None:
        """Drop the connection."""
        if self.transport is not None:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Take bytes; those that no Redis would send end the connection."""
        try:
            super().dataReceived(data, unpause)
        except ValueError as error:  # bytes that are not ASCII where a reply's first line should be
            self._give_up(f"not a Redis reply: {error}")

    def lineReceived(self, line: str) -> None:
        """Take a reply's first line; what announces too much, or is none, ends the connection."""
        length = line[1:]
        if line[:1] == "$" and length.isdigit() and int(length) > self._max_size:
            # Not read at all: a value of 1 GB would be held in memory first and refused then.
            self._give_up(f"the value has {int(length):,} bytes, and --max-size is {self._max_size:,}")
        elif line[:1] not in ("$", "*", "+", "-", ":"):
            self._give_up("not a Redis reply")
        else:
            super().lineReceived(line)

    def connectionLost(self, why: Failure) -> None:
        """Tell those who wait for replies."""
        if why.value is not None and not why.check(ConnectionDone, ConnectionLost):
            # Else the replies that are waited for would only say "Lost connection", of a certificate refused too.
            while self.replyQueue.waiting:
                self.replyReceived(RedisError(tls_trouble(why.value)))
        super().connectionLost(why)

    def _give_up(self, why: str) -> None:
        self.replyReceived(RedisError(why))
        self.abort()


P = TypeVar("P", bound=RedisProtocol)


class _Factory(Factory[RedisProtocol]):
    #: Twisted would log the start and the stop of it at each try.
    noisy = False

    def __init__(self, make: Callable[[], RedisProtocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> RedisProtocol:
        return self._make()


class RedisServer:
    """One database of a Redis, and the login there."""

    def __init__(self, reactor: Any, parts: SplitResult, query: dict[str, str]) -> None:
        """Understand a source's URL: the scheme, the authority, the path, and `db` and `cafile` of the query.

        :raises SettingsError: something in it cannot be understood.
        """
        port = port_of(parts)
        over_socket = parts.scheme == "redis+unix"
        database = query.get("db", "0") if over_socket else parts.path.strip("/") or "0"
        if not database.isdecimal() or len(database) > 9:
            raise SettingsError(f"the database is a number, not {database!r}")
        self.database = int(database)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._endpoint = (
            _unix_endpoint(reactor, parts.path) if over_socket else _tcp_endpoint(reactor, parts, port, query)
        )

    async def connect(self, make: Callable[[], P]) -> P:
        """Connect what `make` makes, log in and select the database. If it is called off, nothing stays open.

        :raises SourceError: no connection, or Redis refuses the login or the database.
        """
        try:
            protocol = cast(P, await self._endpoint.connect(_Factory(make)))
        except ConnectError as error:
            raise SourceError(tls_trouble(error)) from None
        except OSError as error:
            raise SourceError(str(error)) from None
        refusal = "Redis refuses the login or the database"
        try:
            if self._password:
                user = [self._user] if self._user else []
                await protocol.ask("AUTH", *user, self._password, refusal=refusal)
            if self.database:
                await protocol.ask("SELECT", self.database, refusal=refusal)
        except SourceError as error:
            protocol.abort()
            raise SourceError(self._hushed(str(error))) from None
        except BaseException:
            protocol.abort()
            raise
        return protocol

    def _hushed(self, trouble: str) -> str:
        """Give an answer to the login as it may be shown: a Redis that does not know AUTH repeats its arguments."""
        trouble = trouble.partition(", with args beginning")[0]
        return trouble.replace(self._password, "***") if self._password else trouble


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
