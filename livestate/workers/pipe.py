"""The pipe between supervisor and worker: a pair of sockets, and what each side makes of its end."""

import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from livestate.workers.messages import Frames, FromWorker, ToWorker, frame

M = TypeVar("M")


@implementer(IPushProducer)
class Pipe(Protocol, Generic[M]):
    """One end. `writable` says that little waits to be sent; `on_writable` is called when that becomes true again."""

    transport: Any

    def __init__(self, frames: Frames[M], on_message: Callable[[M], None], on_end: Callable[[], None]) -> None:
        """:param on_end: called when the other side is gone."""
        self.writable = True
        self.on_writable: Callable[[], None] = lambda: None
        self._frames = frames
        self._on_message = on_message
        self._on_end = on_end

    def connect(self, reactor: Any, end: socket.socket) -> None:
        """Use `end`, which is closed here: the reactor has a duplicate."""
        end.setblocking(False)
        reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Only(self))
        end.close()

    def send(self, message: ToWorker | FromWorker) -> None:
        """Send a message."""
        self.transport.write(frame(message))

    def close(self) -> None:
        """Be gone for the other side, whatever is still to be sent."""
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        """Have oneself told how much waits."""
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Take what arrived."""
        for message in self._frames.feed(data):
            self._on_message(message)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # of no default
        """End."""
        self.writable = False
        self._on_end()

    def pauseProducing(self) -> None:
        """Much waits."""
        self.writable = False

    def resumeProducing(self) -> None:
        """All is sent."""
        self.writable = True
        self.on_writable()

    def stopProducing(self) -> None:
        """Nothing can be sent any more."""
        self.writable = False


class _Only(Factory[Any]):
    """Gives one protocol."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Protocol:
        """Give it."""
        return self._protocol
