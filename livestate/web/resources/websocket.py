"""A document's changes over WebSocket (RFC 6455), with Autobahn.

Theory of operation. `livestate.web.streams.broadcast` decides what a connection is sent, as it does for event streams:
WebSocket is one more Framing. No extension is negotiated and a server does not mask, so a message's frame is the same
for all clients; it is made once, and the subscriber writes it. Autobahn does the rest: the handshake, and everything
that the client sends. It gets the channel as its transport, and writes pongs and close frames.

Nothing that clients send is kept, and whichever side closes a connection, no more is read than bounds allow:

- A message is discarded piece by piece, and one that is too large closes the connection (1009).
- A client that sends pings and does not read is owed one pong, for its last ping (section 5.5.3).
- After a close frame no message is written. A client that broke the protocol is read from until it answers that frame,
  since closing at once may lose the frame. Autobahn keeps a control frame until it is complete, even one that it has
  refused for its size: of a very large one it gets no more than the beginning.

There is no timer per connection: one that does not close is found by the broadcast's check of its subscribers, after
half a minute.

Importing this module imports Autobahn, which may import the reactor: do it only when the reactor is chosen.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import PreparedMessage
from twisted.web.http import Request

from livestate.documents.history import Message
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.request import wants_patches
from livestate.web.resources.upgrade import VERSION, refusal
from livestate.web.responses.response import Response, problem
from livestate.web.streams.broadcast import Broadcast, Framing, SubscriberGroup
from livestate.web.streams.subscriber import LoggedSubscriber

#: Bytes that a client's message may have. Clients need not send any; some send a word now and then as a keep-alive.
MAX_MESSAGE = 4096

#: A ping without a payload (RFC 6455 section 5.5.2), and a close frame of status 1001: the server goes away (7.4.1).
PING = b"\x89\x00"
GOING_AWAY = b"\x88\x02\x03\xe9"

#: The fields of a handshake. Others are ignored: no extension or subprotocol is supported.
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
    """Handles what one client sends, from its handshake on."""

    #: Autobahn would log a line for every protocol violation of a client.
    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]  # txaio has it once Twisted is chosen

    #: Returns the subscriber that takes the connection over, once the handshake has succeeded.
    take_over: "Callable[[LiveWebSocket], WebSocketSubscriber]"
    subscriber: "WebSocketSubscriber"
    #: The response to a handshake that has failed.
    refused: Response | None = None
    #: Autobahn's own: the pieces of the control frame that is being received.
    control_frame_data: list[bytes] | None = None  # type: ignore[assignment]  # None between two frames

    def onConnect(self, request: Any) -> None:
        """Take the connection over: the handshake has succeeded."""
        self.subscriber = self.take_over(self)
        del self.take_over

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Let twisted.web answer the request; Autobahn would write a response itself and close."""
        self.refused = problem(code, reason)

    def onOpen(self) -> None:
        """Start the stream, behind the response to the handshake."""
        self.subscriber.start()

    def onMessageFrameData(self, payload: bytes) -> None:
        """Discard a piece of a message."""

    def onMessageEnd(self) -> None:
        """Discard the end of a message."""

    def onPing(self, payload: bytes) -> None:
        """Answer a ping."""
        self.subscriber.answer_ping(payload)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Write a close frame, and no message after it."""
        self.subscriber.closing()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def dropConnection(self, abort: bool = False) -> None:
        """Close the connection once both sides have sent a close frame, when ours is sent.

        Autobahn would reset it, or close it at a second protocol violation while the client's frame is awaited: either
        may lose our close frame.
        """
        if self.wasClean:
            super().dropConnection(abort=False)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # no default, as in twisted.web
        """Leave no reference cycle: Autobahn's Deferred holds the protocol that holds it."""
        super().connectionLost(reason)
        del self.is_closed, self.subscriber


class WebSocketSubscriber(LoggedSubscriber):
    """A client of a stream over WebSocket."""

    __slots__ = ("_closing", "_owed", "_protocol")

    status = 101

    def __init__(self, channel: LiveChannel, group: SubscriberGroup, log_line: Any, protocol: LiveWebSocket) -> None:
        super().__init__(channel, group, 0, log_line, len)
        self._protocol = protocol
        self._closing = False
        #: The ping to answer when everything else is sent.
        self._owed: bytes | None = None

    def dataReceived(self, data: bytes) -> None:
        """Pass what the client sends to Autobahn."""
        if not (self._closing and sum(map(len, self._protocol.control_frame_data or ())) > MAX_MESSAGE):
            self._protocol.dataReceived(data)

    def answer_ping(self, payload: bytes) -> None:
        """Write a pong, now or when everything else is sent."""
        if self.writable:
            self._protocol.sendPong(payload)
        else:
            self._owed = payload

    def closing(self) -> None:
        """Write no more messages: a close frame follows, and is the last frame."""
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
        """Leave the group, log the request, and tell Autobahn."""
        super().connectionLost(reason)
        self._protocol.connectionLost(reason)


class WebSockets:
    """Upgrades requests to WebSocket."""

    protocol = LiveWebSocket
    max_message = MAX_MESSAGE

    def __init__(self, reactor: Any, origins: Sequence[str]) -> None:
        """:param origins: the origins whose pages may connect, or `*`; a page of this server itself always may."""
        self._origins = tuple(origin.encode("ascii") for origin in origins)
        self._factory = WebSocketServerFactory(reactor=reactor, server=None)
        self._factory.setProtocolOptions(
            versions=[int(VERSION)],
            failByDrop=False,
            maxMessagePayloadSize=self.max_message,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
        )
        options = {name: getattr(self._factory, name) for name in self.protocol.CONFIG_ATTRS}
        # Autobahn copies to each connection the options that its class does not have: 1.6 KB. A function as a class
        # attribute would become a method.
        options = {name: value for name, value in options.items() if not callable(value)}
        self._protocol: type[LiveWebSocket] = type(self.protocol.__name__, (self.protocol,), options)

    def begin(self, request: Request, broadcast: Broadcast) -> Response | None:
        """Replace a request by a WebSocket; return the response to it where that is not possible."""
        refused = refusal(request, self._origins)
        if refused is not None:
            return refused
        channel: LiveChannel = request.channel  # type: ignore[assignment]  # no other serves this site
        group = broadcast.group(FRAMING, wants_patches(request))
        protocol = self._protocol()
        protocol.factory = self._factory
        protocol.take_over = partial(WebSocketSubscriber, channel, group, channel.connections.log_later(request))
        protocol.makeConnection(channel)
        protocol.dataReceived(_handshake(request))
        return protocol.refused


def _handshake(request: Request) -> bytes:
    """Return the fields of the handshake as the bytes of a request, which is what Autobahn parses."""
    lines = [b"GET / HTTP/1.1"]
    for name in _HANDSHAKE:
        lines += [b"%b: %b" % (name, value) for value in request.requestHeaders.getRawHeaders(name, [])]
    return b"\r\n".join([*lines, b"", b""])
