"""One connection that is told of a document's changes.

It stands in the channel in the place of twisted.web's request, which is let go once the head of its answer is written.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from livestate.net.stream import limit_buffering, unsent
from livestate.web.http1.access_log import Entry

if TYPE_CHECKING:
    from livestate.web.http1.channel import LiveChannel
    from livestate.web.streams.broadcast import SubscriberGroup

#: Seconds after which a reader that takes nothing of what waits for it is cut off. What a phone loses when it changes
#: networks comes back on another connection.
STUCK = 30.0


class Subscriber:
    """One who is told."""

    __slots__ = ("_audience", "_channel", "_stuck_since", "_unsent", "last", "lead", "version", "writable", "write")

    def __init__(self, channel: "LiveChannel", audience: "SubscriberGroup", version: int) -> None:
        """Take over `channel` from its request, whose answer's head is still to be written.

        :param version: what the reader has; 0: nothing.
        """
        self.version = version
        #: Whether all that was written is sent.
        self.writable = True
        #: When anything was last written, and how many seconds earlier than others a sign of life is due.
        self.last = 0.0
        self.lead = 0.0
        self.write: Callable[[bytes], None] = channel.write_now
        self._channel = channel
        self._audience = audience
        self._unsent = 0
        self._stuck_since = 0.0
        channel.hand_over(self)
        limit_buffering(channel.transport)

    def start(self) -> None:
        """Begin, behind the answer's head: with what makes the reader current, and each change from then on."""
        self._audience.add(self)
        if self.writable:
            self._audience.catch_up(self)

    def dataReceived(self, data: bytes) -> None:
        """Let go of what the client sends: there is nothing to say after the request."""

    def pauseProducing(self) -> None:
        """Be sent nothing: something waits to be sent."""
        self.writable = False
        self._unsent = -1

    def resumeProducing(self) -> None:
        """Catch up."""
        self.writable = True
        self._audience.catch_up(self)

    def stuck(self, now: float) -> bool:
        """Tell whether a reader that is not writable has taken nothing for too long."""
        waiting = unsent(self._channel.transport)
        if waiting != self._unsent:
            self._unsent = waiting
            self._stuck_since = now
        return now - self._stuck_since >= STUCK

    def abort(self) -> None:
        """End the connection now."""
        self._channel.abortConnection()

    def end(self, last: bytes) -> None:
        """End the stream in an orderly way, if the client has taken all before.

        :param last: what ends the body.
        """
        self._audience.remove(self)
        if self.writable:
            self.write(last)
            self.writable = False
            self._channel.loseConnection()
        else:
            self._channel.abortConnection()

    def connectionLost(self, reason: Any) -> None:
        """Be told nothing any more."""
        self.writable = False
        self._audience.remove(self)


class LoggedSubscriber(Subscriber):
    """One who is told, and of whom a line is written to the access log in the end."""

    __slots__ = ("_entry", "_length", "_send", "_sent")

    #: The answer's, as it is logged.
    status = 200

    def __init__(
        self,
        channel: "LiveChannel",
        audience: "SubscriberGroup",
        version: int,
        entry: Entry | None,
        length: Callable[[bytes], int],
    ) -> None:
        """Take over, as a Reader does.

        :param entry: what is to be logged; None where there is no access log.
        :param length: gives how many bytes of the body there are in what is written.
        """
        super().__init__(channel, audience, version)
        self._entry = entry
        self._length = length
        self._sent = 0
        self._send = self.write
        if entry is not None:
            self.write = self._count

    def _count(self, data: bytes) -> None:
        self._sent += self._length(data)
        self._send(data)

    def connectionLost(self, reason: Any) -> None:
        """Be told nothing any more, and have that logged."""
        super().connectionLost(reason)
        self._channel.site.log_entry(self._entry, self.status, self._sent)
