"""A document's changes over WebSocket (RFC 6455), with Autobahn.

Theory of operation. `livestate.web.streams.broadcast` decides what a connection is sent, as it does for event streams:
WebSocket is one more Framing. No extension is negotiated and a server does not mask, so a message's frame is the same
for all clients. It is made once, and the subscriber writes it. Autobahn handles the handshake and everything that the
client sends. Its transport is the channel, to which it writes pongs and close frames.

No data from clients is kept, and what can be buffered for a client is bounded, whichever side closes the connection:

- A message is discarded piece by piece. A message that is too large closes the connection (1009).
- A client that sends pings and does not read gets one pong later, for its last ping (section 5.5.3).
- After a close frame no message is written. If the client broke the protocol, reading continues until it answers the
  close frame, since closing at once could lose that frame. Autobahn buffers a control frame until it is complete, even
  after refusing it for its size. So it is passed only the beginning of a very large one.

There is no timer per connection: a client that does not close its connection is disconnected after half a minute by
the broadcast's check of its subscribers.

Importing this module imports Autobahn, which may import the reactor, so import it only after the reactor is installed.
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

#: Maximum bytes of a client's message. Clients need not send any; some send a word now and then as a keep-alive.
MAX_MESSAGE = 4096

#: A ping without a payload (RFC 6455 section 5.5.2), and a close frame with status 1001, "going away" (section 7.4.1).
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
    """Handles the data from one client, from its handshake on."""

    #: Silenced: Autobahn would log a line for every protocol violation of a client.
    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]  # txaio has it once Twisted is chosen

    #: Creates the subscriber, which takes the connection over, once the handshake has succeeded.
    take_over: "Callable[[LiveWebSocket], WebSocketSubscriber]"
    subscriber: "WebSocketSubscriber"
    #: The response to a failed handshake.
    refused: Response | None = None
    #: Autobahn's own: the pieces of the control frame that is being received.
    control_frame_data: list[bytes] | None = None  # type: ignore[assignment]  # None between two frames

    def onConnect(self, request: Any) -> None:
        """Take the connection over: the handshake has succeeded."""
        self.subscriber = self.take_over(self)
        del self.take_over

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Let twisted.web answer the request, instead of Autobahn, which would write a response and close."""
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
        """Write a close frame, and no messages after it."""
        self.subscriber.stop_messages()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def dropConnection(self, abort: bool = False) -> None:
        """Close the connection, but only if both sides have sent a close frame, and only once ours has left.

        Autobahn would reset it, or close it at a second protocol violation while waiting for the client's close frame.
        Both could lose our close frame.
        """
        if self.wasClean:
            super().dropConnection(abort=False)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # no default, as in twisted.web
        """Break the reference cycle between Autobahn's Deferred and the protocol."""
        super().connectionLost(reason)
        del self.is_closed, self.subscriber


class WebSocketSubscriber(LoggedSubscriber):
    """A client of a stream over WebSocket."""

    __slots__ = ("_closing", "_protocol", "_unanswered_ping")

    status = 101

    def __init__(self, channel: LiveChannel, group: SubscriberGroup, log_line: Any, protocol: LiveWebSocket) -> None:
        super().__init__(channel, group, 0, log_line, len)
        self._protocol = protocol
        self._closing = False
        #: The payload of the ping to answer once everything else is sent.
        self._unanswered_ping: bytes | None = None

    def dataReceived(self, data: bytes) -> None:
        """Pass data from the client to Autobahn."""
        if not (self._closing and sum(map(len, self._protocol.control_frame_data or ())) > MAX_MESSAGE):
            self._protocol.dataReceived(data)

    def answer_ping(self, payload: bytes) -> None:
        """Write a pong, now or once everything else is sent."""
        if self.writable:
            self._protocol.sendPong(payload)
        else:
            self._unanswered_ping = payload

    def stop_messages(self) -> None:
        """Write no more messages: the close frame that follows is the last frame."""
        self._closing = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Answer the last ping, and send the messages that the client missed."""
        if self._closing:
            return
        self.writable = True
        ping, self._unanswered_ping = self._unanswered_ping, None
        if ping is not None:
            self._protocol.sendPong(ping)
        if self.writable:
            super().resumeProducing()

    def connectionLost(self, reason: Any) -> None:
        """Leave the group, log the request, and notify Autobahn."""
        super().connectionLost(reason)
        self._protocol.connectionLost(reason)


class WebSockets:
    """Upgrades requests to WebSocket."""

    protocol = LiveWebSocket
    max_message = MAX_MESSAGE

    def __init__(self, reactor: Any, origins: Sequence[str]) -> None:
        """:param origins: the origins whose pages may connect, or `*`; pages of this server itself always may."""
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
        # Autobahn copies options to each connection (1.6 KB) unless its class has them. Functions are left out, since a
        # function as a class attribute would become a method.
        options = {name: value for name, value in options.items() if not callable(value)}
        self._protocol: type[LiveWebSocket] = type(self.protocol.__name__, (self.protocol,), options)

    def upgrade(self, request: Request, broadcast: Broadcast) -> Response | None:
        """Turn a request into a WebSocket, or return the response that refuses it."""
        refused = refusal(request, self._origins)
        if refused is not None:
            return refused
        channel: LiveChannel = request.channel  # type: ignore[assignment]  # the only channel class of this site
        group = broadcast.group(FRAMING, wants_patches(request))
        protocol = self._protocol()
        protocol.factory = self._factory
        protocol.take_over = partial(WebSocketSubscriber, channel, group, channel.connections.log_later(request))
        protocol.makeConnection(channel)
        protocol.dataReceived(_handshake(request))
        return protocol.refused


def _handshake(request: Request) -> bytes:
    """Return the fields of the handshake as the bytes of a request, for Autobahn to parse."""
    lines = [b"GET / HTTP/1.1"]
    for name in _HANDSHAKE:
        lines += [b"%b: %b" % (name, value) for value in request.requestHeaders.getRawHeaders(name, [])]
    return b"\r\n".join([*lines, b"", b""])
