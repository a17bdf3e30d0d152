"""HTTP requests to one server, with treq. Certificates are verified, every wait has a timeout, nothing stays open.

Every failure is raised as `Unreachable`, which a retry may fix, or as `WatchError`, which a retry will not fix.
Connections are aborted, not closed: a closing connection to a silent server would stay open while it waits for the
server's TLS close alert.
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

#: Timeout in seconds for connecting, for the head of a response, and for each further part of a body.
TIMEOUT = 10.0

#: Seconds before the next address of a host is tried in parallel: the minimum that RFC 8305 section 8 recommends.
ATTEMPT_DELAY = 0.1

#: What Twisted raises when there is no response, or only part of one.
_REQUEST_ERRORS = (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    SSL.Error,
    VerificationError,
)

#: OpenSSL messages that mean the server is not trusted, or does not speak TLS. A retry would fail the same way.
_PERMANENT_TLS_ERRORS = (
    "certificate",
    "wrong version number",
    "unsupported protocol",
    "protocol version",
    "handshake failure",
)


class Unreachable(Exception):
    """The server did not respond, or not usefully for now. The text is one readable line."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        """Store the reason and the delay that the server asked for.

        :param retry_after: seconds.
        """
        super().__init__(text)
        self.retry_after = retry_after


class TimedOut(Unreachable):
    """Nothing arrived in time. A request for another resource may still succeed."""


class Connection:
    """Sends requests to one server, one at a time."""

    def __init__(
        self,
        reactor: Any,
        address: DocumentAddress,
        *,
        cafile: Path | None = None,
        headers: Mapping[str, str] | None = None,
        agent: IAgent | None = None,
    ) -> None:
        """Prepare for requests, without connecting.

        :param cafile: a PEM file of certificate authorities to trust instead of the system's.
        :param headers: fields to send with each request.
        :param agent: sends the requests, instead of Twisted's own agent.
        :raises SettingsError: when `cafile` cannot be used.
        """
        self.clock = reactor
        self._address = address
        self._fields = {"User-Agent": f"livestate/{__version__}", **(headers or {})}
        self._pool = HTTPConnectionPool(reactor)
        self._endpoints = _ServerEndpoints(reactor, address, None if cafile is None else str(cafile))
        self._client = HTTPClient(agent or Agent.usingEndpointFactory(reactor, self._endpoints, self._pool))

    async def get(self, url: str, fields: Mapping[str, str], time_limit: float = TIMEOUT) -> Any:
        """GET `url` and return the response as soon as its head is complete. Redirects are not followed.

        :param fields: header fields of this request.
        :param time_limit: seconds until the head must be complete.
        :raises Unreachable: when there is no response; `TimedOut` after `time_limit`.
        :raises WatchError: when the server is not trusted.
        """
        headers = Headers({name: [value] for name, value in {**self._fields, **fields}.items()})

        async def request() -> Any:
            return await self._client.get(
                url, headers=headers, auth=self._address.login, allow_redirects=False, unbuffered=True,
                reactor=self.clock,
            )  # fmt: skip

        try:
            return await with_timeout(time_limit, request(), self.clock)
        except DeferTimeout:
            raise TimedOut(f"no answer within {time_limit:g} s") from None
        except _REQUEST_ERRORS as error:
            raise self._translate(error) from None

    async def read(
        self,
        response: Any,
        on_data: Callable[[bytes], None],
        idle_timeout: float = TIMEOUT,
        first_timeout: float | None = None,
    ) -> None:
        """Read a response's body to its end, and call `on_data` with each piece.

        An exception from `on_data` aborts the connection and is raised here.

        :param idle_timeout: seconds without data after which the connection counts as dead.
        :param first_timeout: the same, for the first byte.
        :raises Unreachable: when the body breaks off; `TimedOut` when no data arrives in time.
        """
        body = _Body(on_data, idle_timeout, first_timeout or idle_timeout, self.clock, self._endpoints.abort)
        response.deliverBody(body)
        try:
            await body.done
        except _REQUEST_ERRORS as error:
            raise self._translate(error) from None

    def abort(self) -> None:
        """Abort the request in progress, for example when the body of a response is not wanted."""
        self._endpoints.abort()

    def close(self) -> None:
        """Close all connections. They are closed in the next turn of the reactor."""
        self._pool.closeCachedConnections()
        self._endpoints.abort()

    def _translate(self, error: BaseException) -> Exception:
        while getattr(error, "reasons", None):
            error = error.reasons[0].value  # type: ignore[attr-defined]
        text = describe_connection_error(error)
        permanent = isinstance(error, VerificationError) or (
            isinstance(error, SSL.Error) and any(message in text for message in _PERMANENT_TLS_ERRORS)
        )
        if permanent:
            hint = " (trust another CA with --cafile FILE or cafile=…)" if "certificate" in text else ""
            return WatchError(f"{self._address.document}: {text}{hint}")
        return Unreachable(text)


class _Body(Protocol):
    """Passes on a body piece by piece, with a timeout between pieces."""

    def __init__(
        self,
        on_data: Callable[[bytes], None],
        idle_timeout: float,
        first_timeout: float,
        clock: Any,
        abort: Callable[[], object],
    ) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._end())
        self._on_data = on_data
        self._idle_timeout = idle_timeout
        self._abort = abort
        self._ended = False
        self._timer = clock.callLater(first_timeout, self._timed_out)
        self._clock = clock

    def dataReceived(self, data: bytes) -> None:
        if self._ended:
            return
        self._timer.reset(self._idle_timeout)
        try:
            self._on_data(data)
        except Exception as error:
            self._finish(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ended:
            # Without a Content-Length, and on HTTP/1.0, the end of the connection is the end of the body.
            complete = reason.check(ResponseDone, PotentialDataLoss)
            self._finish(None if complete else reason.value)

    def _timed_out(self) -> None:
        self._finish(TimedOut(f"no data for {self._idle_timeout:g} s"))

    def _finish(self, error: BaseException | None) -> None:
        self._end(abort=error is not None)
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(Failure(error))

    def _end(self, abort: bool = True) -> None:
        self._ended = True
        if self._timer.active():
            self._timer.cancel()
        if abort:
            if self.transport is not None:
                self.transport.loseConnection()
            self._abort()


@implementer(IAgentEndpointFactory)
class _ServerEndpoints:
    """Makes the endpoints for one server, and tracks every connection so that all can be aborted."""

    def __init__(self, reactor: Any, address: DocumentAddress, cafile: str | None) -> None:
        self._reactor = reactor
        self._host = address.host
        self._options = client_options(address.host, cafile) if address.secure else None
        self._transports: WeakSet[Any] = WeakSet()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, self._host, uri.port, timeout=TIMEOUT, attemptDelay=ATTEMPT_DELAY
        )
        endpoint = _TrackingEndpoint(endpoint, self._transports)
        return endpoint if self._options is None else wrapClientTLS(self._options, endpoint)

    def abort(self) -> None:
        """Abort every connection at once."""
        for transport in list(self._transports):
            transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _TrackingEndpoint:
    """Wraps an endpoint and tracks its transports: those of TCP, below TLS, which can be aborted at any time."""

    def __init__(self, endpoint: IStreamClientEndpoint, transports: "WeakSet[Any]") -> None:
        self._endpoint = endpoint
        self._transports = transports

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def track(protocol: Any) -> Any:
            self._transports.add(protocol.transport)
            return protocol

        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(track)
