"""One client connection: twisted.web's HTTP channel with a fast path through it.

Theory of operation. What arrives is cut where the head of a request ends, and each piece goes one of two ways:

- The fast path, where the channel is between two requests and the piece is a fast request
  (`livestate.web.http1.fast_request`): the response is already made, and is written. Nothing of twisted.web is touched.
- twisted.web's own parser, for everything else. It does not mind where its input is cut.

`_fast` says that the channel is between two requests: no part of an unfinished request is held, and none is being
answered. It is determined again each time that the parser was used.

A client that does not read: when too much is unsent, the transport calls `pauseProducing`, and no further request is
begun until `resumeProducing`. So what is held for one client is bounded by the transport's buffer, one response and one
read.

A client that sends many requests at once takes turns with the others (`livestate.web.http1.fair_scheduler`): after TURN
responses of the fast path, or one of twisted.web's, which takes as long as dozens of them, the rest is held.
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
from livestate.web.responses.responder import Variant
from livestate.web.responses.response import closing
from livestate.web.streams.connection import ConnectionOwner

#: As browsers write it; a request with another spelling is fast too, but not remembered.
_VALIDATOR = b"\r\nIf-None-Match: "
_SKIP = len(_VALIDATOR)
_END = b"\r\n\r\n"

#: Responses of the fast path that one client is sent per turn of the reactor: some 0.2 ms, a fifth of the fair
#: scheduler's slice.
TURN = 32

#: Pieces in which twisted.web keeps what arrives while a response is being made.
_PIECES = 16


@implementer(IHandshakeListener)
class LiveChannel(TimedChannel):
    """Serves one connection."""

    # With more names than 30 in it, Python would give each channel's dictionary keys of its own, of 1.5 KB.
    __slots__ = ("_fast", "_find", "_held", "_last", "_ready", "_resting", "connections", "site", "write_now")

    requestFactory = LiveRequest

    def __init__(self, site: Site, connections: Connections) -> None:
        """:param site: what twisted.web's requests are resolved by.
        :param connections: what this connection shares with the others of the site.
        """
        super().__init__()
        self._fast = True
        self._held = b""
        self._resting = False
        self._last = 0
        self.site = site
        self.factory = site
        self.connections = connections
        self._find = connections.request_memo.get
        self._ready = connections.response_memo.get
        if connections.draining:
            self.drain()

    def connectionMade(self) -> None:
        """Count the connection."""
        self.connections.open.add(self)
        self.connections.accepted += 1
        #: Writes at once where that is possible.
        self.write_now: Callable[[bytes], None] = immediate_writer(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # of no default, as in twisted.web
        """Release everything that the connection held."""
        self.connections.open.discard(self)
        self._held = b""
        self._resting = False
        super().connectionLost(reason)
        # No reference cycle is left: the connection's memory is free at once.
        self.requests.clear()
        self.stream = None

    def handshakeCompleted(self) -> None:
        """Count a TLS handshake."""
        self.connections.handshakes += 1
        self.connections.resumptions += session_reused(self.transport.getHandle())

    def dataReceived(self, data: bytes) -> None:
        """Handle what arrived: mostly one whole fast request."""
        if self._fast:
            ready = self._ready(data)
            if ready is not None:
                ready.given += 1
                self.quiet = 0
                self.write_now(ready.wire)
                return
            start = data.find(_VALIDATOR)
            if start < 0:
                variant = self._find(data)
                validator = None
            else:
                end = data.find(b"\r\n", start + _SKIP)
                variant = self._find(data[:start] + data[end:]) if data.endswith(_END) else None
                validator = data[start + _SKIP : end]
            if variant is not None and self._respond(variant, validator, data):
                return
        self._process(data)

    def _respond(self, variant: Variant, validator: bytes | None, data: bytes, last: bool = False) -> bool:
        """Send one response, and return whether that was possible; if not, nothing is sent.

        :param validator: the If-None-Match of a fast request: with anything but a single entity tag it is not fast.
        :param data: the request.
        :param last: whether the connection is to be closed after the response.
        """
        not_modified = None
        if validator is not None:
            not_modified = (variant.wires_not_modified or variant.prepare_not_modified()).get(validator)
            if not_modified is None and not SINGLE_ETAG.fullmatch(validator):
                return False
        if not_modified is not None:
            wire = not_modified
            variant.given_not_modified += 1
        else:
            wire = variant.wire or variant.prepare()
            variant.given += 1
        self.quiet = 0
        if last:
            self.write_now(closing(wire))
        else:
            self.write_now(wire)
            self.connections.response_memo.note(data, wire, variant, not_modified is not None)
        return True

    def _process(self, data: bytes) -> None:
        """Go through `data` one request at a time, each on the path that it fits."""
        start, turn = 0, TURN
        while start < len(data) and not self.transport.disconnecting:
            if self.stream is not None:
                self.stream.dataReceived(data[start:])
                return
            if self._resting or (self._waitingForTransport and not self._handlingRequest):
                self._held += data[start:]
                return
            if self._handlingRequest:
                self._buffer_in_parser(data[start:])
                return
            if turn <= 0:
                self._rest(data[start:])
                return
            end = data.find(_END, start)
            end = len(data) if end < 0 else end + len(_END)
            piece = data[start:end]
            start = end
            turn -= 1
            if not (self._fast and len(piece) <= MAX_LENGTH and self._answer(piece)):
                turn = 0
                super().dataReceived(piece)
                self._update_state()

    def _rest(self, data: bytes) -> None:
        """Continue with `data` at this client's next turn, and read no more until then."""
        self._held = data
        self._fast = False
        self._resting = True
        self._networkProducer.pauseProducing()
        self.connections.scheduler.wait(self._rested)

    def _rested(self) -> None:
        """Continue, if the client is still connected and the transport is not full."""
        connected, self._resting = self._resting, False
        if connected and not self._waitingForTransport:
            try:
                self.resumeProducing()
            except Exception:  # as the reactor does for what it calls
                self._log.failure("could not answer a request; closing the connection")
                self.abortConnection()

    def _buffer_in_parser(self, data: bytes) -> None:
        """Let twisted.web keep what arrives while a response is being made, up to its bound.

        In a few pieces: it adds up their lengths for each one that arrives, which for thousands of small pieces (an
        empty line each, 16 KB in all) would take 0.1 s.
        """
        super().dataReceived(data)
        if len(self._dataBuffer) > _PIECES:
            self._dataBuffer[:] = [b"".join(self._dataBuffer)]

    def _answer(self, piece: bytes) -> bool:
        """Answer `piece` if it is a fast request, and return whether it was one."""
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
            key = piece if start < 0 else piece[:start] + piece[piece.find(b"\r\n", start + _SKIP) :]
            mark = hash(key)
            if mark == self._last:
                self.connections.request_memo.remember(key, variant)
            self._last = mark
        return True

    def hand_over(self, owner: ConnectionOwner) -> None:
        """Give the connection to `owner`, in place of the request that is being answered.

        From here on twisted.web holds nothing of that request. It can still write the head of the response, and does
        nothing after that. The connection closes when the stream ends.
        """
        self.requests[0] = owner
        self.stream = owner

    def drain(self) -> None:
        """Make the next response the last: the fast path is not taken where it would not say so."""
        nothing: dict[bytes, Any] = {}
        self._find = self._ready = nothing.get
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

    def leave(self) -> None:
        """Close an idle connection."""
        self._fast = False
        self.loseConnection()

    def _update_state(self) -> None:
        """Determine where the parser is: between two requests, or within one."""
        # twisted.web's and LineReceiver's own state: a request begun, a response being made, a part of a line, and an
        # empty line before a request (of which only one is allowed).
        first_line: int = self._HTTPChannel__first_line  # type: ignore[attr-defined]  # a private name
        between = not (self.requests or self._handlingRequest or self._buffer or first_line != 1)
        # A client that does not read is not on the fast path, but has no request unfinished.
        self._fast = between and not (self._waitingForTransport or self._resting)
        self._count(arriving=not (between or self._handlingRequest))

    def requestDone(self, request: HTTPRequest) -> None:
        """Continue after a response."""
        super().requestDone(request)
        if self._waitingForTransport and not self.transport.disconnecting:
            # twisted.web stops reading when the transport is full, but not while a response is being made: it was its
            # last piece that filled the transport.
            self._networkProducer.pauseProducing()
        self._update_state()

    def pauseProducing(self) -> None:
        """Begin no further request: too much is unsent."""
        if self.stream is not None:
            self.stream.pauseProducing()
            return
        super().pauseProducing()
        self._fast = False

    def resumeProducing(self) -> None:
        """Continue once the client has read what was sent."""
        if self.stream is not None:
            self.stream.resumeProducing()
            return
        super().resumeProducing()
        if self._resting:
            self._networkProducer.pauseProducing()
            return
        self._update_state()
        held, self._held = self._held, b""
        if held:
            self._process(held)
