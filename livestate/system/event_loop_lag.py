"""How late the reactor is: what a reader waits for while it does something else."""

from typing import Any

from twisted.application.service import Service

from livestate.system.histogram import Histogram

#: Seconds between two looks. What holds the reactor up for longer than this is always seen, and what is shorter as
#: often as it fills the time.
PERIOD = 0.25


class EventLoopLag(Service):
    """Has itself called in time, and counts how much later that was."""

    def __init__(self, clock: Any) -> None:
        self.histogram = Histogram()
        self._clock = clock
        self._due = 0.0
        self._call: Any = None

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """End."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + PERIOD
        self._call = self._clock.callLater(PERIOD, self._look)

    def _look(self) -> None:
        self.histogram.observe(self._clock.seconds() - self._due)
        self._schedule()
