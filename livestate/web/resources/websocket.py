"""A document's changes over WebSocket (RFC 6455), spoken by Autobahn.

Theory of operation. What a connection is told is the business of `livestate.web.streams.broadcast`, as it is for event streams:
WebSocket is one more Framing. No extension is agreed on and a server does not mask, so that a message's frame is the
same for all; it is made once, and the reader writes it. Autobahn does the rest: the handshake, and all that the client
sends. It is given the channel as its transport, and writes pongs and close frames.

Of what clients send nothing is kept, and whoever ends a connection, no more is read than bounds allow:

- A message is let go of piece by piece, and one that is too large ends the connection (1009).
- To a client that sends pings and does not read, one pong is owed: for its last ping (section 5.5.3).
- After a close frame no message is written. A client that broke the protocol is read from until it answers that frame,
  since closing at once may take the frame with it. Autobahn keeps a control frame until it is whole, also one that it
  has refused for its size: of a very large one it is shown no more than the beginning.

No timer is set for a connection: one that does not end is found by the broadcast's look at its readers, after half a
minute.

Importing this module imports Autobahn, which may import the reactor: it is done when that is chosen.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import PreparedMessage
from twisted.web.http import Request

from livestate.documents.history import Message
from livestate.web.http1.request import wants_patches
from livestate.web.resources.upgrade import VERSION, refusal
from livestate.web.responses.response import Response, problem
from livestate.web.streams.broadcast import Broadcast, Framing, SubscriberGroup
from livestate.web.streams.subscriber import LoggedSubscriber

if TYPE_CHECKING:
    from livestate.web.http1.channel import LiveChannel

#: Bytes that a client's message may have. It has nothing to say; some send a word now and then to stay connected.
LARGEST = 4096

#: A ping with nothing in it (RFC 6455 section 5.5.2), and a close frame of status 1001: the server goes down (7.4.1).
PING = b"\x89\x00"
GOING_AWAY = b"\x88\x02\x03\xe9"

#: The fields of which a handshake consists. Others are not looked at: no extension or subprotocol is spoken here.
_HANDSHAKE = (b"Host", b"Upgrade", b"Connection", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version")


def _encode(messages: Sequence[Message]) -> bytes:
    return b"".join(_frame(message) for message in messages)


def _frame(message: Message) -> bytes:
    kind = b"patch" if message.is_patch else b"state"
    text = b'{"version":%d,"%b":%b}' % (message.version, kind, message.data)
    frame: bytes = PreparedMessage(text, isBinary=False, applyMask=False, doNotCompress=True).payloadHybi
    return frame


FRAMING = Framing(_encode, PING, GOING_AWAY, "websocket_readers")


class LiveWebSocket(WebSocketServerProtocol):
    """What one client sends, from its handshake on."""

    #: Of each misbehaviour of a client Autobahn would log a line.
    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]  # txaio has it once Twisted is chosen

    #: Gives the reader that takes the connection over, once the handshake is good.
    take_over: "Callable[[LiveWebSocket], WebSocketSubscriber]"
    reader: "WebSocketSubscriber"
    #: The answer to a handshake that is not.
    refused: Response | None = None
    #: Autobahn's own: the pieces of the control frame that is under way.
    control_frame_data: list[bytes] | None = None  # type: ignore[assignment]  # None between two

    def onConnect(self, request: Any) -> None:
        """Take the connection over."""
        self.reader = self.take_over(self)
        del self.take_over

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Have the request answered by twisted.web; Autobahn would write an answer itself and close."""
        self.refused = problem(code, reason)

    def onOpen(self) -> None:
        """Begin, behind the handshake's answer."""
        self.reader.start()

    def onMessageFrameData(self, payload: bytes) -> None:
        """Let go of a piece of a message."""

    def onMessageEnd(self) -> None:
        """Let go of a message."""

    def onPing(self, payload: bytes) -> None:
        """Answer a ping."""
        self.reader.answer_ping(payload)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Write a close frame, and no message after it."""
        self.reader.closing()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def dropConnection(self, abort: bool = False) -> None:
        """End the connection once both sides have sent a close frame, when ours is sent.

        Autobahn would reset it, or end it at a second fault while the client's frame is awaited: either may take our
        close frame with it.
        """
        if self.wasClean:
            super().dropConnection(abort=False)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # of no default, as in twisted.web
        """End, and leave nothing in a circle: Autobahn's Deferred holds the protocol that holds it."""
        super().connectionLost(reason)
        del self.is_closed, self.reader


