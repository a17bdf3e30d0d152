"""What a channel hands its connection over to: an event stream, a WebSocket."""

from typing import Any, Protocol


class ConnectionOwner(Protocol):
    """What has a connection for itself, from a request on until its end."""

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sends after the request."""

    def pauseProducing(self) -> None:
        """Write no more: the transport holds enough."""

    def resumeProducing(self) -> None:
        """Write on: all is sent."""

    def connectionLost(self, reason: Any) -> None:
        """End."""
