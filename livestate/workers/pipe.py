"""The pipe between supervisor and worker: a pair of sockets, and the protocol that runs on each end."""

import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from livestate.workers.messages import FrameDecoder, FromWorker, ToWorker, frame

M = TypeVar("M")


@implementer(IPushProducer)
class Pipe(Protocol, Generic[M]):
    """One end of the pipe.

    `writable` is false while the transport's buffer is full; `on_writable` is called when it has been sent.
    """

    transport: Any

    def __init__(self, decoder: FrameDecoder[M], on_message: Callable[[M], None], on_close: Callable[[], None]) -> None:
        """:param on_close: called when the other end is closed."""
        self.writable = True
        self.on_writable: Callable[[], None] = lambda: None
        self._decoder = decoder
        self._on_message = on_message
        self._on_close = on_close

    def connect(self, reactor: Any, sock: socket.socket) -> None:
        """Run on `sock`, which is closed here: the reactor works on a duplicate."""
        sock.setblocking(False)
        reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, _OneProtocol(self))
        sock.close()

    def send(self, message: ToWorker | FromWorker) -> None:
        """Send a message."""
        self.transport.write(frame(message))

    def close(self) -> None:
        """Close the pipe at once, and drop what is not sent yet."""
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        """Register for flow control."""
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Pass the messages that are complete to `on_message`."""
        for message in self._decoder.feed(data):
            self._on_message(message)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # it has no default here
        """Report that the other end is closed."""
        self.writable = False
        self._on_close()

    def pauseProducing(self) -> None:
        """Note that the transport's buffer is full."""
        self.writable = False

    def resumeProducing(self) -> None:
        """Note that the transport's buffer has been sent."""
        self.writable = True
        self.on_writable()

    def stopProducing(self) -> None:
        """Note that nothing can be sent any longer."""
        self.writable = False


class _OneProtocol(Factory[Any]):
    """A factory that returns an existing protocol."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Protocol:
        """Return the protocol."""
        return self._protocol
