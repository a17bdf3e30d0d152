"""One worker's place, in a time that stands still until it is told to go on."""

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.counts import Counts
from livestate.workers.messages import Alive, Hello, LogEntry, frame
from livestate.workers.slot import DELAYS, GOOD, SILENT, STARTING, WorkerProcess, WorkerSlot
from tests.support import log_lines


class PlaceTests(SynchronousTestCase):
    """A place, and the workers that were started for it."""

    def setUp(self):
        self.clock = Clock()
        self.started: list[WorkerProcess] = []
        self.killed: list[int] = []
        self.possible = True
        self.patch(os, "kill", lambda pid, number: self.killed.append(pid))
        self.place = WorkerSlot(0, self.clock, self.begin)

    def begin(self, place: WorkerSlot) -> WorkerProcess | None:
        """Start a worker."""
        if not self.possible:
            return None
        worker = WorkerProcess(self.clock, place.number, place.lost, lambda: None)
        transport: Any = StringTransport()
        transport.abortConnection = lambda: worker.pipe.connectionLost(None)
        worker.pipe.makeConnection(transport)
        self.started.append(worker)
        return worker

    def hear(self, message: Any) -> None:
        """Let the newest worker say something."""
        self.started[-1].pipe.dataReceived(frame(message))

    def die(self) -> None:
        """Let the newest worker end."""
        self.started[-1].pipe.connectionLost(None)

    def beat(self, times: int) -> None:
        """Let seconds pass."""
        for _ in range(times):
            if self.place.worker is not None:
                self.place.worker.beat()

    def test_replaced_at_once(self):
        """The first that is gone is replaced at once, and so is each that lasted."""
        self.place.fill()
        for count in range(2, 6):
            self.hear(Hello(7))
            for _ in range(GOOD):
                self.hear(Alive(Counts()))
                self.beat(1)
            self.die()
            self.assertEqual(len(self.started), count)
        self.assertEqual((self.place.restarts, self.place.unresponsive), (4, 0))

    def test_backoff(self):
        """Workers that do not last come at growing pauses, bounded, and that is logged once."""
        with log_lines() as lines:
            self.place.fill()
            self.die()
            self.assertEqual(len(self.started), 2)
            for count in range(3, 30):
                self.die()
                self.assertEqual(len(self.started), count - 1)
                self.clock.advance(DELAYS[1])
                self.assertEqual(len(self.started), count)
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("does not last", lines[1])

    def test_silent(self):
        """One that gives no sign of life for long enough is killed and replaced; a sign of life counts from anew."""
        self.place.fill()
        self.hear(Hello(7))
        self.beat(SILENT - 1)
        self.hear(Alive(Counts(connections=3)))
        self.assertEqual(self.started[0].counts.connections, 3)
        self.beat(SILENT - 1)
        self.assertEqual(self.killed, [])
        self.beat(1)
        self.assertEqual(self.killed, [7])
        self.assertEqual((self.place.restarts, self.place.unresponsive), (1, 1))
        self.assertEqual(len(self.started), 2)
        self.assertFalse(self.started[1].gone)

    def test_ended_just_now(self):
        """One that has ended, which is not seen yet, is replaced when it is to be killed."""

        def nobody(pid: int, number: int) -> None:
            raise ProcessLookupError

        self.patch(os, "kill", nobody)
        self.place.fill()
        self.hear(Hello(7))
        self.beat(SILENT)
        self.assertEqual(len(self.started), 2)

    def test_start_takes_time(self):
        """One that is still starting is given more time, and then its pipe is closed."""
        self.place.fill()
        self.beat(STARTING - 1)
        self.assertFalse(self.started[0].gone)
        self.beat(1)
        self.assertTrue(self.started[0].gone)
        self.assertEqual(self.killed, [])

    def test_cannot_start(self):
        """Where none can be started it is tried again."""
        self.possible = False
        self.place.fill()
        self.assertEqual(self.started, [])
        self.possible = True
        self.clock.advance(DELAYS[1])
        self.assertEqual(len(self.started), 1)

    def test_vacated(self):
        """A place that was vacated stays empty."""
        self.place.fill()
        self.place.vacate()
        self.assertIsNone(self.place.worker)
        self.beat(100)
        self.place.fill()
        self.die()
        self.die()
        self.place.vacate()
        self.clock.advance(100)
        self.assertEqual(len(self.started), 3)

    def test_said(self):
        """What a worker says is logged, with its number."""
        self.place.fill()
        with log_lines() as lines:
            self.hear(LogEntry("warn", "the {disk} is full"))
        self.assertEqual(lines, ["worker 1: the {disk} is full"])
