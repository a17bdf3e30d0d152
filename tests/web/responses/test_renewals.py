"""Dropping responses when the second is over."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.web.responses.renewals import BATCH, SLICE, Renewals


class Variant:
    """Counts what is done with it, which takes a tenth of a millisecond."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.renewed = self.settled = 0

    def renew(self) -> None:
        self._clock.rightNow += 0.0001
        self.renewed += 1

    def settle(self) -> None:
        self.settled += 1


class RenewalsTests(SynchronousTestCase):
    """Some that have made responses."""

    def setUp(self):
        self.clock = Clock()
        self.renewals = Renewals(self.clock)

    def variants(self, count):
        """Return variants that have made a response."""
        made = [Variant(self.clock) for _ in range(count)]
        for variant in made:
            self.renewals.add(variant)
        return made

    def test_once(self):
        """Each is renewed once, however many responses it made, and not again before it makes another."""
        first, second = self.variants(2)
        self.renewals.add(first)
        for _ in range(3):
            self.renewals.renew()
        self.assertEqual((first.renewed, second.renewed), (1, 1))
        self.renewals.add(second)
        self.renewals.renew()
        self.assertEqual((first.renewed, second.renewed, len(self.renewals)), (1, 2, 0))

    def test_in_slices(self):
        """Many are renewed in slices of time, with turns of the reactor in between, also if the next second begins."""
        variants = self.variants(200)
        self.renewals.renew()
        self.assertEqual(sum(variant.renewed for variant in variants), 2 * BATCH)
        self.assertLess(self.clock.seconds(), 2 * SLICE)
        self.renewals.add(variants[0])
        self.renewals.renew()
        turns = 0
        while self.clock.getDelayedCalls():
            # One turn: with `advance`, the calls that are made meanwhile would be due too.
            (call,) = self.clock.calls
            self.clock.calls.clear()
            call.func()
            turns += 1
        self.assertGreater(turns, 4)
        self.assertEqual(len(self.renewals), 0)
        self.assertTrue(all(variant.renewed for variant in variants))

    def test_settle(self):
        """All are counted that may have sent a response since their last renewal."""
        variants = self.variants(200)
        self.renewals.renew()
        self.renewals.settle()
        self.assertTrue(all(variant.renewed or variant.settled for variant in variants))
