"""Documents on a screen, and as text for a terminal."""

import json
import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.cli.outline import changes, columns, outline
from livestate.formats.json_text import to_text
from tests.support import many

#: Any JSON.
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=30,
)


def texts(lines):
    """Give lines without what is lit."""
    return ["".join(text for text, lit in line) for line in lines]


def lit(lines):
    """Give what is lit, line by line."""
    found = ["".join(text for text, lit in line if lit) for line in lines]
    return [text for text in found if text]


class TextTests(SynchronousTestCase):
    """Text that is safe to print."""

    @many
    @given(st.one_of(documents, st.text().map(lambda text: {text: [text]})), st.sampled_from([None, 2]))
    def test_means_the_same(self, value, indent):
        """It is JSON of the same value, UTF-8, and on one line where it is not indented."""
        text = to_text(value, indent)
        self.assertEqual(json.loads(text.encode()), value)
        if indent is None:
            self.assertEqual(len(text.splitlines()), 1)

    def test_safe(self):
        """Nothing in it commands a terminal or changes the direction of writing, and half a surrogate pair is escaped."""
        for code in (0x00, 0x1B, 0x7F, 0x85, 0x9B, 0x200F, 0x2028, 0x202E, 0x2066, 0xD800, 0xDFFF, 0xFEFF):
            self.assertEqual(to_text(f"a{chr(code)}b"), f'"a\\u{code:04x}b"', hex(code))
        self.assertEqual(to_text("é界🗳"), '"é界🗳"')


class OutlineTests(SynchronousTestCase):
    """What is shown."""

    @many
    @given(documents, st.integers(1, 60), st.integers(1, 25))
    def test_fits(self, value, width, height):
        """It never has more lines or columns than there are, and no character that could command the terminal."""
        lines = texts(outline(value, True, width, height))
        self.assertLessEqual(len(lines), height)
        for line in lines:
            self.assertLessEqual(columns(line), width)
            self.assertNotIn("Cc", {unicodedata.category(character) for character in line})

    @many
    @given(documents)
    def test_whole(self, value):
        """Where there is room it is the document, whole."""
        lines = texts(outline(value, None, 100_000, 10_000))
        self.assertEqual(json.loads("\n".join(lines)), value)

    def test_layout(self):
        """What fits on a line is on one; the first level is not."""
        value = {"name": "Night", "parties": [{"name": "Meadow", "votes": 1}, {"name": "Harbour", "votes": 2}], "e": []}
        self.assertEqual(
            texts(outline(value, None, 40, 20)),
            ["{", '  "name": "Night",', '  "parties": [', '    {"name": "Meadow", "votes": 1},',
             '    {"name": "Harbour", "votes": 2}', "  ],", '  "e": []', "}"],
        )  # fmt: skip
        short = ["{", '  "name": "Night",', '  "parties": [{"name": "Meadow", "votes…', '  "e": []', "}"]
        self.assertEqual(texts(outline(value, None, 40, 5)), short)
        self.assertEqual(texts(outline(value, None, 40, 4)), ["{", '  "name": "Night",', "  … 2 more", "}"])
        self.assertEqual(texts(outline(value, None, 40, 3)), ['{"name": "Night", "parties": [{"name": …'])
        self.assertEqual(texts(outline(list(range(1000)), None, 40, 5)), ["[", "  0,", "  1,", "  … 998 more", "]"])

    def test_shares(self):
        """Where not all fits, each array gets its share of the rows, and what one does not need is left to the next."""
        value = {"short": ["x" * 30, "y" * 30], "long": list(range(100, 150))}
        self.assertEqual(
            texts(outline(value, None, 40, 12)),
            ["{", '  "short": [', f'    "{"x" * 30}",', f'    "{"y" * 30}"', "  ],", '  "long": [',
             *(f"    {number}," for number in range(100, 103)), "    … 47 more", "  ]", "}"],
        )  # fmt: skip

    def test_hidden_changes(self):
        """That something changed in what is not shown is shown."""
        before, after = list(range(100)), [*range(99), 0]
        self.assertEqual(lit(outline(after, changes(before, after), 40, 5)), ["… 98 more"])
        after = [5, *range(1, 100)]
        self.assertEqual(lit(outline(after, changes(before, after), 40, 5)), ["5"])

    def test_wide(self):
        """Wide characters count two columns, combining ones none."""
        self.assertEqual(columns("aé界🗳e\u0301"), 1 + 1 + 2 + columns("🗳") + 1)
        self.assertEqual(texts(outline("界界界", None, 6, 1)), ['"界界…'])

    def test_large(self):
        """Of a document that is much larger than the screen only what is seen is looked at: it is no matter how large."""

        class Counted(dict[str, Any]):
            seen = 0

            def items(self):
                for item in super().items():
                    Counted.seen += 1
                    yield item

        value = {"rows": [Counted({"n": n, "text": "x" * 1000}) for n in range(10_000)]}
        self.assertEqual(len(outline(value, None, 80, 24)), 24)
        self.assertLess(Counted.seen, 24 * 24)

    @many
    @given(documents, documents)
    def test_changes(self, before, after):
        """A document differs from another where something is lit, and from itself nowhere."""
        self.assertIsNone(changes(before, json.loads(json.dumps(before))))
        found = changes(before, after)
        if found is None:
            # What only went away is not there to be lit.
            self.assertEqual(type(before), type(after))
        if before == after and json.dumps(before) == json.dumps(after):
            self.assertIsNone(found)

    def test_lit(self):
        """Just what changed is lit: one number in one of several places, a new member, another type."""
        before = {"a": [{"n": 1, "m": 1}, {"n": 2, "m": 2}], "t": 1, "gone": 0}
        after = {"a": [{"n": 1, "m": 1}, {"n": 3, "m": 2}, {"n": 4}], "t": True, "new": [5]}
        self.assertEqual(lit(outline(after, changes(before, after), 80, 20)), ['3{"n": 4}', "true", "[5]"])
        self.assertEqual(lit(outline(1, changes(0, 1), 80, 20)), ["1"])
        self.assertEqual(lit(outline(after, None, 80, 20)), [])

    def test_deep(self):
        """Deeply nested documents are cut, not a reason to fail."""
        value: Any = 1
        other: Any = 1
        for _ in range(900):
            value, other = [value], [other, 1]
        self.assertTrue(changes(value, other))
        self.assertLessEqual(len(outline(value, True, 80, 24)), 24)
