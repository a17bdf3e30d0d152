"""All broadcasts of one process, and the check of their subscribers every second.

Only broadcasts with subscribers are checked, so the many documents that no one follows cost nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service

from livestate.documents.document import Document
from livestate.system.periodic import PeriodicTask
from livestate.web.streams.broadcast import Broadcast, SubscriberGroup
from livestate.web.streams.broadcast_scheduler import BroadcastScheduler

#: Maximum seconds between two checks of all subscribers. A check of 15,000 takes about 2 ms: 0.2 % of a second.
CHECK_INTERVAL = 1.0


class Streams(Service):
    """All broadcasts of this process, which share one scheduler."""

    def __init__(self, clock: Any, heartbeat: float) -> None:
        """:param heartbeat: the maximum seconds without an event until a subscriber is sent a heartbeat."""
        self.scheduler = BroadcastScheduler(clock)
        self.heartbeat = heartbeat
        #: The groups that have subscribers (a set that keeps its order).
        self._groups: dict[SubscriberGroup, None] = {}
        self._stop_callbacks: dict[object, Callable[[], None]] = {}
        self._checking = False
        self._task = PeriodicTask(clock, self._check, "checking the subscribers of streams")

    def broadcast(
        self, document: Document, servable: Callable[[], object], touched: Callable[[], object] = lambda: None
    ) -> Broadcast:
        """Return a new Broadcast of `document`.

        :param servable: returns whether the document may be served now.
        :param touched: called when one of the broadcast's counts has changed.
        """
        return Broadcast(self.scheduler, self.heartbeat, document, servable, self._groups, touched)

    def on_stop(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the service stops; return a function that undoes this."""
        key = object()
        self._stop_callbacks[key] = callback
        return lambda: self._stop_callbacks.pop(key, None) and None

    def startService(self) -> None:
        """Start checking the subscribers."""
        super().startService()
        self._task.start(min(CHECK_INTERVAL, self.heartbeat / 4), now=False)

    def stopService(self) -> None:
        """Close all streams."""
        super().stopService()
        self._task.stop()
        for group in list(self._groups):
            group.end()
        for callback in list(self._stop_callbacks.values()):
            callback()

    def _check(self) -> None:
        if not self._checking:
            self._checking = True
            self.scheduler.spread(self._check_all(self.scheduler.seconds()))

    def _check_all(self, now: float) -> Iterator[None]:
        try:
            for group in list(self._groups):
                yield from group.check(now)
        finally:
            self._checking = False
