"""Where a Redis is, how to log in there, and its protocol made safe: what fetching and listening have in common.

txredisapi's own reconnecting factory is left out: it stops for good when AUTH or SELECT fails, and its replies would
shift by one after a fetch that was given up.
"""

import re
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
from livestate.sources.redis.url import NodeAddress
from livestate.tls.contexts import client_options, describe_connection_error

#: A reply's first line, or that of a part of it (RESP2): a status, an error, or a number of bytes, parts or anything.
_FIRST_LINE = re.compile(r"[+-]|:-?[0-9]+$|[$*](-1|[0-9]{1,10})$")
_NO_REPLY = "not a Redis reply"

#: Lines of one reply. That to GET has one; a Sentinel tells of each replica in some 40, a cluster of each range of
#: slots in some 20. They are read by Python, and an array without an end would keep the reactor from all else.
_MOST_LINES = 16384

#: Bytes of one reply beside the value: its lines, and what was received at once with its end.
_MARGIN = 256 * 1024

#: Bytes: what is no longer than this is always taken. Names and addresses are longer than the smallest --max-size, and
#: a document is measured once more when it is offered.
NO_DOCUMENT = 1024

#: How many addresses are remembered, with what TLS needs for each: that takes milliseconds to make.
_REMEMBERED = 64


class ErrorReply(SourceError):
    """Redis answered with an error.

    :ivar answer: its text, which begins with its kind (`MOVED`, `READONLY`) where that is not ERR.
    """

    def __init__(self, text: str, answer: str) -> None:
        super().__init__(text)
        self.answer = answer


