"""All worker slots, and whether each of them has a worker that is serving."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.logger import Logger

from livestate.workers.slot import WorkerSlot
from livestate.workers.worker_process import WorkerProcess

#: Seconds without a serving worker in each slot after which that is logged: longer than a start on a busy machine.
REPORT_AFTER = 10


class WorkerSlots:
    """The slots of one supervisor."""

    log = Logger()

    def __init__(self, count: int, reactor: Any, start: Callable[[WorkerSlot], WorkerProcess | None]) -> None:
        """:param start: starts a worker, as for WorkerSlot."""
        self._slots = [WorkerSlot(number, reactor, start) for number in range(count)]
        self._seconds_not_serving = 0

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, number: int) -> WorkerSlot:
        return self._slots[number]

    def fill(self) -> None:
        """Start a worker in each slot."""
        for slot in self._slots:
            slot.fill()

    def assign(self, workers: Sequence[WorkerProcess | None]) -> None:
        """Put one of `workers` into each slot, instead of the previous ones."""
        for slot, worker in zip(self._slots, workers, strict=True):
            slot.assign(worker)

    def clear(self) -> None:
        """Empty all slots, and leave them empty."""
        for slot in self._slots:
            slot.clear()

    def serving(self) -> bool:
        """Return whether each slot has a worker that is serving."""
        return not self._not_serving()

    def trouble(self) -> str:
        """Return how many slots have no serving worker, as text; "" if all have one."""
        count = self._not_serving()
        return f"{count} of {len(self._slots)} workers not serving" if count else ""

    def tick(self) -> None:
        """Count a second. Log when workers have been missing for long, and when all of them serve again."""
        if self.serving():
            if self._seconds_not_serving >= REPORT_AFTER:
                self.log.info("all workers are serving")
            self._seconds_not_serving = 0
            return
        self._seconds_not_serving += 1
        if self._seconds_not_serving == REPORT_AFTER:
            self.log.error("{trouble} for {seconds} s; still trying to start them, see the log lines above",
                           seconds=REPORT_AFTER, trouble=self.trouble())  # fmt: skip

    def _not_serving(self) -> int:
        return sum(slot.worker is None or not slot.worker.ready for slot in self._slots)
