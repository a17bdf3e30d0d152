"""HTTP requests with a limit on everything, which Twisted's Agent leaves to its users.

- A response head may never end. It is given up after `MAX_HEAD_SIZE`.
- A body may be larger than is wanted, and a small compressed body may become so. It is decompressed piece by piece, and
  never beyond the maximum size.
- When a fetch is cancelled while its body is being received, Agent leaves the connection open and goes on receiving.
  And a TLS connection that is closed waits for the peer, which may never answer. So the connection is aborted.
- Cookies are neither stored nor sent: a server that sets a new one with every response would fill the memory.
"""

import zlib
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from livestate.errors import SourceError
from livestate.net.host_resolver import ATTEMPT_DELAY
from livestate.tls.contexts import client_options, describe_connection_error

#: The maximum size of a response head in bytes: more than any server sends. What is received together with the end of
#: the head counts too.
MAX_HEAD_SIZE = 128 * 1024

#: Bytes that the status line of each response counts for in addition to its length. Twisted logs interim responses
#: (RFC 9110 section 15.2), so only a few are allowed.
_STATUS_LINE_COST = MAX_HEAD_SIZE // 16

_EXPECTED_ERRORS = (
    OSError,
    ConnectError,
    ConnectionClosed,
    ResponseFailed,
    ResponseNeverReceived,
    RequestTransmissionFailed,
)


class HTTPConnections:
    """Persistent connections to one server, for one request at a time."""

    def __init__(self, reactor: Any, max_size: int) -> None:
        """:param max_size: the maximum size of a body in bytes."""
        self._max_size = max_size
        self._pool = HTTPConnectionPool(reactor)
        # If the server has just closed a persistent connection, the pool itself sends the request again on a new one.
        self._agent = Agent.usingEndpointFactory(reactor, _UpstreamEndpoints(reactor, self), self._pool)
        #: The connection that was made last.
        self._latest: _Connection | None = None
        #: Bytes that may still be received before the response head is complete; None when none is being received.
        self._head_budget: int | None = None

    async def get(self, url: bytes, headers: Headers) -> tuple[IResponse, bytes]:
        """GET `url`, and return the response and its body, decompressed.

        :raises SourceError: when there is no complete response, or its body is larger than `max_size`.
        """
        headers.setRawHeaders(b"Accept-Encoding", [b"gzip"])
        complete = False
        try:
            self._head_budget = MAX_HEAD_SIZE
            response: Any = await self._agent.request(b"GET", url, headers)
            self._head_budget = None
            body = await self._body(response)
            complete = True
        except _EXPECTED_ERRORS as error:
            head_too_long = self._head_budget is not None and self._head_budget < 0
            raise SourceError("the response head is too long" if head_too_long else _reason(error)) from None
        finally:
            connection = self._latest
            if connection is not None and not (complete and connection.is_reusable()):
                connection.abort()
        return response, body

    def close(self) -> None:
        """Close the persistent connections."""
        self._pool.closeCachedConnections()

    def _body(self, response: Any) -> "Deferred[bytes]":
        codings = b",".join(response.headers.getRawHeaders(b"Content-Encoding", [])).lower().strip()
        if codings not in (b"", b"identity", b"gzip", b"x-gzip"):
            raise SourceError("the response has a content coding that was not requested")
        gzipped = codings.endswith(b"gzip")
        # The length of a gzipped body says little about the size of its content.
        if not gzipped and isinstance(response.length, int) and response.length > self._max_size:
            raise _too_large(self._max_size)
        body = _BodyReader(self._max_size, gzipped)
        response.deliverBody(body)
        return body.finished

    def connected(self, connection: "_Connection") -> Any:
        """Store a new connection, and return its HTTP protocol."""
        self._latest = connection
        return connection.wrappedProtocol

    def accept(self, connection: "_Connection", data: bytes) -> bool:
        """Count received bytes, and return whether to pass them on."""
        if self._head_budget is not None:
            self._head_budget -= len(data) + _STATUS_LINE_COST * data.count(b"HTTP/")
            if self._head_budget < 0:
                connection.abort()
                return False
        return True


