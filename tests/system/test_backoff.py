"""Tests of growing, jittered delays."""

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.backoff import Backoff
from tests.support import few


class BackoffTests(SynchronousTestCase):
    """The delays."""

    @few
    @given(st.floats(0.001, 5), st.floats(0.001, 50), st.integers(1, 40))
    def test_bounds(self, first, limit, failures):
        """Each delay is between half and all of a ceiling that doubles up to the limit."""
        backoff = Backoff(first=first, limit=limit)
        for count in range(failures):
            ceiling = min(limit, first * 2**count)
            delay = backoff.next_delay()
            self.assertGreaterEqual(delay, 0.5 * ceiling)
            self.assertLessEqual(delay, ceiling)

    def test_uniform(self):
        """Each delay is drawn from the whole of its range, so that two servers do not come back in step."""
        backoff = Backoff(first=1.0, limit=1.0)
        delays = [backoff.next_delay() for _ in range(400)]
        self.assertLess(min(delays), 0.55)
        self.assertGreater(max(delays), 0.95)
        self.assertGreater(len(set(delays)), 390)

    def test_reset(self):
        """After a success the delays start over."""
        with mock.patch("random.uniform", return_value=1.0):
            backoff = Backoff(first=0.25, limit=1.5)
            self.assertEqual([backoff.next_delay() for _ in range(5)], [0.25, 0.5, 1.0, 1.5, 1.5])
            backoff.reset()
            self.assertEqual(backoff.next_delay(), 0.25)

    def test_a_week_of_failures(self):
        """After any number of failures, the delay is a number within the limit."""
        backoff = Backoff(first=0.25, limit=1.5)
        backoff.failures = 10_000_000
        self.assertLessEqual(backoff.next_delay(), 1.5)
        self.assertEqual(backoff.failures, 10_000_001)
