"""Dropping all responses when the second is over, at a cost that depends on how many were made in it."""

from typing import Protocol


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

    def __init__(self) -> None:
        self._active: set[Renewable] = set()
        self.add = self._active.add

    def __len__(self) -> int:
        return len(self._active)

    def renew(self) -> None:
        """Renew all of them, and forget them until they make a response again."""
        active = list(self._active)
        self._active.clear()
        for renewable in active:
            renewable.renew()

    def settle(self) -> None:
        """Count what all of them have sent."""
        for renewable in list(self._active):
            renewable.settle()
