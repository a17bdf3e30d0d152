"""Asking over HTTP, with an end to everything: what Twisted's Agent leaves to those who use it.

- The head of an answer may go on for ever. It is given up at `LONGEST_HEAD`.
- A body may be larger than what is wanted, and a small one that is compressed may become so. It is undone in pieces,
  and no more of it is made than may be.
- A fetch that is called off while the body is being received leaves the connection as it is, to receive on; and over
  TLS a connection that is closed waits for the other side, which may never answer. It is aborted.
- Cookies are neither kept nor sent: a server that sets another one with each answer would fill the memory.
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

#: Bytes of an answer's head: more than any server sends, and what comes at once with its end is counted too.
LONGEST_HEAD = 128 * 1024

#: Bytes that each answer's first line counts for: Twisted logs interim ones (RFC 9110 section 15.2), so there may be
#: few.
_INTERIM = LONGEST_HEAD // 16


_FORESEEN = OSError, ConnectError, ConnectionClosed, ResponseFailed, ResponseNeverReceived, RequestTransmissionFailed


class HTTPConnections:
    """Connections to one server, which are kept. One request at a time."""

    def __init__(self, reactor: Any, max_size: int) -> None:
        """:param max_size: the most bytes of a body."""
        self._max_size = max_size
        self._pool = HTTPConnectionPool(reactor)
        # A kept connection that the other server has just closed is tried once more by the pool itself.
        self._agent = Agent.usingEndpointFactory(reactor, _UpstreamEndpoints(reactor, self), self._pool)
        #: The connection that was made last, and bytes that may still come before an answer is there.
        self._newest: _Connection | None = None
        self._head: int | None = None

    async def get(self, url: bytes, headers: Headers) -> tuple[IResponse, bytes]:
        """GET `url`, and give the answer and its body, without gzip.

        :raises SourceError: there is no whole answer, or its body is larger than `max_size`.
        """
        headers.setRawHeaders(b"Accept-Encoding", [b"gzip"])
        whole = False
        try:
            self._head = LONGEST_HEAD
            response: Any = await self._agent.request(b"GET", url, headers)
            self._head = None
            body = await self._body(response)
            whole = True
        except _FORESEEN as error:
            endless = self._head is not None and self._head < 0
            raise SourceError("the head of its answer has no end" if endless else _reason(error)) from None
        finally:
            connection = self._newest
            if connection is not None and not (whole and connection.stays()):
                connection.abort()
        return response, body

    def close(self) -> None:
        """Let go of kept connections."""
        self._pool.closeCachedConnections()

    def _body(self, response: Any) -> "Deferred[bytes]":
        codings = b",".join(response.headers.getRawHeaders(b"Content-Encoding", [])).lower().strip()
        if codings not in (b"", b"identity", b"gzip", b"x-gzip"):
            raise SourceError("it answers in a content coding that was not asked for")
        zipped = codings.endswith(b"gzip")
        # Where the length is known; zipped, it says little.
        if not zipped and isinstance(response.length, int) and response.length > self._max_size:
            raise _too_large(self._max_size)
        body = _BodyReader(self._max_size, zipped)
        response.deliverBody(body)
        return body.finished

    def made(self, connection: "_Connection") -> Any:
        """Take a new connection, and give the HTTP on it."""
        self._newest = connection
        return connection.wrappedProtocol

    def received(self, connection: "_Connection", data: bytes) -> bool:
        """Count what is received, and tell whether it is to be read."""
        if self._head is not None:
            self._head -= len(data) + _INTERIM * data.count(b"HTTP/")
            if self._head < 0:
                connection.abort()
                return False
        return True


class _Connection(ProtocolWrapper):
    """One connection, below HTTP."""

    factory: "_Connections"
    transport: Any
    _lost = False

    def dataReceived(self, data: bytes) -> None:
        if self.factory.owner.received(self, data):
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        super().connectionLost(reason)

    def stays(self) -> bool:
        """Tell whether it is not being closed."""
        return not self.disconnecting

    def abort(self) -> None:
        """End it, whatever the other side does."""
        if not self._lost:
            self.transport.abortConnection()


class _Connections(WrappingFactory):
    protocol = _Connection
    #: Twisted would log the start and the stop of it at each try.
    noisy = False

    def __init__(self, wrapped: Factory[Any], owner: HTTPConnections) -> None:
        super().__init__(wrapped)
        wrapped.noisy = False
        self.owner = owner


@implementer(IAgentEndpointFactory)
class _UpstreamEndpoints:
    """Connects as Twisted's Agent does, but without its long pause before a host's next address."""

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
        return connecting.addCallback(self._owner.made)


class _BodyReader(Protocol):
    """Collects one body."""

    def __init__(self, max_size: int, zipped: bool) -> None:
        #: Called with the body, or the SourceError or Twisted's error that there is instead.
        self.finished: Deferred[bytes] = Deferred()
        self._max_size = max_size
        self._data = bytearray()
        self._unzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if zipped else None
        self._refusal: SourceError | None = None

    def dataReceived(self, data: bytes) -> None:
        """:raises SourceError: it is not to be had; HTTP gives the connection up then, and so this body."""
        if self.finished.called:
            return
        if self._unzip is not None:
            try:
                # No more than shows that it is too much: 64 KB can become 64 MB.
                data = self._unzip.decompress(data, self._max_size + 1 - len(self._data))
            except zlib.error:
                self._refusal = _damaged()
                raise self._refusal from None
        self._data += data
        if len(self._data) > self._max_size:
            self._refusal = _too_large(self._max_size)
            raise self._refusal

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        if self._refusal is not None:
            self.finished.errback(self._refusal)
        elif not reason.check(ResponseDone, PotentialDataLoss):
            self.finished.errback(reason)
        elif self._unzip is not None and not self._unzip.eof:
            self.finished.errback(_damaged())
        else:
            self.finished.callback(bytes(self._data))


def _too_large(max_size: int) -> SourceError:
    return SourceError(f"it has more than {max_size:,} bytes (--max-size)")


def _damaged() -> SourceError:
    return SourceError("its gzip coding is damaged")


def _reason(error: BaseException) -> str:
    """Give the first reason inside a failure, as one line."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _reason(reasons[0].value)
    if isinstance(error, ConnectionClosed):
        return "the connection was lost"
    text = describe_connection_error(error)
    # What else there is, is about what the other side sent, which is not to be repeated: it may be anything.
    return text if isinstance(error, (OSError, ConnectError)) or text.startswith("TLS failed") else "not an HTTP answer"
