"""A channel that knows how long its reader has been quiet.

Theory of operation. Timeouts cost nothing per request. Each request sets `quiet` to zero; the site's sweep counts it up
for all channels every few seconds, and one who has been quiet for too long is let go (`livestate.web.idle_timeout`).
`unfinished` is counted the same way while a request is arriving, and is not set back by more bytes of it: dripping them
in holds no connection open.
"""

from typing import Any

from livestate.net.stream import unsent
from livestate.web.http1.connection_owner import ConnectionOwner
from livestate.web.http1.request_rules import ValidatingChannel

#: Bytes that a reader who takes what he is sent takes between two sweeps: 1 KB/s. Who takes less keeps a version of the
#: document in memory for as long as he likes.
SLOWEST = 5_000


class TimedChannel(ValidatingChannel):
    """Tells when its time is over."""

    __slots__ = ("_unsent", "quiet", "stream", "unfinished")

    #: twisted.web's timer, made anew with each piece of data, is not used.
    timeOut = None

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        #: Sweeps since the last request, and sweeps since an unfinished one began (None: there is none).
        self.quiet = 0
        self.unfinished: int | None = None
        #: What twisted.web has handed this connection over to.
        self.stream: ConnectionOwner | None = None
        self._unsent: int | None = None

    def overdue(self, quiet: int, unfinished: int) -> bool:
        """Tell whether this connection has been quiet, or a request on it unfinished, for so many sweeps.

        It is not while an answer is being made, nor while the reader takes what is being sent, if slowly.
        """
        # After an answer that was the last, twisted.web goes on to say that it handles a request.
        answering = self._handlingRequest and self.requests and not self._waitingForTransport
        if self.stream is not None or answering:
            return False
        if self.unfinished is not None and self.unfinished >= unfinished:
            return True
        if self.quiet >= quiet - 1:
            before, self._unsent = self._unsent, unsent(self.transport)
            if self._unsent and (before is None or not before - SLOWEST < self._unsent <= before):
                self.quiet = quiet - 1
        return self.quiet >= quiet

    def abortConnection(self) -> None:
        """End the connection now, whatever is still to be sent."""
        self.transport.abortConnection()

    def _count(self, arriving: bool) -> None:
        """Have the sweeps counted from here on.

        :param arriving: whether a part of a request has arrived.
        """
        if not arriving:
            self.unfinished = None
            self.quiet = 0
        elif self.unfinished is None:
            self.unfinished = 0
