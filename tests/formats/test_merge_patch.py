"""Making and applying merge patches."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.merge_patch import MAX_DEPTH, Inexpressible, apply, patch
from tests.support import many


def same(one, other):
    """Return whether two values are the same JSON; true, 1 and 1.0 all differ."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def has_null(value):
    """Return whether a member of an object, outside arrays, is null."""
    return isinstance(value, dict) and any(inner is None or has_null(inner) for inner in value.values())


scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 1.5]), st.text(max_size=2))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=12,
)


# Several ways to write the same JSON.
layouts = st.sampled_from(
    [{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False}, {"sort_keys": True, "indent": "\t"}]
)


class MergeTests(SynchronousTestCase):
    """Merge patches by RFC 7396."""

    @many
    @given(values, values, layouts, layouts)
    def test_round_trip(self, before, after, layout, other):
        """Applying the patch between two documents gives the second. Without nulls in that, there is always a patch."""
        original = json.dumps(before)
        try:
            change = patch(json.dumps(before, **layout).encode(), json.dumps(after, **other).encode())
        except Inexpressible:
            self.assertTrue(has_null(after))
            return
        self.assertTrue(same(apply(before, json.loads(change)), after), (before, change, after))
        self.assertEqual(json.dumps(before), original)

    @many
    @given(values, layouts)
    def test_nothing_changed(self, value, layout):
        """The patch between equal objects is empty, even with nulls in them or another order of members."""
        before = json.dumps({"it": value, "last": 1}, **layout).encode()
        after = json.dumps({"last": 1, "it": value}, **layout).encode()
        self.assertEqual(patch(before, after), b"{}")

    def test_vectors(self):
        """The test cases in the RFC's appendix A give the listed results."""
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
        """A patch cannot set a member to null. A member may stay null, and arrays may contain null."""
        for before, after in (
            (b'{"a":1}', b'{"a":null}'),
            (b"{}", b'{"a":{"b": null}}'),
            (b"[]", b'{"a":null}'),
            (b'{"a":1}', b'{"a":{"b":{"c":null}}}'),
        ):
            self.assertRaises(Inexpressible, patch, before, after)
        self.assertEqual(patch(b'{"a":null,"b":1}', b'{"a":null,"b":2}'), b'{"b":2}')
        self.assertEqual(patch(b'{"a":[]}', b'{"a":[null,{"b":null}]}'), b'{"a":[null,{"b":null}]}')
        self.assertEqual(patch(b"{}", b'{"a":{"b":"null"}}'), b'{"a":{"b":"null"}}')
        self.assertEqual(patch(b"{}", b"null"), b"null")

    def test_smallest(self):
        """At any depth, the patch contains only what changed."""
        before = b'{"title":"x","parties":{"a":{"votes":1,"seats":2},"b":{"votes":1}},"gone":[1]}'
        after = b'{"title":"x","parties":{"a":{"votes":9,"seats":2},"b":{"votes":1}}}'
        change = json.loads(patch(before, after))
        self.assertEqual(change, {"parties": {"a": {"votes": 9}}, "gone": None})

    def test_numbers(self):
        """Numbers are copied unchanged from the document, and 1, 1.0 and true are different values."""
        for one, other in ((b"1", b"1.0"), (b"1", b"true"), (b"[1]", b"[true]"), (b"0.1", b"0.10000000000000000001")):
            self.assertEqual(patch(b'{"a":%b}' % one, b'{"a":%b}' % other), b'{"a":%b}' % other)
        huge = b'{"a":' + b"7" * 5000 + b',"b":1E400}'
        self.assertEqual(patch(b"{}", huge), huge)

    def test_deep(self):
        """A change below the depth limit replaces the whole value there; extreme nesting is refused."""
        for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 5, 500):
            before, after = (b'{"a":' * depth + leaf + b',"c":1' + b"}" * depth for leaf in (b'{"b":1}', b'{"b":2}'))
            self.assertEqual(apply(json.loads(before), json.loads(patch(before, after))), json.loads(after))
        endless = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        self.assertRaises(Inexpressible, patch, b"{}", endless)
        self.assertRaises(Inexpressible, patch, endless, endless[:-1] + b',"b":2}')

    def test_lone_surrogates(self):
        """A lone surrogate is copied unchanged, or there is no patch."""
        for after in (b'{"a":"\\ud800"}', b'{"\\ud800":1}'):
            with contextlib.suppress(Inexpressible):
                self.assertEqual(patch(b"{}", after), after)
