"""Work for thousands of connections, done bit by bit so that polling clients are served in between.

In each turn of the reactor, all such work together gets one SLICE of time, which Twisted's Cooperator divides among it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.task import Cooperator
from twisted.logger import Logger

#: Seconds per turn of the reactor. A response to a polling client takes 10 µs, so a client waits no longer than it
#: would for the responses to a few hundred others.
SLICE = 0.002


class BroadcastScheduler:
    """Runs the broadcasts of one process cooperatively."""

    log = Logger()

    def __init__(self, clock: Any) -> None:
        self.seconds: Callable[[], float] = clock.seconds
        self._cooperator = Cooperator(self._slice, lambda step: clock.callLater(0, step))

    def spread(self, work: Iterator[None]) -> None:
        """Run `work` bit by bit, alternating with other such work, for a slice of time per turn of the reactor."""
        self._cooperator.coiterate(work).addErrback(
            lambda failure: self.log.failure("a broadcast failed; retrying within a second", failure)
        )

    def _slice(self) -> Callable[[], bool]:
        end = self.seconds() + SLICE
        return lambda: self.seconds() >= end