class _Connection(ProtocolWrapper):
    """The layer below HTTP on one connection."""

    factory: "_Connections"
    transport: Any
    _lost = False

    def dataReceived(self, data: bytes) -> None:
        if self.factory.owner.accept(self, data):
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        super().connectionLost(reason)

    def is_reusable(self) -> bool:
        """Return whether the connection is not being closed."""
        return not self.disconnecting

    def abort(self) -> None:
        """Close the connection without waiting for the peer."""
        if not self._lost:
            self.transport.abortConnection()


class _Connections(WrappingFactory):
    protocol = _Connection
    #: Otherwise Twisted would log the start and stop of the factory at every attempt.
    noisy = False

    def __init__(self, wrapped: Factory[Any], owner: HTTPConnections) -> None:
        super().__init__(wrapped)
        wrapped.noisy = False
        self.owner = owner


@implementer(IAgentEndpointFactory)
class _UpstreamEndpoints:
    """Connects as Twisted's Agent does, but tries a host's next address after a shorter delay."""

    def __init__(self, reactor: Any, owner: HTTPConnections) -> None:
        self._reactor = reactor
        self._owner = owner

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint = HostnameEndpoint(self._reactor, host, uri.port, attemptDelay=ATTEMPT_DELAY)
        secure = uri.scheme == b"https"
        return _UpstreamEndpoint(
            wrapClientTLS(client_options(host, None), endpoint) if secure else endpoint, self._owner
        )


@implementer(IStreamClientEndpoint)
class _UpstreamEndpoint:
    def __init__(self, inner: IStreamClientEndpoint, owner: HTTPConnections) -> None:
        self._inner = inner
        self._owner = owner

    def connect(self, factory: Any) -> "Deferred[Any]":
        connecting: Deferred[Any] = self._inner.connect(_Connections(factory, self._owner))
        return connecting.addCallback(self._owner.connected)


class _BodyReader(Protocol):
    """Collects one body."""

    def __init__(self, max_size: int, gzipped: bool) -> None:
        #: Fires with the body, or fails with a SourceError or one of Twisted's errors.
        self.finished: Deferred[bytes] = Deferred()
        self._max_size = max_size
        self._data = bytearray()
        self._decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzipped else None
        self._error: SourceError | None = None

    def dataReceived(self, data: bytes) -> None:
        """Collect part of the body.

        :raises SourceError: when the body is damaged or too large. Twisted then closes the connection, which ends this
            body too.
        """
        if self.finished.called:
            return
        if self._decompressor is not None:
            try:
                # Not beyond one byte above the limit: 64 KB can become 64 MB.
                data = self._decompressor.decompress(data, self._max_size + 1 - len(self._data))
            except zlib.error:
                self._error = _damaged()
                raise self._error from None
        self._data += data
        if len(self._data) > self._max_size:
            self._error = _too_large(self._max_size)
            raise self._error

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        if self._error is not None:
            self.finished.errback(self._error)
        elif not reason.check(ResponseDone, PotentialDataLoss):
            self.finished.errback(reason)
        elif self._decompressor is not None and not self._decompressor.eof:
            self.finished.errback(_damaged())
        else:
            self.finished.callback(bytes(self._data))


def _too_large(max_size: int) -> SourceError:
    return SourceError(f"the document has more than {max_size:,} bytes (--max-size)")


def _damaged() -> SourceError:
    return SourceError("the gzip-encoded response is damaged")


def _reason(error: BaseException) -> str:
    """Return the first reason inside an error, as one line."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _reason(reasons[0].value)
    if isinstance(error, ConnectionClosed):
        return "the connection was lost"
    text = describe_connection_error(error)
    # The text of any other error repeats what the peer sent, which may be anything.
    return (
        text if isinstance(error, (OSError, ConnectError)) or text.startswith("TLS failed") else "not an HTTP response"
    )
