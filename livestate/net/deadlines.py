"""
Many deadlines, one timer.

Theory of operation
===================

Each connection that shakes hands, or waits for its peer's goodbye, has a
deadline, and nearly none is ever reached.  A delayed call each would cost 0.8 us
(made and cancelled) and a place in the reactor's heap.  So the deadlines are in one
dictionary, and one delayed call a second walks it, as long as it is not
empty.  A deadline is met up to a second late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall

__all__ = ["Deadlines"]

Item = TypeVar("Item")

_SWEEP = 1.0


class Deadlines(Generic[Item]):
    """
    Calls `expire` with each item whose deadline passes before it is discarded.

    @param clock: an `IReactorTime`.
    @param expire: called from the clock, at most `_SWEEP` seconds late.
    """

    def __init__(self, clock: Any, expire: Callable[[Item], object]) -> None:
        self._clock = clock
        self._expire = expire
        self._due: dict[Item, float] = {}
        self._sweeping: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: Item, seconds: float) -> None:
        """Give `item` a deadline in `seconds`, in place of any it had."""
        self._due[item] = self._clock.seconds() + seconds
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(_SWEEP, self._sweep)

    def discard(self, item: Item) -> None:
        """Take back the deadline of `item`, if it has one."""
        self._due.pop(item, None)
        if not self._due and self._sweeping is not None:
            # No timer is left behind where nobody waits: tests of users would
            # find a dirty reactor, and an idle process would wake up.
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.seconds()
        overdue = [item for item, due in self._due.items() if due <= now]
        for item in overdue:
            # An earlier one's end may have ended this one too.
            if self._due.pop(item, None) is not None:
                self._expire(item)
        if self._due and self._sweeping is None:
            self._sweeping = self._clock.callLater(_SWEEP, self._sweep)
