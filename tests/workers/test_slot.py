"""A worker slot, on a clock that only the test advances."""

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.counts import Counts
from livestate.workers.messages import Alive, Hello, LogEntry, frame
from livestate.workers.slot import HEALTHY_AFTER, RESTART_DELAYS, WorkerSlot
from livestate.workers.worker_process import MAX_SILENCE, MAX_STARTUP, WorkerProcess
from tests.support import log_lines


class SlotTests(SynchronousTestCase):
    """A slot, and the workers that were started for it."""

    def setUp(self):
        self.clock = Clock()
        self.workers: list[WorkerProcess] = []
        self.killed: list[int] = []
        self.possible = True
        self.patch(os, "kill", lambda pid, number: self.killed.append(pid))
        self.slot = WorkerSlot(0, self.clock, self.start)

    def start(self, slot: WorkerSlot) -> WorkerProcess | None:
        """Start a worker, if that is possible."""
        if not self.possible:
            return None
        worker = WorkerProcess(self.clock, slot.number, slot.worker_exited, lambda: None)
        transport: Any = StringTransport()
        transport.abortConnection = lambda: worker.pipe.connectionLost(None)
        worker.pipe.makeConnection(transport)
        self.workers.append(worker)
        return worker

    def receive(self, message: Any) -> None:
        """Receive a message from the newest worker."""
        self.workers[-1].pipe.dataReceived(frame(message))

    def die(self) -> None:
        """Let the newest worker exit."""
        self.workers[-1].pipe.connectionLost(None)

    def pass_seconds(self, count: int) -> None:
        """Let seconds pass for the worker in the slot."""
        for _ in range(count):
            if self.slot.worker is not None:
                self.slot.worker.tick()

    def test_replaced_at_once(self):
        """The first worker that exits is replaced at once, and so is every worker that was healthy before."""
        self.slot.fill()
        for count in range(2, 6):
            self.receive(Hello(7))
            for _ in range(HEALTHY_AFTER):
                self.receive(Alive(Counts()))
                self.pass_seconds(1)
            self.die()
            self.assertEqual(len(self.workers), count)
        self.assertEqual((self.slot.restarts, self.slot.unresponsive), (4, 0))

    def test_backoff(self):
        """Workers that keep exiting are replaced after growing, bounded delays, and that is logged once."""
        with log_lines() as lines:
            self.slot.fill()
            self.die()
            self.assertEqual(len(self.workers), 2)
            for count in range(3, 30):
                self.die()
                self.assertEqual(len(self.workers), count - 1)
                self.clock.advance(RESTART_DELAYS[1])
                self.assertEqual(len(self.workers), count)
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("keeps exiting", lines[1])

    def test_silent(self):
        """A worker without a heartbeat for long enough is killed and replaced; each heartbeat resets the time."""
        self.slot.fill()
        self.receive(Hello(7))
        self.pass_seconds(MAX_SILENCE - 1)
        self.receive(Alive(Counts(connections=3)))
        self.assertEqual(self.workers[0].counts.connections, 3)
        self.pass_seconds(MAX_SILENCE - 1)
        self.assertEqual(self.killed, [])
        self.pass_seconds(1)
        self.assertEqual(self.killed, [7])
        self.assertEqual((self.slot.restarts, self.slot.unresponsive), (1, 1))
        self.assertEqual(len(self.workers), 2)
        self.assertFalse(self.workers[1].gone)

    def test_already_exited(self):
        """A silent worker that has already exited, unnoticed so far, is replaced."""

        def no_such_process(pid: int, number: int) -> None:
            raise ProcessLookupError

        self.patch(os, "kill", no_such_process)
        self.slot.fill()
        self.receive(Hello(7))
        self.pass_seconds(MAX_SILENCE)
        self.assertEqual(len(self.workers), 2)

    def test_start_takes_time(self):
        """A worker that is still starting has more time; then its pipe is closed."""
        self.slot.fill()
        self.pass_seconds(MAX_STARTUP - 1)
        self.assertFalse(self.workers[0].gone)
        self.pass_seconds(1)
        self.assertTrue(self.workers[0].gone)
        self.assertEqual(self.killed, [])

    def test_cannot_start(self):
        """When no worker can be started, starting is retried."""
        self.possible = False
        self.slot.fill()
        self.assertEqual(self.workers, [])
        self.possible = True
        self.clock.advance(RESTART_DELAYS[1])
        self.assertEqual(len(self.workers), 1)

    def test_cleared(self):
        """A cleared slot stays empty."""
        self.slot.fill()
        self.slot.clear()
        self.assertIsNone(self.slot.worker)
        self.pass_seconds(100)
        self.slot.fill()
        self.die()
        self.die()
        self.slot.clear()
        self.clock.advance(100)
        self.assertEqual(len(self.workers), 3)

    def test_log_entry(self):
        """A worker's log lines are logged with its number."""
        self.slot.fill()
        with log_lines() as lines:
            self.receive(LogEntry("warn", "the {disk} is full"))
        self.assertEqual(lines, ["worker 1: the {disk} is full"])
