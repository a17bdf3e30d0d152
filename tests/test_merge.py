"""Merge patches: what is patched is what was meant."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.merge import Inexpressible, apply, patch
from tests.support import many


def same(one, other):
    """Tell whether two values are the same JSON; true, 1 and 1.0 are three."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def has_null(value):
    """Tell whether a member of an object, outside arrays, is null."""
    return isinstance(value, dict) and any(inner is None or has_null(inner) for inner in value.values())


scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 1.5]), st.text(max_size=2))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=12,
)


class MergeTests(SynchronousTestCase):
    """RFC 7396."""

    @many
    @given(values, values)
    def test_round_trip(self, before, after):
        """Applying the patch between two values gives the second; without nulls in it there always is a patch."""
        kept = json.dumps(before)
        try:
            change = patch(before, after)
        except Inexpressible:
            self.assertTrue(has_null(after))
            return
        self.assertTrue(same(apply(before, change), after), (before, change, after))
        self.assertEqual(json.dumps(before), kept)

    @many
    @given(values)
    def test_nothing_changed(self, value):
        """Where nothing changed in an object, nulls in it or not, the patch is empty."""
        self.assertEqual(patch({"it": value}, {"it": value}), {})

    def test_vectors(self):
        """The test cases of the RFC's appendix A give the results that it lists."""
        for target, change, result in (
            ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
            ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
            ('{"a":"b"}', '{"a":null}', "{}"),
            ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
            ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
            ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
            ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
            ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
            ('["a","b"]', '["c","d"]', '["c","d"]'),
            ('{"a":"b"}', '["c"]', '["c"]'),
            ('{"a":"foo"}', "null", "null"),
            ('{"a":"foo"}', '"bar"', '"bar"'),
            ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
            ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
            ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
        ):
            self.assertEqual(apply(json.loads(target), json.loads(change)), json.loads(result), (target, change))

    def test_nulls(self):
        """A member that becomes null cannot be said; one that was null and stays can, and so can any in an array."""
        for before, after in (
            ({"a": 1}, {"a": None}),
            ({}, {"a": {"b": None}}),
            ([], {"a": None}),
            ({"a": 1}, {"a": {"b": None}}),
        ):
            self.assertRaises(Inexpressible, patch, before, after)
        self.assertEqual(patch({"a": None, "b": 1}, {"a": None, "b": 2}), {"b": 2})
        self.assertEqual(patch({"a": []}, {"a": [None, {"b": None}]}), {"a": [None, {"b": None}]})

    def test_smallest(self):
        """Only what changed is in the patch, at any depth."""
        before = {"title": "x" * 99, "parties": {"a": {"votes": 1, "seats": 2}, "b": {"votes": 1}}, "gone": [1]}
        after = {"title": "x" * 99, "parties": {"a": {"votes": 9, "seats": 2}, "b": {"votes": 1}}}
        self.assertEqual(patch(before, after), {"parties": {"a": {"votes": 9}}, "gone": None})
