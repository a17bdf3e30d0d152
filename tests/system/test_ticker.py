"""Tests of the ticker."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.ticker import Ticker
from tests.support import few


class TickerTests(SynchronousTestCase):
    """When it ticks."""

    def ticker(self, now):
        self.clock = Clock()
        self.clock.rightNow = now
        self.ticks: list[float] = []
        ticker = Ticker(self.clock, [lambda: self.ticks.append(self.clock.seconds())])
        ticker.startService()
        return ticker

    @few
    @given(st.floats(0, 2e9))
    def test_just_after_the_second(self, now):
        """Started at any moment, it ticks once per full second, just after it."""
        ticker = self.ticker(now)
        for _ in range(40):
            self.clock.advance(0.1)
        ticker.stopService()
        for tick in self.ticks:
            self.assertLess(abs(tick - round(tick)), 0.101)
        self.assertIn(len(self.ticks), (3, 4, 5))
        self.assertEqual(len({int(tick + 1e-6) for tick in self.ticks}), len(self.ticks))

    def test_drift(self):
        """A late tick does not delay the following ones."""
        ticker = self.ticker(100.25)
        self.clock.advance(0.75)
        self.clock.advance(1.4)
        self.clock.advance(0.6)
        self.assertEqual([round(tick, 6) for tick in self.ticks], [101.0, 102.4, 103.0])
        ticker.stopService()

    def test_all_in_order(self):
        """All functions are called, in order."""
        clock = Clock()
        called: list[int] = []
        ticker = Ticker(clock, [lambda: called.append(1), lambda: called.append(2)])
        ticker.startService()
        self.assertEqual(called, [])
        clock.advance(1)
        self.assertEqual(called, [1, 2])
        ticker.stopService()

    def test_failure(self):
        """A function that raises stops neither the ticks nor the other functions, and is logged once."""
        clock = Clock()
        called: list[float] = []

        def fail():
            if clock.seconds() != 3:
                raise ZeroDivisionError

        ticker = Ticker(clock, [fail, lambda: called.append(clock.seconds())])
        ticker.startService()
        clock.pump([1] * 5)
        self.assertEqual(called, [1, 2, 3, 4, 5])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        ticker.stopService()

    def test_stop(self):
        """After a stop it no longer ticks and leaves nothing behind; it may be stopped twice."""
        ticker = self.ticker(5.5)
        ticker.stopService()
        ticker.stopService()
        self.clock.advance(3)
        self.assertEqual((self.ticks, self.clock.getDelayedCalls()), ([], []))
