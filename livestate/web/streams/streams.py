"""All broadcasts of one process, and the check of their subscribers every second."""

from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service

from livestate.documents.document import Document
from livestate.system.periodic import PeriodicTask
from livestate.web.streams.broadcast import Broadcast
from livestate.web.streams.broadcast_scheduler import BroadcastScheduler

#: Maximum seconds between two checks of all subscribers. A check of 15,000 takes about 2 ms: 0.2 % of a second.
CHECK_INTERVAL = 1.0


class Streams(Service):
    """All broadcasts of this process, which share one scheduler."""

    def __init__(self, clock: Any, heartbeat: float) -> None:
        """:param heartbeat: the maximum seconds without an event until a subscriber is sent a heartbeat."""
        self.scheduler = BroadcastScheduler(clock)
        self.heartbeat = heartbeat
        self._broadcasts: list[Broadcast] = []
        self._stop_callbacks: list[Callable[[], None]] = []
        self._checking = False
        self._task = PeriodicTask(clock, self._check, "checking the subscribers of streams")

    def broadcast(self, document: Document, servable: Callable[[], object]) -> Broadcast:
        """Return a new Broadcast of `document`.

        :param servable: returns whether the document may be served now.
        """
        broadcast = Broadcast(self.scheduler, self.heartbeat, document, servable)
        self._broadcasts.append(broadcast)
        self.on_stop(broadcast.end)
        return broadcast

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the service stops."""
        self._stop_callbacks.append(callback)

    def startService(self) -> None:
        """Start checking the subscribers."""
        super().startService()
        self._task.start(min(CHECK_INTERVAL, self.heartbeat / 4), now=False)

    def stopService(self) -> None:
        """Close all streams."""
        super().stopService()
        self._task.stop()
        for callback in self._stop_callbacks:
            callback()

    def _check(self) -> None:
        if not self._checking:
            self._checking = True
            self.scheduler.spread(self._check_all(self.scheduler.seconds()))

    def _check_all(self, now: float) -> Iterator[None]:
        try:
            for broadcast in self._broadcasts:
                for group in broadcast.groups():
                    yield from group.check(now)
        finally:
            self._checking = False
