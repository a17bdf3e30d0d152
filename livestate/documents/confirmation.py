"""When a store last confirmed its documents: one value for all documents of a store, not a timestamp in each."""

from collections.abc import Callable
from itertools import count

_numbers = count(1)


class Confirmation:
    """The time of the last confirmation that covers all documents sharing this object."""

    __slots__ = ("at", "number", "on_confirmed")

    def __init__(self) -> None:
        #: What names it in messages to other processes.
        self.number = next(_numbers)
        #: Seconds since 1970; 0: never.
        self.at = 0.0
        #: Called when `at` has changed.
        self.on_confirmed: Callable[[], None] = _ignore

    def confirm(self, at: float) -> None:
        """Record a confirmation at this time, in seconds since 1970."""
        self.at = at
        self.on_confirmed()


def _ignore() -> None:
    """Do nothing: the default for `on_confirmed`."""