class WebSocketSubscriber(LoggedSubscriber):
    """One who is told over WebSocket."""

    __slots__ = ("_closing", "_owed", "_protocol")

    status = 101

    def __init__(self, channel: "LiveChannel", audience: SubscriberGroup, entry: Any, protocol: LiveWebSocket) -> None:
        super().__init__(channel, audience, 0, entry, len)
        self._protocol = protocol
        self._closing = False
        #: The ping that is to be answered when there is room.
        self._owed: bytes | None = None

    def dataReceived(self, data: bytes) -> None:
        """Have Autobahn take what the client sends."""
        if not (self._closing and sum(map(len, self._protocol.control_frame_data or ())) > LARGEST):
            self._protocol.dataReceived(data)

    def answer_ping(self, payload: bytes) -> None:
        """Write a pong, now or when what waits is sent."""
        if self.writable:
            self._protocol.sendPong(payload)
        else:
            self._owed = payload

    def closing(self) -> None:
        """Be sent nothing more: a close frame is next, and the last."""
        self._closing = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Catch up."""
        if self._closing:
            return
        self.writable = True
        owed, self._owed = self._owed, None
        if owed is not None:
            self._protocol.sendPong(owed)
        if self.writable:
            super().resumeProducing()

    def connectionLost(self, reason: Any) -> None:
        """Be told nothing any more."""
        super().connectionLost(reason)
        self._protocol.connectionLost(reason)


class WebSockets:
    """Begins WebSockets."""

    protocol = LiveWebSocket
    largest = LARGEST

    def __init__(self, reactor: Any, origins: Sequence[str]) -> None:
        """:param origins: whose pages may connect, or `*`; a page of this server's own always may."""
        self._origins = tuple(origin.encode("ascii") for origin in origins)
        self._factory = WebSocketServerFactory(reactor=reactor, server=None)
        self._factory.setProtocolOptions(
            versions=[int(VERSION)],
            failByDrop=False,
            maxMessagePayloadSize=self.largest,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
        )
        options = {name: getattr(self._factory, name) for name in self.protocol.CONFIG_ATTRS}
        # Autobahn copies to each connection those that its class does not have: 1.6 KB. A function would be a method.
        options = {name: value for name, value in options.items() if not callable(value)}
        self._protocol: type[LiveWebSocket] = type(self.protocol.__name__, (self.protocol,), options)

    def begin(self, request: Request, broadcast: Broadcast) -> Response | None:
        """Have a WebSocket take the place of a request for one; give the answer where that cannot be."""
        refused = refusal(request, self._origins)
        if refused is not None:
            return refused
        channel: LiveChannel = request.channel  # type: ignore[assignment]  # no other serves this site
        audience = broadcast.audience(FRAMING, wants_patches(request))
        protocol = self._protocol()
        protocol.factory = self._factory
        protocol.take_over = partial(WebSocketSubscriber, channel, audience, channel.site.entry(request))
        protocol.makeConnection(channel)
        protocol.dataReceived(_handshake(request))
        return protocol.refused


def _handshake(request: Request) -> bytes:
    """Give the request's head as it came, as far as it is the handshake's: Autobahn reads bytes."""
    lines = [b"GET / HTTP/1.1"]
    for name in _HANDSHAKE:
        lines += [b"%b: %b" % (name, value) for value in request.requestHeaders.getRawHeaders(name, [])]
    return b"\r\n".join([*lines, b"", b""])
