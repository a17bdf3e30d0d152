"""One connection that is sent a document's changes.

In the channel, a subscriber replaces twisted.web's request, which is released once the head of its response is written.
"""

from collections.abc import Callable
from typing import Any, Protocol

from livestate.net.stream import limit_buffering, unsent
from livestate.web.streams.connection import StreamConnection

#: Seconds after which a subscriber that reads none of its unsent data is disconnected. A phone that changes networks
#: reconnects on another connection anyway.
STUCK = 30.0


class Group(Protocol):
    """The part of a group that its subscribers use."""

    def add(self, subscriber: "Subscriber") -> None:
        """Send every change to `subscriber` from now on."""

    def remove(self, subscriber: "Subscriber") -> None:
        """Send nothing to `subscriber` from now on."""

    def catch_up(self, subscriber: "Subscriber") -> None:
        """Send `subscriber` the messages that it lacks, if any."""


class Subscriber:
    """A client of an event stream.

    The attributes `version`, `last` and `lead` belong to its group.
    """

    __slots__ = ("_connection", "_group", "_stuck_since", "_unsent", "last", "lead", "version", "writable", "write")

    def __init__(self, connection: StreamConnection, group: Group, version: int) -> None:
        """Take `connection` over from its request, before the head of the response is written.

        :param version: the version that the client has; 0 if it has none.
        """
        self.version = version
        #: Whether all data written so far was sent.
        self.writable = True
        #: When data was last written, and how many seconds before the limit its heartbeat is due.
        self.last = 0.0
        self.lead = 0.0
        self.write: Callable[[bytes], None] = connection.write_now
        self._connection = connection
        self._group = group
        self._unsent = 0
        self._stuck_since = 0.0
        connection.hand_over(self)
        limit_buffering(connection.transport)

    def start(self) -> None:
        """Send the messages that the client lacks, behind the head of the response, and every change from then on."""
        self._group.add(self)
        if self.writable:
            self._group.catch_up(self)

    def dataReceived(self, data: bytes) -> None:
        """Discard data from the client: nothing may follow the request."""

    def pauseProducing(self) -> None:
        """Skip this subscriber until it resumes: some data is unsent."""
        self.writable = False
        self._unsent = -1

    def resumeProducing(self) -> None:
        """Send the messages that the client missed."""
        self.writable = True
        self._group.catch_up(self)

    def stuck(self, now: float) -> bool:
        """Return whether the client, which is not writable, has read nothing for too long."""
        still_unsent = unsent(self._connection.transport)
        if still_unsent != self._unsent:
            self._unsent = still_unsent
            self._stuck_since = now
        return now - self._stuck_since >= STUCK

    def abort(self) -> None:
        """Close the connection now."""
        self._connection.abortConnection()

    def end(self, last: bytes) -> None:
        """Close the stream in an orderly way if the client has read everything, else abort it.

        :param last: the bytes that end the body.
        """
        self._group.remove(self)
        if self.writable:
            self.write(last)
            self.writable = False
            self._connection.loseConnection()
        else:
            self._connection.abortConnection()

    def connectionLost(self, reason: Any) -> None:
        """Leave the group."""
        self.writable = False
        self._group.remove(self)


class LoggedSubscriber(Subscriber):
    """A subscriber for which a line is written to the access log when its connection closes."""

    __slots__ = ("_length", "_log_line", "_send", "_sent")

    #: The response's status, as it is logged.
    status = 200

    def __init__(
        self,
        connection: StreamConnection,
        group: Group,
        version: int,
        log_line: Callable[[int, int], None] | None,
        length: Callable[[bytes], int],
    ) -> None:
        """Take the connection over, as Subscriber does.

        :param log_line: logs the request, given the status and the bytes of the body; None if there is no access log.
        :param length: returns how many of the bytes that are written belong to the body.
        """
        super().__init__(connection, group, version)
        self._log_line = log_line
        self._length = length
        self._sent = 0
        self._send = self.write
        if log_line is not None:
            self.write = self._count

    def _count(self, data: bytes) -> None:
        self._sent += self._length(data)
        self._send(data)

    def connectionLost(self, reason: Any) -> None:
        """Leave the group, and log the request."""
        super().connectionLost(reason)
        if self._log_line is not None:
            self._log_line(self.status, self._sent)
