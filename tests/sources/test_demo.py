"""The made-up election."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from livestate.documents.snapshot import check
from livestate.errors import SettingsError
from livestate.sources.api import ISource
from livestate.sources.demo import COUNTING, NIGHT, DemoSource, state_at
from livestate.sources.factory import make_source
from tests.support import few, many, result_of

seconds = st.integers(0, 4_000_000_000)
seeds = st.integers(0, 10**12)


def fetched(seed, second):
    """Return the document that the source fetches at a second."""
    clock = Clock()
    clock.rightNow = second + 0.5
    return result_of(DemoSource(clock, f"demo:?seed={seed}", 10**6).fetch())


class DemoTests(SynchronousTestCase):
    """The generated document."""

    def test_interface(self):
        """DemoSource implements ISource."""
        source = DemoSource(Clock(), "demo:", 100)
        verifyObject(ISource, source)
        self.assertEqual(str(source), "demo:")
        source.close()

    @many
    @given(seeds, seconds)
    def test_valid(self, seed, second):
        """At any second of any night the document is valid, has two to six kilobytes, and its sums are right."""
        data = fetched(seed, second)
        check(data, 6_000)
        self.assertGreater(len(data), 2_000)
        state = json.loads(data)
        parties, places = state["parties"], state["places"].values()
        self.assertEqual(state["votes"], sum(party["votes"] for party in parties.values()))
        for name, party in parties.items():
            self.assertEqual(party["votes"], sum(place["votes"][name] for place in places))
        self.assertEqual(sum(party["seats"] for party in parties.values()), sum(bool(p["leader"]) for p in places))
        self.assertTrue(all(0 <= place["counted_percent"] <= 100 for place in places))

    @few
    @given(seeds, seconds)
    def test_changes(self, seed, second):
        """The document changes every second."""
        self.assertNotEqual(fetched(seed, second), fetched(seed, second + 1))

    @few
    @given(seeds, st.integers(0, 4_000_000), st.integers(0, COUNTING - 2))
    def test_few_places_report(self, seed, night, elapsed):
        """Within a night most places stay unchanged from one second to the next, and nothing is null."""
        now, later = (state_at(seed, night * NIGHT + second) for second in (elapsed, elapsed + 1))
        moved = [name for name, place in now["places"].items() if later["places"][name] != place]
        self.assertLess(len(moved), len(now["places"]) / 2)
        self.assertNotIn("null", json.dumps(later))

    @few
    @given(seeds, seconds)
    def test_deterministic(self, seed, second):
        """Two servers with the same seed show the same document; another seed gives another night."""
        self.assertEqual(fetched(seed, second), fetched(seed, second))
        self.assertNotEqual(state_at(seed, second)["places"], state_at(seed + 1, second)["places"])

    @few
    @given(seeds, st.integers(0, 4_000_000), st.integers(0, NIGHT - 2))
    def test_counting(self, seed, night, elapsed):
        """During a night votes are only ever added, and when counting ends all are counted."""
        now, later = (state_at(seed, night * NIGHT + second) for second in (elapsed, elapsed + 1))
        for name, place in now["places"].items():
            later_votes = later["places"][name]["votes"]
            self.assertTrue(all(votes <= later_votes[party] for party, votes in place["votes"].items()))
        self.assertEqual(state_at(seed, night * NIGHT + COUNTING)["counted_percent"], 100.0)

    def test_starts_low_and_ends(self):
        """A night ends with all votes counted, and the next one starts with few."""
        last, first = state_at(1, 5 * NIGHT - 1), state_at(1, 5 * NIGHT)
        self.assertEqual(last["counted_percent"], 100.0)
        self.assertLess(first["counted_percent"], 15.0)

    def test_wrong_seeds(self):
        """A seed that is not a number, and an unknown or repeated parameter, are refused in one line."""
        for url in ("demo:?seed=x", "demo:?seed=-1", "demo:?seed=%C2%B2", "demo:?seed=", "demo:?seed=" + "9" * 5000,
                    "demo:?sed=1", "demo:?seed=1&seed=2"):  # fmt: skip
            error = self.assertRaises(SettingsError, make_source, Clock(), url, 100)
            self.assertEqual(len(str(error).splitlines()), 1)
        make_source(Clock(), "demo:?seed=7", 100)
