"""Merge patches: what is patched is what was meant."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.merge_patch import DEEPEST, Inexpressible, apply, patch
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


# The same JSON may be written in several ways.
layouts = st.sampled_from(
    [{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False}, {"sort_keys": True, "indent": "\t"}]
)


class MergeTests(SynchronousTestCase):
    """RFC 7396."""

    @many
    @given(values, values, layouts, layouts)
    def test_round_trip(self, before, after, layout, other):
        """Applying the patch between two documents gives the second; without nulls in it there always is a patch."""
        kept = json.dumps(before)
        try:
            change = patch(json.dumps(before, **layout).encode(), json.dumps(after, **other).encode())
        except Inexpressible:
            self.assertTrue(has_null(after))
            return
        self.assertTrue(same(apply(before, json.loads(change)), after), (before, change, after))
        self.assertEqual(json.dumps(before), kept)

    @many
    @given(values, layouts)
    def test_nothing_changed(self, value, layout):
        """Where nothing changed in an object, nulls in it or not, the patch is empty; members may change places."""
        before = json.dumps({"it": value, "last": 1}, **layout).encode()
        after = json.dumps({"last": 1, "it": value}, **layout).encode()
        self.assertEqual(patch(before, after), b"{}")

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
        """Only what changed is in the patch, at any depth."""
        before = b'{"title":"x","parties":{"a":{"votes":1,"seats":2},"b":{"votes":1}},"gone":[1]}'
        after = b'{"title":"x","parties":{"a":{"votes":9,"seats":2},"b":{"votes":1}}}'
        change = json.loads(patch(before, after))
        self.assertEqual(change, {"parties": {"a": {"votes": 9}}, "gone": None})

    def test_numbers(self):
        """Numbers are in the patch as they are in the document, and 1, 1.0 and true are three values."""
        for one, other in ((b"1", b"1.0"), (b"1", b"true"), (b"[1]", b"[true]"), (b"0.1", b"0.10000000000000000001")):
            self.assertEqual(patch(b'{"a":%b}' % one, b'{"a":%b}' % other), b'{"a":%b}' % other)
        huge = b'{"a":' + b"7" * 5000 + b',"b":1E400}'
        self.assertEqual(patch(b"{}", huge), huge)

    def test_deep(self):
        """A change that is deeper than is looked is said by the whole of what is there; depth without end is refused."""
        for depth in (DEEPEST - 1, DEEPEST, DEEPEST + 5, 500):
            before, after = (b'{"a":' * depth + leaf + b',"c":1' + b"}" * depth for leaf in (b'{"b":1}', b'{"b":2}'))
            self.assertEqual(apply(json.loads(before), json.loads(patch(before, after))), json.loads(after))
        endless = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        self.assertRaises(Inexpressible, patch, b"{}", endless)
        self.assertRaises(Inexpressible, patch, endless, endless[:-1] + b',"b":2}')

    def test_halves(self):
        """Half of a surrogate pair goes through, or there is no patch; nothing else happens."""
        for after in (b'{"a":"\\ud800"}', b'{"\\ud800":1}'):
            with contextlib.suppress(Inexpressible):
                self.assertEqual(patch(b"{}", after), after)
