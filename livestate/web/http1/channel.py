"""One reader's connection: twisted.web's HTTP channel with a short cut through it.

Theory of operation. What arrives is cut where a request's head ends, and each piece goes one of two ways:

- The short cut, where the channel stands between two requests and the piece is a plain request (`livestate.web.http1.fast_request`):
  the answer is made already, and is written. Nothing of twisted.web is touched.
- twisted.web's own parser, for everything else. It does not mind where its input is cut.

`_fast` says that the channel stands between two requests: nothing is held of an unfinished one, and none is being
answered. It is looked at after each time that the parser was used.

A reader who does not read: the transport, when too much waits in it, calls `pauseProducing`, and no further request is
begun until `resumeProducing`: what is held for one reader is the transport's bound, one answer, and one read.

Who sends many requests at once takes turns with others (`livestate.web.http1.fair_scheduler`): after TURN answers of the short cut, or
one of twisted.web's, which takes as long as dozens of them, the rest is held.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.web.http import Request as HTTPRequest
from zope.interface import implementer

from livestate.net.records import session_reused
from livestate.net.stock import immediate_writer
from livestate.web.http1.connection_owner import ConnectionOwner
from livestate.web.http1.fast_request import LONGEST, SINGLE_ETAG, parse_fast
from livestate.web.http1.request import LiveRequest
from livestate.web.http1.timed_channel import TimedChannel
from livestate.web.responses.responder import Variant
from livestate.web.responses.response import closing

if TYPE_CHECKING:
    from livestate.web.site import LiveSite

#: As browsers write it; in another spelling, a request is plain too, but not remembered.
_VALIDATOR = b"\r\nIf-None-Match: "
_SKIP = len(_VALIDATOR)
_END = b"\r\n\r\n"

#: Answers of the short cut that one reader is given in a turn of the reactor: some 0.2 ms.
TURN = 32

#: Pieces in which twisted.web keeps what comes while an answer is being made.
_PIECES = 16


@implementer(IHandshakeListener)
class LiveChannel(TimedChannel):
    """Serves one connection."""

    # With more names than 30 in it, Python would give each channel's dictionary keys of its own, of 1.5 KB.
    __slots__ = ("_fast", "_find", "_held", "_last", "_ready", "_resting", "site", "write_now")

    requestFactory = LiveRequest

    def __init__(self, site: "LiveSite") -> None:
        super().__init__()
        self._fast = True
        self._held = b""
        self._resting = False
        self._last = 0
        self.site = site
        self.factory = site
        self._find = site.memo.get
        self._ready = site.prepared.get
        if site.draining:
            self.drain()

    def connectionMade(self) -> None:
        """Begin."""
        self.site.channels.add(self)
        self.site.accepted += 1
        #: Writes at once where that is possible.
        self.write_now: Callable[[bytes], None] = immediate_writer(self.transport)
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # of no default, as in twisted.web
        """End."""
        self.site.channels.discard(self)
        self._held = b""
        self._resting = False
        super().connectionLost(reason)
        # Nothing is left in a circle: a reader's memory is free again at once.
        self.requests.clear()
        self.stream = None

    def handshakeCompleted(self) -> None:
        """Count a TLS handshake."""
        self.site.handshakes += 1
        self.site.resumptions += session_reused(self.transport.getHandle())

    def dataReceived(self, data: bytes) -> None:
        """Take what arrived: mostly one plain request, whole."""
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
            if variant is not None and self._give(variant, validator, data):
                return
        self._take(data)

    def _give(self, variant: Variant, validator: bytes | None, data: bytes, last: bool = False) -> bool:
        """Send one answer; tells whether it could, without which nothing is sent.

        :param validator: the If-None-Match of a plain request: with anything but a single entity tag it is not plain.
        :param data: the request.
        :param last: whether the connection is to be closed behind the answer.
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
            self.site.prepared.note(data, wire, variant, not_modified is not None)
        return True

    def _take(self, data: bytes) -> None:
        """Go through `data` a request at a time, each on the way that it fits."""
        start, turn = 0, TURN
        while start < len(data) and not self.transport.disconnecting:
            if self.stream is not None:
                self.stream.dataReceived(data[start:])
                return
            if self._resting or (self._waitingForTransport and not self._handlingRequest):
                self._held += data[start:]
                return
            if self._handlingRequest:
                self._keep(data[start:])
                return
            if turn <= 0:
                self._rest(data[start:])
                return
            end = data.find(_END, start)
            end = len(data) if end < 0 else end + len(_END)
            piece = data[start:end]
            start = end
            turn -= 1
            if not (self._fast and len(piece) <= LONGEST and self._answer(piece)):
                turn = 0
                super().dataReceived(piece)
                self._settle()

    def _rest(self, data: bytes) -> None:
        """Go on with `data` when it is this reader's turn again, and read no more until then."""
        self._held = data
        self._fast = False
        self._resting = True
        self._networkProducer.pauseProducing()
        self.site.turns.wait(self._rested)

    def _rested(self) -> None:
        """Go on, if there is still someone, and the transport is not full."""
        there, self._resting = self._resting, False
        if there and not self._waitingForTransport:
            try:
                self.resumeProducing()
            except Exception:  # as the reactor does it for what it calls
                self._log.failure("a request could not be answered")
                self.abortConnection()

    def _keep(self, data: bytes) -> None:
        """Have twisted.web keep what comes while an answer is being made, up to its bound.

        In a few pieces: it adds up their lengths with each that comes, which thousands of small ones (of an empty line
        each, 16 KB in all) would make 0.1 s.
        """
        super().dataReceived(data)
        if len(self._dataBuffer) > _PIECES:
            self._dataBuffer[:] = [b"".join(self._dataBuffer)]

    def _answer(self, piece: bytes) -> bool:
        """Answer a plain request; tells whether it was one."""
        understood = parse_fast(self.site.responders, piece)
        if understood is None:
            return False
        variant, validator, last = understood
        variant.parsed += 1
        last = last or self.site.draining
        self._give(variant, validator, piece, last)
        if last:
            self._fast = self.persistent = False
            self.loseConnection()
            return True
        start = piece.find(_VALIDATOR)
        if (start < 0) == (validator is None):
            key = piece if start < 0 else piece[:start] + piece[piece.find(b"\r\n", start + _SKIP) :]
            mark = hash(key)
            if mark == self._last:
                self.site.memo.remember(key, variant)
            self._last = mark
        return True

    def hand_over(self, stream: ConnectionOwner) -> None:
        """Give the connection to `stream`, in place of the request that is being answered.

        From here on twisted.web holds nothing of that request; its answer's head can still be written by it, and is
        the last that it does. The connection is closed at the end of the stream.
        """
        self.requests[0] = stream
        self.stream = stream

    def drain(self) -> None:
        """Have the next answer be the last: no short cut is taken that does not say so."""
        nothing: dict[bytes, Any] = {}
        self._find = self._ready = nothing.get
        if self.requests:
            self.persistent = False

    def checkPersistence(self, request: HTTPRequest, version: bytes) -> bool:
        """Tell whether the connection stays after the answer to `request`."""
        if self.site.draining:
            if version == b"HTTP/1.1":
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        stays: bool = super().checkPersistence(request, version)
        return stays

    def idle(self) -> bool:
        """Tell whether this connection stands between two requests."""
        return self._fast

    def leave(self) -> None:
        """Close an idle connection."""
        self._fast = False
        self.loseConnection()

    def _settle(self) -> None:
        """See where the parser stands: between two requests, or within one."""
        # twisted.web's and LineReceiver's own state: a request begun, an answer being made, a part of a line, and an
        # empty line before a request (of which only one may be).
        first_line: int = self._HTTPChannel__first_line  # type: ignore[attr-defined]  # a private name
        between = not (self.requests or self._handlingRequest or self._buffer or first_line != 1)
        # Who does not read what was sent is sent no more, but has no request unfinished.
        self._fast = between and not (self._waitingForTransport or self._resting)
        self._count(arriving=not (between or self._handlingRequest))

    def requestDone(self, request: HTTPRequest) -> None:
        """Go on after an answer."""
        super().requestDone(request)
        if self._waitingForTransport and not self.transport.disconnecting:
            # twisted.web stops reading when the transport is full, but not while an answer is being made: it was its
            # last piece that filled the transport.
            self._networkProducer.pauseProducing()
        self._settle()

    def pauseProducing(self) -> None:
        """Begin no further request: too much waits to be sent."""
        if self.stream is not None:
            self.stream.pauseProducing()
            return
        super().pauseProducing()
        self._fast = False

    def resumeProducing(self) -> None:
        """Go on after the reader has read."""
        if self.stream is not None:
            self.stream.resumeProducing()
            return
        super().resumeProducing()
        if self._resting:
            self._networkProducer.pauseProducing()
            return
        self._settle()
        held, self._held = self._held, b""
        if held:
            self._take(held)
