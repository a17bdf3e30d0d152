"""Asking one server, with treq: certificates verified, every wait limited, and an end that leaves nothing open.

What can go wrong comes out as one of two: `Unreachable`, which may be mended by asking again, and `WatchError`, which
will not be. Connections are ended by aborting them: one to a server that is silent would stay open while its goodbye
is waited for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from livestate import __version__
from livestate.client.address import DocumentAddress
from livestate.errors import WatchError
from livestate.system.timeouts import with_timeout
from livestate.tls.contexts import client_options, describe_connection_error

#: Seconds until a connection is made, until the head of an answer is there after that, and between parts of a body.
ANSWER = 10.0

#: Seconds until a host's next address is tried beside the first: the least that RFC 8305 section 8 recommends.
ATTEMPT_DELAY = 0.1

#: What Twisted raises where there was no answer, or not the whole of one.
_NO_ANSWER = (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    SSL.Error,
    VerificationError,
)

#: What OpenSSL says of a server that will not be trusted, or does not speak TLS, the next time either.
_HOPELESS = ("certificate", "wrong version number", "unsupported protocol", "protocol version", "handshake failure")


class Unreachable(Exception):
    """The server gave no answer, or none for now; the text is one line for a person."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        """Note why, and the seconds that the server wants to be left alone for."""
        super().__init__(text)
        self.retry_after = retry_after


class Silent(Unreachable):
    """Nothing came in time; what asks for something else may have an answer."""


class Connection:
    """Asks one server, one request at a time."""

    def __init__(
        self,
        reactor: Any,
        address: DocumentAddress,
        *,
        cafile: Path | None = None,
        headers: Mapping[str, str] | None = None,
        agent: IAgent | None = None,
    ) -> None:
        """Be ready to ask; nothing is connected yet.

        :param agent: makes the requests in place of Twisted's own.
        :raises SettingsError: `cafile` cannot be used.
        """
        self.clock = reactor
        self._address = address
        self._fields = {"User-Agent": f"livestate/{__version__}", **(headers or {})}
        self._pool = HTTPConnectionPool(reactor)
        self._endpoints = _ServerEndpoints(reactor, address, None if cafile is None else str(cafile))
        self._client = HTTPClient(agent or Agent.usingEndpointFactory(reactor, self._endpoints, self._pool))

    async def get(self, url: str, fields: Mapping[str, str], limit: float = ANSWER) -> Any:
        """GET `url`, and give the answer when its head is there. Redirects are not followed.

        :param limit: seconds.
        :raises Unreachable: there was no answer; `Silent` where the time was over.
        :raises WatchError: the server is not to be trusted.
        """
        headers = Headers({name: [value] for name, value in {**self._fields, **fields}.items()})

        async def ask() -> Any:
            return await self._client.get(
                url, headers=headers, auth=self._address.login, allow_redirects=False, unbuffered=True,
                reactor=self.clock,
            )  # fmt: skip

        try:
            return await with_timeout(limit, ask(), self.clock)
        except DeferTimeout:
            raise Silent(f"no answer within {limit:g} s") from None
        except _NO_ANSWER as error:
            raise self._translated(error) from None

    async def read(
        self, response: Any, take: Callable[[bytes], None], silence: float = ANSWER, first: float | None = None
    ) -> None:
        """Have `take` called with each piece of a response's body, until its end.

        What `take` raises ends the connection and is raised here.

        :param silence: seconds without a byte after which the connection counts as dead.
        :param first: the same for the first byte.
        :raises Unreachable: the body broke off; `Silent` where nothing came for too long.
        """
        body = _Body(take, silence, first or silence, self.clock, self._endpoints.abort)
        response.deliverBody(body)
        try:
            await body.done
        except _NO_ANSWER as error:
            raise self._translated(error) from None

    def abort(self) -> None:
        """End what is under way, such as an answer whose body is not wanted."""
        self._endpoints.abort()

    def close(self) -> None:
        """Close everything; in the next turn of the reactor it is closed."""
        self._pool.closeCachedConnections()
        self._endpoints.abort()

    def _translated(self, error: BaseException) -> Exception:
        while getattr(error, "reasons", None):
            error = error.reasons[0].value  # type: ignore[attr-defined]
        text = describe_connection_error(error)
        hopeless = isinstance(error, VerificationError) or (
            isinstance(error, SSL.Error) and any(word in text for word in _HOPELESS)
        )
        if hopeless:
            hint = " (--cafile FILE, or cafile=…, trusts another authority)" if "certificate" in text else ""
            return WatchError(f"{self._address.document}: {text}{hint}")
        return Unreachable(text)


class _Body(Protocol):
    """Hands on a body piece by piece."""

    def __init__(
        self,
        take: Callable[[bytes], None],
        silence: float,
        first: float,
        clock: Any,
        abort: Callable[[], object],
    ) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._end())
        self._take = take
        self._silence = silence
        self._abort = abort
        self._over = False
        self._timer = clock.callLater(first, self._silent)
        self._clock = clock

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._timer.reset(self._silence)
        try:
            self._take(data)
        except Exception as error:
            self._finish(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._over:
            # Without a length, and on HTTP/1.0, the end of the connection is the end of the body.
            ended = reason.check(ResponseDone, PotentialDataLoss)
            self._finish(None if ended else reason.value)

    def _silent(self) -> None:
        self._finish(Silent(f"nothing came for {self._silence:g} s"))

    def _finish(self, error: BaseException | None) -> None:
        self._end(abort=error is not None)
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(Failure(error))

    def _end(self, abort: bool = True) -> None:
        self._over = True
        if self._timer.active():
            self._timer.cancel()
        if abort:
            if self.transport is not None:
                self.transport.loseConnection()
            self._abort()


@implementer(IAgentEndpointFactory)
class _ServerEndpoints:
    """Connects to one server, and keeps hold of every connection."""

    def __init__(self, reactor: Any, address: DocumentAddress, cafile: str | None) -> None:
        self._reactor = reactor
        self._host = address.host
        self._options = client_options(address.host, cafile) if address.secure else None
        self._transports: WeakSet[Any] = WeakSet()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, self._host, uri.port, timeout=ANSWER, attemptDelay=ATTEMPT_DELAY
        )
        endpoint = _Noted(endpoint, self._transports)
        return endpoint if self._options is None else wrapClientTLS(self._options, endpoint)

    def abort(self) -> None:
        """End every connection at once."""
        for transport in list(self._transports):
            transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _Noted:
    """Another endpoint, whose connections are noted: those of TCP, which may be aborted at any time."""

    def __init__(self, endpoint: IStreamClientEndpoint, transports: "WeakSet[Any]") -> None:
        self._endpoint = endpoint
        self._transports = transports

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def note(protocol: Any) -> Any:
            self._transports.add(protocol.transport)
            return protocol

        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(note)
