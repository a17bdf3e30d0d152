"""Connecting to a Redis server and logging in, and a protocol that is safe against bad input.

Fetching and subscribing both use this. txredisapi's own reconnecting factory is not used: it stops for good when AUTH
or SELECT fails, and after a cancelled fetch each reply would be taken for the answer to the next command.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import SplitResult, unquote

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from txredisapi import BaseRedisProtocol, RedisError, ResponseError

from livestate.errors import SettingsError, SourceError
from livestate.net.host_resolver import ATTEMPT_DELAY
from livestate.sources.redis.reply_parser import NotAReply, ReplyParser, TooLarge
from livestate.sources.redis.url import NodeAddress
from livestate.tls.contexts import client_options, describe_connection_error

#: The number of servers to cache with their TLS contexts, which take milliseconds to make.
_CACHE_SIZE = 64


#: How errors begin that are about the value of a key: its type, or that this user may not read it.
_ABOUT_VALUES = "WRONGTYPE", "NOPERM"
#: The commands that read values.
_READS = frozenset({"GET", "MGET", "STRLEN"})


class ErrorReply(SourceError):
    """Redis answered with an error.

    :ivar answer: the text of the error. It starts with the kind of error (`MOVED`, `READONLY`), unless that is `ERR`.
    """

    def __init__(self, text: str, answer: str) -> None:
        super().__init__(text)
        self.answer = answer


class UnusableValue(SourceError):
    """The server is there, but the value of a key is of the wrong type, too large, or not for this user.

    :ivar connected: whether the connection is still good. It is lost where a value was too large to be read.
    """

    def __init__(self, text: str, connected: bool) -> None:
        super().__init__(text)
        self.connected = connected


class _TooLarge(RedisError):  # type: ignore[misc]  # txredisapi is untyped
    """How that passes through txredisapi's queue of commands."""


