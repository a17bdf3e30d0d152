"""Tests of periodic tasks."""

import re
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import livestate
from livestate.system.periodic import PeriodicTask
from tests.support import log_lines


class PeriodicTaskTests(SynchronousTestCase):
    """When the function is called, and what is logged."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.called: list[float] = []
        self.outcome: Any = None
        self.task = PeriodicTask(self.clock, self.call, "testing")
        self.addCleanup(self.task.stop)

    def call(self) -> Any:
        self.called.append(self.clock.seconds())
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def test_interval(self) -> None:
        """The function is called every interval, from now or an interval later, until the task is stopped."""
        self.task.start(2, now=False)
        self.assertTrue(self.task.running)
        self.clock.pump([1] * 5)
        self.task.stop()
        self.task.stop()
        self.clock.pump([1] * 5)
        self.task.start(2)
        self.assertEqual(self.called, [2, 4, 10])
        self.task.stop()
        self.assertFalse(self.task.running)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """A function that raises is called again at each interval; that is logged once, and so is its recovery."""
        with log_lines() as lines:
            self.outcome = ZeroDivisionError()
            self.task.start(1)
            self.clock.pump([1] * 3)
            self.assertEqual(lines, ["testing failed; trying again every 1 s"])
            self.outcome = KeyError()
            self.clock.pump([1] * 3)
            self.assertEqual(len(lines), 2)
            self.outcome = None
            self.clock.pump([1] * 3)
            self.assertEqual(lines[2:], ["testing works again"])
            self.outcome = ZeroDivisionError()
            self.clock.pump([1] * 3)
        self.assertEqual(len(lines), 4)
        self.assertEqual(self.called, [*range(13)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_deferred(self) -> None:
        """A call that takes longer than the interval delays the next one, and may fail as well."""
        self.outcome = Deferred()
        self.task.start(1)
        self.clock.pump([1] * 3)
        self.assertEqual(self.called, [0])
        waiting, self.outcome = self.outcome, None
        with log_lines() as lines:
            waiting.errback(ZeroDivisionError())
        self.assertEqual(lines, ["testing failed; trying again every 1 s"])
        self.clock.advance(1)
        self.assertEqual(self.called, [0, 4])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_coroutine(self) -> None:
        """The function may be a coroutine."""

        async def call() -> None:
            self.call()

        self.outcome = ZeroDivisionError()
        task = PeriodicTask(self.clock, call, "testing")
        task.start(1)
        self.clock.pump([1] * 2)
        task.stop()
        self.assertEqual(self.called, [0, 1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stops_itself(self) -> None:
        """The function may stop its own task, even if it then raises."""

        def call() -> None:
            self.task.stop()
            raise ZeroDivisionError

        self.task = PeriodicTask(self.clock, call, "testing")
        self.task.start(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LoopingCallTests(SynchronousTestCase):
    """The source of livestate."""

    def test_nowhere_else(self) -> None:
        """No other module uses a LoopingCall, except the poller, whose function handles all of its errors."""
        package = Path(livestate.__file__).parent
        users = {
            str(path.relative_to(package))
            for path in package.rglob("*.py")
            if re.search(r"^(from|import) .*\bLoopingCall\b", path.read_text(encoding="utf-8"), re.MULTILINE)
        }
        self.assertEqual(users - {"documents/poller.py"}, {"system/periodic.py"})
