"""How late the reactor runs its timers: the time that every client waits while the reactor is busy."""

from typing import Any

from twisted.application.service import Service

from livestate.system.histogram import Histogram

#: Seconds between two measurements. A blockage that lasts longer than this is always seen; a shorter one with a
#: probability in proportion to its length.
PERIOD = 0.25


class EventLoopLag(Service):
    """Schedules a periodic timer, and records how late it fires."""

    def __init__(self, clock: Any) -> None:
        self.histogram = Histogram()
        self._clock = clock
        self._due = 0.0
        self._call: Any = None

    def startService(self) -> None:
        """Start measuring."""
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """Stop measuring."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + PERIOD
        self._call = self._clock.callLater(PERIOD, self._measure)

    def _measure(self) -> None:
        self.histogram.observe(self._clock.seconds() - self._due)
        self._schedule()
