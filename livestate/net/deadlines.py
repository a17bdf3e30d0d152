"""
Many deadlines, one timer.

Theory of operation
===================

A connection has a deadline during its handshake, and again while it waits for its
peer's close_notify.  Hardly any deadline is ever reached.  One delayed call per
connection would cost 0.8 us to create and cancel, and a place in the reactor's heap.
Instead, all deadlines are kept in one dictionary, which one delayed call a second
sweeps while it is not empty.  An item expires up to a second late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall

__all__ = ["Deadlines"]

Item = TypeVar("Item")

# Seconds.
_SWEEP_INTERVAL = 1.0


class Deadlines(Generic[Item]):
    """
    Call `expire` with each item whose deadline passes before it is discarded.

    @param clock: an `IReactorTime`.
    @param expire: called from the clock, at most `_SWEEP_INTERVAL` seconds late.
    """

    def __init__(self, clock: Any, expire: Callable[[Item], object]) -> None:
        self._clock = clock
        self._expire = expire
        self._due: dict[Item, float] = {}
        self._next_sweep: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: Item, seconds: float) -> None:
        """Set the deadline of `item` to `seconds` from now, replacing any earlier one."""
        self._due[item] = self._clock.seconds() + seconds
        if self._next_sweep is None:
            self._next_sweep = self._clock.callLater(_SWEEP_INTERVAL, self._sweep)

    def discard(self, item: Item) -> None:
        """Remove the deadline of `item`, if it has one."""
        self._due.pop(item, None)
        if not self._due and self._next_sweep is not None:
            # A timer left behind would make the reactor dirty in users' tests
            # and wake up an idle process.
            self._next_sweep.cancel()
            self._next_sweep = None

    def _sweep(self) -> None:
        self._next_sweep = None
        now = self._clock.seconds()
        overdue = [item for item, due in self._due.items() if due <= now]
        try:
            for item in overdue:
                # Expiring an earlier item may have discarded this one.
                if self._due.pop(item, None) is not None:
                    self._expire(item)
        finally:
            # If one raised, the clock logs it, and the next sweep continues.
            if self._due and self._next_sweep is None:
                self._next_sweep = self._clock.callLater(_SWEEP_INTERVAL, self._sweep)
