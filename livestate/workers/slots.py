"""All places, and whether there is a worker that serves in each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.logger import Logger

from livestate.workers.slot import WorkerProcess, WorkerSlot

#: Beats without a worker that serves in each place after which that is said: more than a busy machine takes to start.
UNSERVED = 10


class WorkerSlots:
    """The places of one supervisor."""

    log = Logger()

    def __init__(self, count: int, reactor: Any, start: Callable[[WorkerSlot], WorkerProcess | None]) -> None:
        """:param start: as for Place."""
        self._places = [WorkerSlot(number, reactor, start) for number in range(count)]
        self._unserved = 0

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> WorkerSlot:
        return self._places[number]

    def fill(self) -> None:
        """Have a worker in each."""
        for place in self._places:
            place.fill()

    def take(self, workers: Sequence[WorkerProcess | None]) -> None:
        """Have these in them, in place of those before."""
        for place, worker in zip(self._places, workers, strict=True):
            place.take(worker)

    def vacate(self) -> None:
        """Have none in them any more."""
        for place in self._places:
            place.vacate()

    def serving(self) -> bool:
        """Tell whether there is a worker that serves in each."""
        return not self._lacking()

    def trouble(self) -> str:
        """Say how many have none that serves; "" if all have."""
        lacking = self._lacking()
        return f"{lacking} of {len(self._places)} workers not serving" if lacking else ""

    def beat(self) -> None:
        """Count a second; where some have had none that serves for long that is said, and its end."""
        if self.serving():
            if self._unserved >= UNSERVED:
                self.log.info("all workers serve")
            self._unserved = 0
            return
        self._unserved += 1
        if self._unserved == UNSERVED:
            self.log.error("for {seconds} s: {trouble}; others are tried, and the lines above say what becomes of them",
                           seconds=UNSERVED, trouble=self.trouble())  # fmt: skip

    def _lacking(self) -> int:
        return sum(place.worker is None or not place.worker.ready for place in self._places)
