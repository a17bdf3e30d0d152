"""Taking turns: the rest of what one reader asked for at once is done when others have had theirs.

Theory of operation. Whoever sends a hundred requests in one piece would keep all other readers waiting until they are
answered, and fifty such kept them waiting for 0.3 s (`tests/soak/attackers.py`, "floods"). So a channel answers a few,
and waits in this queue to go on. In each turn of the reactor the queue has a SLICE of time: whatever all of them
together ask for, those who ask for one thing at a time wait for a slice more.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

#: Seconds in each turn of the reactor for those who asked for much. A request that takes the long way takes 0.1 ms.
SLICE = 0.001


class FairScheduler:
    """The queue."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have `go_on`, which raises nothing, called when it is its turn, not before the reactor's next."""
        self._waiting.append(go_on)
        self._see_to_it()

    def _see_to_it(self) -> None:
        if not self._due:
            self._due = True
            self._clock.callLater(0, self._run)

    def _run(self) -> None:
        self._due = False
        end = self._clock.seconds() + SLICE
        # Who is put into it anew meanwhile waits for the next turn.
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()
            if self._clock.seconds() >= end:
                break
        if self._waiting:
            self._see_to_it()