class RedisProtocol(BaseRedisProtocol):  # type: ignore[misc]  # txredisapi is untyped
    """txredisapi's parser, made safe against what is not Redis.

    `BaseRedisProtocol`, not txredisapi's `RedisProtocol`: the latter is another one where hiredis is installed.
    """

    def __init__(self, max_size: int) -> None:
        # Without these two, values that look like numbers or text come back as such.
        super().__init__(charset=None, convertNumbers=False)
        self._max_size = max_size
        #: Bytes and lines of the reply that is being received.
        self._bytes = self._lines = 0
        self._given_up = False

    async def ask(self, *command: object, refusal: str = "Redis says") -> object:
        """Send one command and give the answer.

        :param refusal: what to put before the text of an error that Redis answers with.
        :raises Refused: Redis answers with an error.
        :raises SourceError: the connection was lost, or the answer cannot be used.
        """
        try:
            answer: object = await self.execute_command(*command)
        except ResponseError as error:
            raise ErrorReply(f"{refusal}: {error}", str(error)) from None
        except RedisError as error:
            raise SourceError(str(error)) from None
        return answer

    def abort(self) -> None:
        """Drop the connection."""
        if self.transport is not None:
            self.transport.abortConnection()

    def give_up(self, why: str) -> None:
        """Drop the connection, hear nothing more of it, and say why to those who wait for a reply."""
        self._end(why)
        self.abort()

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Take bytes; those that no Redis would send end the connection."""
        if self._given_up:
            return
        # What was held back is given a second time.
        self._bytes += 0 if unpause else len(data)
        if self._bytes > self._max_size + _MARGIN:
            self.give_up(f"the reply has no end: more than {self._max_size:,} bytes (--max-size)")
            return
        try:
            super().dataReceived(data, unpause)
        except ValueError:  # bytes that are not UTF-8 where a reply's first line should be
            self.give_up(_NO_REPLY)

    def lineReceived(self, line: str) -> bool:
        """Take a reply's first line, or that of a part of it; what announces too much, or is none, ends the connection.

        Tells whether to stop reading.
        """
        length = line[1:]
        self._lines += 1
        if line[:1] == "$" and length.isdigit() and int(length) > max(self._max_size, NO_DOCUMENT):
            # Not read at all: a value of 1 GB would be held in memory first and refused then.
            self.give_up(f"the value has {int(length):,} bytes, and --max-size is {self._max_size:,}")
        elif self._lines > _MOST_LINES or not _FIRST_LINE.match(line):
            self.give_up(_NO_REPLY)
        else:
            super().lineReceived(line)
        return self._given_up

    def lineLengthExceeded(self, line: bytes) -> None:
        """Take a line that has no end."""
        self.give_up(_NO_REPLY)

    def replyReceived(self, reply: object) -> None:
        """Take a whole reply; one that nobody waits for would be taken for that to the next command."""
        self._bytes = self._lines = 0
        if self.replyQueue.waiting:
            super().replyReceived(reply)
        else:
            self.give_up(str(reply) if isinstance(reply, RedisError) else "Redis says what nobody asked")

    def connectionLost(self, why: Failure) -> None:
        """Tell those who wait for replies."""
        # txredisapi would say "Lost connection", of a certificate refused too.
        error = why.value
        if error is None or isinstance(error, (ConnectionDone, ConnectionLost)):
            self._end("the connection was lost")
        else:
            self._end(describe_connection_error(error))
        super().connectionLost(why)

    def _end(self, why: str) -> None:
        self._given_up = True
        while self.replyQueue.waiting:
            super().replyReceived(RedisError(why))


P = TypeVar("P", bound=RedisProtocol)


class _Factory(Factory[RedisProtocol]):
    #: Twisted would log the start and the stop of it at each try.
    noisy = False

    def __init__(self, make: Callable[[], RedisProtocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> RedisProtocol:
        return self._make()


class Login(NamedTuple):
    """Who logs in to a server, and in which database."""

    user: str = ""
    password: str = ""
    database: int = 0

    @classmethod
    def of(cls, parts: SplitResult, database: str) -> "Login":
        """Take user and password from a URL's authority.

        :raises SettingsError: `database` is no number.
        """
        if not database.isdecimal() or len(database) > 9:
            raise SettingsError(f"the database is a number, not {database!r}")
        return cls(unquote(parts.username or ""), unquote(parts.password or ""), int(database))


class RedisServer:
    """One database of one Redis, and the login there."""

    def __init__(self, endpoint: IStreamClientEndpoint, login: Login) -> None:
        """Prepare to connect to `endpoint`."""
        self.login = login
        self._endpoint = endpoint

    async def connect(self, make: Callable[[], P]) -> P:
        """Connect what `make` makes, log in and select the database. If it is called off, nothing stays open.

        :raises SourceError: no connection, or Redis refuses the login or the database.
        """
        try:
            protocol = cast(P, await self._endpoint.connect(_Factory(make)))
        except ConnectError as error:
            raise SourceError(describe_connection_error(error)) from None
        except (OSError, ValueError) as error:  # what is no host name is a ValueError, when it is first looked up
            raise SourceError(str(error)) from None
        refusal = "Redis refuses the login or the database"
        try:
            if self.login.password:
                user = [self.login.user] if self.login.user else []
                await protocol.ask("AUTH", *user, self.login.password, refusal=refusal)
            if self.login.database:
                await protocol.ask("SELECT", self.login.database, refusal=refusal)
        except ErrorReply as error:
            protocol.abort()
            raise ErrorReply(self._hushed(str(error)), self._hushed(error.answer)) from None
        except BaseException:
            protocol.abort()
            raise
        return protocol

    def _hushed(self, trouble: str) -> str:
        """Give an answer to the login as it may be shown: a Redis that does not know AUTH repeats its arguments."""
        trouble = trouble.partition(", with args beginning")[0]
        return trouble.replace(self.login.password, "***") if self.login.password else trouble


class Servers:
    """Servers that are reached and logged in to alike, wherever they are."""

    def __init__(self, reactor: Any, tls: bool, cafile: str | None, login: Login) -> None:
        """Reach them over TLS or not.

        :param cafile: a PEM file of the authorities to trust; None: the system's.
        :raises SettingsError: there is such a file, and no TLS.
        """
        if cafile is not None and not tls:
            raise SettingsError("cafile goes with TLS: with rediss://, rediss+sentinel:// or rediss+cluster://")
        self._reactor = reactor
        self._tls = tls
        self._cafile = cafile
        self.login = login
        self._known: dict[NodeAddress, RedisServer] = {}

    def at(self, address: NodeAddress) -> RedisServer:
        """Give the one at an address.

        :raises SettingsError: the file of the authorities cannot be used.
        """
        if address not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[address] = self._make(address)
        return self._known[address]

    def _make(self, address: NodeAddress) -> RedisServer:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, address.host, address.port, attemptDelay=ATTEMPT_DELAY
        )
        if self._tls:
            endpoint = wrapClientTLS(client_options(address.host, self._cafile), endpoint)
        return RedisServer(endpoint, self.login)
