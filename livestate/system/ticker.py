"""Work that is done every second, when the second changes."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger


class Ticker(Service):
    """Calls functions just after each full second of the clock, so a `Date` made then is valid for a second.

    One that raises does not keep the others from being called. Its failure is logged once, until it works again.
    """

    log = Logger()

    def __init__(self, clock: Any, callbacks: Sequence[Callable[[], None]]) -> None:
        self._clock = clock
        self._callbacks = callbacks
        self._call: Any = None
        #: The positions of the functions whose last call raised.
        self._failing: set[int] = set()

    def startService(self) -> None:
        """Start ticking."""
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """Stop ticking."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._call = self._clock.callLater(1.0 - self._clock.seconds() % 1.0, self._tick)

    def _tick(self) -> None:
        self._schedule()
        for number, callback in enumerate(self._callbacks):
            try:
                callback()
            except Exception:
                if number not in self._failing:
                    self._failing.add(number)
                    self.log.failure("what is done every second has failed; trying again every second")
            else:
                self._failing.discard(number)
