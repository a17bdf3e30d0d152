"""Fairness between clients: the remaining requests of a flood are answered after the other clients had their turn.

Theory of operation. A client that sends a hundred requests in one piece would keep all others waiting until they are
answered; fifty such clients kept them waiting for 0.3 s (`tests/soak/attackers.py`, "floods"). So a channel answers a
few, and continues when its turn in this queue comes. In each turn of the reactor the queue gets one SLICE of time. So
however many requests are in the queue, a client that sends one request at a time waits only one slice longer.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

#: Seconds per turn of the reactor for queued channels: enough for ten requests on twisted.web's path.
SLICE = 0.001


class FairScheduler:
    """The queue of the channels that have more requests to answer."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` when its turn comes, not before the reactor's next turn.

        :param resume: must not raise.
        """
        self._waiting.append(resume)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._run)

    def _run(self) -> None:
        self._scheduled = False
        end = self._clock.seconds() + SLICE
        # Channels that are added meanwhile wait for the next turn.
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()
            if self._clock.seconds() >= end:
                break
        if self._waiting:
            self._schedule()