class RedisProtocol(BaseRedisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """txredisapi's connection, with a parser that is fast, and safe against input that is not from Redis.

    The base class is `BaseRedisProtocol`, as txredisapi's `RedisProtocol` is a different class if hiredis is installed.
    """

    def __init__(self, max_size: int) -> None:
        """:param max_size: the maximum size of one value in bytes."""
        # Otherwise values that look like numbers or text would be converted.
        super().__init__(charset=None, convertNumbers=False)
        self.parser = ReplyParser(max_size)
        self._failed = self._disconnected = False

    async def ask(self, *command: object, refusal: str = "Redis answered") -> object:
        """Send one command and return the answer.

        :param refusal: the start of the error message when Redis answers with an error.
        :raises UnusableValue: when Redis answers that the value of a key is of another type or not for this user, or it
            is larger than the maximum.
        :raises ErrorReply: when Redis answers with another error.
        :raises SourceError: when the connection is lost, or the answer cannot be used.
        """
        # Only MGET has more than one large value to expect. It is never sent together with other commands.
        self.parser.max_values = len(command) - 1 if command[0] == "MGET" else 1
        try:
            answer: object = await self.execute_command(*command)
        except ResponseError as error:
            text = f"{refusal}: {error}"
            if command[0] in _READS and str(error).startswith(_ABOUT_VALUES):
                raise UnusableValue(text, connected=True) from None
            raise ErrorReply(text, str(error)) from None
        except _TooLarge as error:
            raise UnusableValue(str(error), connected=False) from None
        except RedisError as error:
            raise SourceError(str(error)) from None
        return answer

    def abort(self) -> None:
        """Close the connection without waiting for Redis."""
        # Twisted's TLS raises AttributeError if a connection that is already lost is aborted.
        if self.transport is not None and not self._disconnected:
            self.transport.abortConnection()

    def fail(self, reason: str, error: type[RedisError] = RedisError) -> None:
        """Drop the connection, ignore further input, and fail all pending commands with `reason`."""
        self._fail_pending(reason, error)
        self.abort()

    def dataReceived(self, data: bytes) -> None:
        """Parse received bytes. Bytes that no Redis would send end the connection."""
        if self._failed:
            return
        try:
            for reply in self.parser.feed(data):
                self.replyReceived(reply)
                if self._failed:
                    return
        except NotAReply as error:
            self.fail(str(error), _TooLarge if isinstance(error, TooLarge) else RedisError)

    def replyReceived(self, reply: object) -> None:
        """Pass on a complete reply.

        One that no command waits for ends the connection, or it would be taken for the answer to the next command.
        """
        if self.replyQueue.waiting:
            super().replyReceived(reply)
        else:
            self.fail(str(reply) if isinstance(reply, RedisError) else "Redis sent an unexpected reply")

    def connectionLost(self, why: Failure) -> None:
        """Fail all pending commands."""
        self._disconnected = True
        # txredisapi would report "Lost connection" even for a refused certificate.
        error = why.value
        if error is None or isinstance(error, (ConnectionDone, ConnectionLost)):
            self._fail_pending("the connection was lost")
        else:
            self._fail_pending(describe_connection_error(error))
        super().connectionLost(why)

    def _fail_pending(self, reason: str, error: type[RedisError] = RedisError) -> None:
        self._failed = True
        while self.replyQueue.waiting:
            super().replyReceived(error(reason))


P = TypeVar("P", bound=RedisProtocol)


class _Factory(Factory[RedisProtocol]):
    #: Otherwise Twisted would log the start and stop of the factory at every attempt.
    noisy = False

    def __init__(self, make_protocol: Callable[[], RedisProtocol]) -> None:
        self._make_protocol = make_protocol

    def buildProtocol(self, addr: object) -> RedisProtocol:
        return self._make_protocol()


class Login(NamedTuple):
    """The credentials for a server, and the database to select."""

    user: str = ""
    password: str = ""
    database: int = 0

    @classmethod
    def of(cls, parts: SplitResult, database: str) -> "Login":
        """Return the login with the user and password in a URL.

        :raises SettingsError: when `database` is not a number.
        """
        if not database.isdecimal() or len(database) > 9:
            raise SettingsError(f"the database must be a number, not {database!r}")
        return cls(unquote(parts.username or ""), unquote(parts.password or ""), int(database))


class RedisServer:
    """One database of one Redis server, with the login for it."""

    def __init__(self, endpoint: IStreamClientEndpoint, login: Login) -> None:
        """Prepare to connect to `endpoint`."""
        self.login = login
        self._endpoint = endpoint

    async def connect(self, make_protocol: Callable[[], P]) -> P:
        """Connect a new protocol, log in and select the database. If this is cancelled, no connection stays open.

        :param make_protocol: makes the protocol.
        :raises SourceError: when connecting fails, or Redis rejects the login or the database.
        """
        try:
            protocol = cast(P, await self._endpoint.connect(_Factory(make_protocol)))
        except ConnectError as error:
            raise SourceError(describe_connection_error(error)) from None
        except (OSError, ValueError) as error:  # the lookup of an invalid host name raises ValueError
            raise SourceError(str(error)) from None
        refusal = "Redis rejected the login or the database"
        try:
            if self.login.password:
                user = [self.login.user] if self.login.user else []
                await protocol.ask("AUTH", *user, self.login.password, refusal=refusal)
            if self.login.database:
                await protocol.ask("SELECT", self.login.database, refusal=refusal)
        except ErrorReply as error:
            protocol.abort()
            raise ErrorReply(self._redacted(str(error)), self._redacted(error.answer)) from None
        except BaseException:
            protocol.abort()
            raise
        return protocol

    def _redacted(self, text: str) -> str:
        """Remove the password from an answer to the login: a Redis that does not know AUTH repeats its arguments."""
        text = text.partition(", with args beginning")[0]
        return text.replace(self.login.password, "***") if self.login.password else text


class Servers:
    """Servers at different addresses, with the same TLS settings and login."""

    def __init__(self, reactor: Any, tls: bool, cafile: str | None, login: Login) -> None:
        """Prepare to connect to servers.

        :param tls: whether to use TLS.
        :param cafile: a PEM file with the authorities to trust; None means those of the system.
        :raises SettingsError: when there is a `cafile`, but no TLS.
        """
        if cafile is not None and not tls:
            raise SettingsError("cafile needs TLS: use rediss://, rediss+sentinel:// or rediss+cluster://")
        self._reactor = reactor
        self._tls = tls
        self._cafile = cafile
        self.login = login
        self._cache: dict[NodeAddress, RedisServer] = {}

    def at(self, address: NodeAddress) -> RedisServer:
        """Return the server at an address.

        :raises SettingsError: when `cafile` cannot be used.
        """
        if address not in self._cache:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[address] = self._make(address)
        return self._cache[address]

    def _make(self, address: NodeAddress) -> RedisServer:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, address.host, address.port, attemptDelay=ATTEMPT_DELAY
        )
        if self._tls:
            endpoint = wrapClientTLS(client_options(address.host, self._cafile), endpoint)
        return RedisServer(endpoint, self.login)
