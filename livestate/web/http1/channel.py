"""One client connection: twisted.web's HTTP channel with a fast path through it.

Theory of operation. Incoming data is split at the ends of request heads, and each piece takes one of two paths:

- The fast path, if the channel is between two requests and the piece is a fast request
  (`livestate.web.http1.fast_request`). The response is made already, and is written without involving twisted.web.
- twisted.web's own parser, for everything else. Its input may be split anywhere.

`_fast` is true while the channel is between two requests: no part of an unfinished request is buffered, and none is
being answered. It is updated after every use of the parser.

Clients that do not read: when too much data is unsent, the transport calls `pauseProducing`, and no further request is
started until `resumeProducing`. So the memory for one client is bounded by the transport's buffer, one response and
one read.

A client that sends many requests at once takes turns with the others (`livestate.web.http1.fair_scheduler`). After TURN
responses on the fast path, or one from twisted.web, which takes as long as dozens of them, the remaining requests wait.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Site
from zope.interface import implementer

from livestate.net.records import session_reused
from livestate.net.stock import immediate_writer
from livestate.web.http1.connections import Connections
from livestate.web.http1.fast_request import MAX_LENGTH, SINGLE_ETAG, parse_fast
from livestate.web.http1.request import LiveRequest
from livestate.web.http1.timed_channel import TimedChannel
from livestate.web.responses.response import with_connection_close
from livestate.web.responses.variant import Variant
from livestate.web.streams.connection import ConnectionOwner

#: Spelled as browsers do. A request with another spelling can take the fast path too, but is not remembered.
_VALIDATOR = b"\r\nIf-None-Match: "
_VALIDATOR_LENGTH = len(_VALIDATOR)
_END = b"\r\n\r\n"

#: Maximum responses on the fast path to one client per turn of the reactor. They take some 0.2 ms, a fifth of the fair
#: scheduler's slice.
TURN = 32

#: Maximum pieces of data that twisted.web buffers while a response is being made.
_PIECES = 16


@implementer(IHandshakeListener)
class LiveChannel(TimedChannel):
    """Serves one connection."""

    # Slots, because with more than 30 attributes each channel's dictionary would have its own keys, which take 1.5 KB.
    __slots__ = ("_fast", "_get_response", "_get_variant", "_last_hash", "_pending", "_queued",
                 "connections", "site", "write_now")  # fmt: skip

    requestFactory = LiveRequest

    def __init__(self, site: Site, connections: Connections) -> None:
        """:param site: the site that finds resources for twisted.web's requests.
        :param connections: the state that all connections of the site share.
        """
        super().__init__()
        self._fast = True
        self._pending = b""
        self._queued = False
        self._last_hash = 0
        self.site = site
        self.factory = site
        self.connections = connections
        self._get_variant = connections.request_memo.get
        self._get_response = connections.response_memo.get
        if connections.draining:
            self.drain()

    def connectionMade(self) -> None:
        """Count the connection."""
        self.connections.open.add(self)
        self.connections.accepted += 1
        #: Writes at once if the transport allows it.
        self.write_now: Callable[[bytes], None] = immediate_writer(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # no default, as in twisted.web
        """Release all memory of the connection."""
        self.connections.open.discard(self)
        self._pending = b""
        self._queued = False
        super().connectionLost(reason)
        # Without reference cycles, the memory is freed at once.
        self.requests.clear()
        self.stream = None

    def handshakeCompleted(self) -> None:
        """Count a TLS handshake."""
        self.connections.handshakes += 1
        self.connections.resumptions += session_reused(self.transport.getHandle())

    def dataReceived(self, data: bytes) -> None:
        """Handle incoming data, which is usually one whole fast request."""
        if self._fast:
            remembered = self._get_response(data)
            if remembered is not None:
                remembered.sent += 1
                self.quiet = 0
                self.write_now(remembered.wire)
                return
            start = data.find(_VALIDATOR)
            if start < 0:
                variant = self._get_variant(data)
                validator = None
            else:
                end = data.find(b"\r\n", start + _VALIDATOR_LENGTH)
                variant = self._get_variant(data[:start] + data[end:]) if data.endswith(_END) else None
                validator = data[start + _VALIDATOR_LENGTH : end]
            if variant is not None and self._respond(variant, validator, data):
                return
        self._process(data)

    def _respond(self, variant: Variant, validator: bytes | None, data: bytes, last: bool = False) -> bool:
        """Send the response to a fast request, and return whether it was one; if not, nothing is sent.

        :param validator: the request's If-None-Match. If it is not a single entity tag, the request is not fast.
        :param data: the bytes of the request.
        :param last: whether the connection is to be closed after the response.
        """
        not_modified = None
        if validator is not None:
            not_modified = (variant.wires_not_modified or variant.prepare_not_modified()).get(validator)
            if not_modified is None and not SINGLE_ETAG.fullmatch(validator):
                return False
        if not_modified is not None:
            wire = not_modified
            variant.sent_not_modified += 1
        else:
            wire = variant.wire or variant.prepare()
            variant.sent += 1
        self.quiet = 0
        if last:
            self.write_now(with_connection_close(wire))
        else:
            self.write_now(wire)
            self.connections.response_memo.add(data, wire, variant, not_modified is not None)
        return True

    def _process(self, data: bytes) -> None:
        """Handle `data` one request at a time, each on the path that fits it."""
        start, allowance = 0, TURN
        while start < len(data) and not self.transport.disconnecting:
            if self.stream is not None:
                self.stream.dataReceived(data[start:])
                return
            if self._queued or (self._waitingForTransport and not self._handlingRequest):
                self._pending += data[start:]
                return
            if self._handlingRequest:
                self._buffer_in_parser(data[start:])
                return
            if allowance <= 0:
                self._wait_for_turn(data[start:])
                return
            end = data.find(_END, start)
            end = len(data) if end < 0 else end + len(_END)
            piece = data[start:end]
            start = end
            allowance -= 1
            if not (self._fast and len(piece) <= MAX_LENGTH and self._answer(piece)):
                allowance = 0
                super().dataReceived(piece)
                self._update_state()

    def _wait_for_turn(self, data: bytes) -> None:
        """Keep `data` until this client's next turn, and stop reading until then."""
        self._pending = data
        self._fast = False
        self._queued = True
        self._networkProducer.pauseProducing()
        self.connections.scheduler.wait(self._take_turn)

    def _take_turn(self) -> None:
        """Continue with the pending data, if the client is still connected and the transport is not full."""
        connected, self._queued = self._queued, False
        if connected and not self._waitingForTransport:
            try:
                self.resumeProducing()
            except Exception:  # as the reactor does for what it calls
                self._log.failure("could not answer a request; closing the connection")
                self.abortConnection()

    def _buffer_in_parser(self, data: bytes) -> None:
        """Let twisted.web buffer the data that arrives while a response is being made, up to its limit.

        The pieces are joined now and then, since twisted.web sums up all their lengths whenever one arrives. That would
        take 0.1 s for thousands of small pieces (an empty line each, 16 KB in total).
        """
        super().dataReceived(data)
        if len(self._dataBuffer) > _PIECES:
            self._dataBuffer[:] = [b"".join(self._dataBuffer)]

    def _answer(self, piece: bytes) -> bool:
        """Answer `piece` if it is a fast request, and return whether it is."""
        parsed = parse_fast(self.connections.responders, piece)
        if parsed is None:
            return False
        variant, validator, last = parsed
        variant.parsed += 1
        last = last or self.connections.draining
        self._respond(variant, validator, piece, last)
        if last:
            self._fast = self.persistent = False
            self.loseConnection()
            return True
        start = piece.find(_VALIDATOR)
        if (start < 0) == (validator is None):
            key = piece if start < 0 else piece[:start] + piece[piece.find(b"\r\n", start + _VALIDATOR_LENGTH) :]
            request_hash = hash(key)
            if request_hash == self._last_hash:
                self.connections.request_memo.remember(key, variant)
            self._last_hash = request_hash
        return True

    def hand_over(self, owner: ConnectionOwner) -> None:
        """Replace the request that is being answered by `owner`.

        The channel no longer references the request, which can still write the head of the response. The connection
        closes when the stream ends.
        """
        self.requests[0] = owner
        self.stream = owner

    def drain(self) -> None:
        """Make the next response the last. The memos are not used: their responses lack `Connection: close`."""
        empty: dict[bytes, Any] = {}
        self._get_variant = self._get_response = empty.get
        if self.requests:
            self.persistent = False

    def checkPersistence(self, request: HTTPRequest, version: bytes) -> bool:
        """Return whether the connection stays open after the response to `request`."""
        if self.connections.draining:
            if version == b"HTTP/1.1":
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        persistent: bool = super().checkPersistence(request, version)
        return persistent

    def idle(self) -> bool:
        """Return whether this connection is between two requests."""
        return self._fast

    def close_idle(self) -> None:
        """Close an idle connection."""
        self._fast = False
        self.loseConnection()

    def _update_state(self) -> None:
        """Determine where the parser is: between two requests, or within one."""
        # The state of twisted.web and LineReceiver: an incomplete request, a response being made, an incomplete line,
        # and an empty line before a request (only one is allowed).
        first_line: int = self._HTTPChannel__first_line  # type: ignore[attr-defined]  # a private name
        between = not (self.requests or self._handlingRequest or self._buffer or first_line != 1)
        # A client that does not read is not on the fast path, but has no unfinished request.
        self._fast = between and not (self._waitingForTransport or self._queued)
        self._count(arriving=not (between or self._handlingRequest))

    def requestDone(self, request: HTTPRequest) -> None:
        """Handle the next request after a response."""
        super().requestDone(request)
        if self._waitingForTransport and not self.transport.disconnecting:
            # twisted.web does not stop reading if the transport becomes full while a response is being made, as it did
            # here with the last piece of the response.
            self._networkProducer.pauseProducing()
        self._update_state()

    def pauseProducing(self) -> None:
        """Start no further request: too much data is unsent."""
        if self.stream is not None:
            self.stream.pauseProducing()
            return
        super().pauseProducing()
        self._fast = False

    def resumeProducing(self) -> None:
        """Continue: the client has read what was sent."""
        if self.stream is not None:
            self.stream.resumeProducing()
            return
        super().resumeProducing()
        if self._queued:
            self._networkProducer.pauseProducing()
            return
        self._update_state()
        pending, self._pending = self._pending, b""
        if pending:
            self._process(pending)
