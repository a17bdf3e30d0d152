"""Dropping all responses when the second is over, at a cost that depends on how many were made in it.

If thousands were made, they are dropped for a slice of time per turn of the reactor, so that clients are answered in
between. The last of them are then some milliseconds older than a second, which their `Date` and age, in whole seconds,
cannot show.
"""

from typing import Any, Protocol

#: Seconds per turn of the reactor, in which some 200 variants are renewed.
SLICE = 0.002

#: Variants that are renewed between two readings of the clock.
BATCH = 16


class Renewable(Protocol):
    """Something that makes responses and keeps them for a second at most."""

    def renew(self) -> None:
        """Drop the responses, and count how often they were sent."""

    def settle(self) -> None:
        """Count how often the responses were sent, and keep them."""


class Renewals:
    """Those that have made a response since the last renewal.

    Only they have something to drop or to count: what was sent since then was made since then.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._active: set[Renewable] = set()
        #: Those that are being renewed.
        self._due: list[Renewable] = []
        self.add = self._active.add

    def __len__(self) -> int:
        return len(self._active) + len(self._due)

    def renew(self) -> None:
        """Renew all of them, and forget them until they make a response again."""
        working = bool(self._due)
        self._due += self._active
        self._active.clear()
        if not working:
            self._continue()

    def settle(self) -> None:
        """Count what all of them have sent."""
        for renewable in [*self._active, *self._due]:
            renewable.settle()

    def _continue(self) -> None:
        end = self._clock.seconds() + SLICE
        while self._due:
            batch = self._due[-BATCH:]
            del self._due[-BATCH:]
            for renewable in batch:
                renewable.renew()
            if self._clock.seconds() >= end and self._due:
                self._clock.callLater(0, self._continue)
                return
