"""Histograms, the event loop's lag, and sums of counters over processes."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.event_loop_lag import PERIOD, EventLoopLag
from livestate.system.histogram import BOUNDS, Histogram
from livestate.web.counts import Counts, total
from tests.support import few

NUMBERS = st.integers(0, 2**40)
HISTOGRAMS = st.lists(st.sampled_from([0.0, 0.001, 0.002, 0.5, 3.0, 60.0]), max_size=5)


def histogram(times):
    result = Histogram()
    for seconds in times:
        result.observe(seconds)
    return result


class HistogramTests(SynchronousTestCase):
    """Durations, counted by bucket."""

    def test_bounds_are_inclusive(self):
        """A time is counted in the first bucket whose bound it does not exceed, and in all later ones."""
        observed = histogram([0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] + 1])
        pairs = observed.cumulative()
        self.assertEqual(pairs[:2], [("0.001", 2.0), ("0.0025", 3.0)])
        self.assertEqual(pairs[-2:], [("10.0", 4.0), ("+Inf", 5.0)])

    def test_clock_set_back(self):
        """A negative time counts as 0."""
        observed = histogram([-5.0])
        self.assertEqual((observed.sum, observed.counts[0]), (0.0, 1))

    def test_not_shared(self):
        """Histograms share no counters."""
        histogram([1.0])
        self.assertEqual(sum(Histogram().counts), 0)


class LagTests(SynchronousTestCase):
    """How late the event loop is."""

    def test_lateness(self):
        """The lag is 0 while calls are on time, and otherwise as long as the loop was blocked."""
        clock = Clock()
        lag = EventLoopLag(clock)
        lag.startService()
        for _ in range(4):
            clock.advance(PERIOD)
        self.assertEqual((lag.histogram.sum, lag.histogram.counts[0]), (0.0, 4))
        clock.advance(PERIOD + 0.3)
        self.assertAlmostEqual(lag.histogram.sum, 0.3)
        self.assertEqual(dict(lag.histogram.cumulative())["0.25"], 4.0)
        lag.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])


@st.composite
def counts(draw):
    """Generate the counters of a process."""
    fields = {
        "documents": draw(
            st.dictionaries(
                st.sampled_from(["/", "/a", "/b"]),
                st.fixed_dictionaries(
                    {
                        "answers": st.dictionaries(st.sampled_from(["br", "304", "503"]), NUMBERS),
                        "events_sent": NUMBERS,
                        "event_readers": NUMBERS,
                        "delivery": HISTOGRAMS.map(lambda times: msgspec.to_builtins(histogram(times))),
                    }
                ),
            )
        ),
        "connections": draw(NUMBERS),
        "connections_accepted": draw(NUMBERS),
        "lag": msgspec.to_builtins(histogram(draw(HISTOGRAMS))),
    }
    return msgspec.convert(fields, Counts)


class CountsTests(SynchronousTestCase):
    """Counters of processes, and their sums."""

    @few
    @given(counts(), counts())
    def test_sum(self, one, other):
        """Every number is the sum of both, in either order."""
        whole = total([one, other])
        self.assertEqual(whole.connections, one.connections + other.connections)
        self.assertEqual(set(whole.documents), set(one.documents) | set(other.documents))
        for path, document in whole.documents.items():
            parts = [part.documents[path] for part in (one, other) if path in part.documents]
            self.assertEqual(document.events_sent, sum(part.events_sent for part in parts))
            for kind, number in document.answers.items():
                self.assertEqual(number, sum(part.answers.get(kind, 0) for part in parts))
            self.assertEqual(sum(document.delivery.counts), sum(sum(part.delivery.counts) for part in parts))
        self.assertEqual(whole, total([other, one]))
        self.assertEqual(total([one]), one)

    @few
    @given(counts(), counts())
    def test_parts_are_unchanged(self, one, other):
        """Adding does not change the parts, which are still in use."""
        before = msgspec.json.encode([one, other])
        total([one, other, one])
        self.assertEqual(msgspec.json.encode([one, other]), before)

    @few
    @given(counts())
    def test_past(self, one):
        """The totals of a process that is gone remain; its current values are 0."""
        past = one.past()
        self.assertEqual(past.connections, 0)
        self.assertEqual((past.connections_accepted, past.lag), (one.connections_accepted, one.lag))
        for path, document in past.documents.items():
            self.assertEqual((document.event_readers, document.long_polls), (0, 0))
            self.assertEqual(document.answers, one.documents[path].answers)

    @few
    @given(counts())
    def test_round_trip(self, one):
        """Counters survive encoding and decoding."""
        self.assertEqual(msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Counts), one)
