"""Work that is done every second, when the second changes."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service


class Ticker(Service):
    """Calls functions just after each full second of the clock, so a `Date` made then is valid for a second."""

    def __init__(self, clock: Any, callbacks: Sequence[Callable[[], None]]) -> None:
        self._clock = clock
        self._callbacks = callbacks
        self._call: Any = None

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
        for callback in self._callbacks:
            callback()
