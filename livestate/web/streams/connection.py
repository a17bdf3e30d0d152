"""The interface between a connection and the stream that takes it over from a request: server-sent events or WebSocket.

Streams use connections only through these two protocols, whatever version of HTTP the connection speaks.
"""

from collections.abc import Callable
from typing import Any, Protocol


class ConnectionOwner(Protocol):
    """The owner of a connection from a request on until the connection closes."""

    def dataReceived(self, data: bytes) -> None:
        """Handle what the client sends after the request."""

    def pauseProducing(self) -> None:
        """Stop writing: the transport has too much unsent data."""

    def resumeProducing(self) -> None:
        """Resume writing: everything was sent."""

    def connectionLost(self, reason: Any) -> None:
        """Release the connection: it is closed."""


class StreamConnection(Protocol):
    """What a subscriber needs of its connection."""

    transport: Any
    #: Write bytes, at once where the transport allows it.
    write_now: Callable[[bytes], None]

    def hand_over(self, owner: ConnectionOwner) -> None:
        """Replace the request that is being answered by `owner`."""

    def loseConnection(self) -> None:
        """Close the connection once everything is sent."""

    def abortConnection(self) -> None:
        """Close the connection now, and drop unsent data."""
