"""A channel that counts for how long its client has been quiet.

Theory of operation. Timeouts cost nothing per request. Each request sets `quiet` to zero. The site's check of idle
connections (`livestate.web.idle_timeout`) increments it for all channels every few seconds, and closes those that have
been quiet for too long. `unfinished` is counted the same way while a request is arriving, and more bytes of it do not
reset it: a client that sends one byte at a time does not keep a connection open.
"""

from typing import Any

from livestate.net.stream import unsent
from livestate.web.http1.request_rules import ValidatingChannel
from livestate.web.streams.connection import ConnectionOwner

#: Minimum bytes that a client must read between two checks, or it counts as quiet: 1 KB/s. A slower client could keep a
#: version of the document in memory for as long as it likes.
MIN_PROGRESS = 5_000


class TimedChannel(ValidatingChannel):
    """A channel that knows whether it is overdue to be closed."""

    __slots__ = ("_unsent", "quiet", "stream", "unfinished")

    #: Disables twisted.web's timer, which is reset by each piece of data.
    timeOut = None

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        #: Checks since the last request, and checks since an unfinished request started (None: no unfinished request).
        self.quiet = 0
        self.unfinished: int | None = None
        #: The stream that the connection was handed over to.
        self.stream: ConnectionOwner | None = None
        self._unsent: int | None = None

    def overdue(self, quiet: int, unfinished: int) -> bool:
        """Return whether this connection has been quiet, or a request on it unfinished, for that many checks.

        It is not overdue while a response is being made, nor while the client reads what is being sent, even if slowly.
        """
        # After the last response, twisted.web still claims to be handling a request.
        responding = self._handlingRequest and self.requests and not self._waitingForTransport
        if self.stream is not None or responding:
            return False
        if self.unfinished is not None and self.unfinished >= unfinished:
            return True
        if self.quiet >= quiet - 1:
            before, self._unsent = self._unsent, unsent(self.transport)
            if self._unsent and (before is None or not before - MIN_PROGRESS < self._unsent <= before):
                self.quiet = quiet - 1
        return self.quiet >= quiet

    def abortConnection(self) -> None:
        """Close the connection now, and drop unsent data."""
        self.transport.abortConnection()

    def _count(self, arriving: bool) -> None:
        """Restart the count of checks.

        :param arriving: whether only a part of a request has arrived.
        """
        if not arriving:
            self.unfinished = None
            self.quiet = 0
        elif self.unfinished is None:
            self.unfinished = 0
