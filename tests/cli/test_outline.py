"""The layout of documents on a screen, and JSON that is safe to print on a terminal."""

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
    """Return the text of each line."""
    return ["".join(text for text, _ in line) for line in lines]


def highlighted(lines):
    """Return the highlighted text of each line that has some."""
    found = ["".join(text for text, highlight in line if highlight) for line in lines]
    return [text for text in found if text]


class TextTests(SynchronousTestCase):
    """Text that is safe to print."""

    @many
    @given(st.one_of(documents, st.text().map(lambda text: {text: [text]})), st.sampled_from([None, 2]))
    def test_round_trip(self, value, indent):
        """The text is JSON for the same value, valid UTF-8, and a single line unless indented."""
        text = to_text(value, indent)
        self.assertEqual(json.loads(text.encode()), value)
        if indent is None:
            self.assertEqual(len(text.splitlines()), 1)

    def test_safe(self):
        """Terminal control characters, bidirectional controls and lone surrogates are escaped."""
        for code in (0x00, 0x1B, 0x7F, 0x85, 0x9B, 0x200F, 0x2028, 0x202E, 0x2066, 0xD800, 0xDFFF, 0xFEFF):
            self.assertEqual(to_text(f"a{chr(code)}b"), f'"a\\u{code:04x}b"', hex(code))
        self.assertEqual(to_text("é界🗳"), '"é界🗳"')


class OutlineTests(SynchronousTestCase):
    """The layout."""

    @many
    @given(documents, st.integers(1, 60), st.integers(1, 25))
    def test_fits(self, value, width, height):
        """The layout never exceeds the screen, and contains no control characters."""
        lines = texts(outline(value, True, width, height))
        self.assertLessEqual(len(lines), height)
        for line in lines:
            self.assertLessEqual(columns(line), width)
            self.assertNotIn("Cc", {unicodedata.category(character) for character in line})

    @many
    @given(documents)
    def test_complete(self, value):
        """On a large enough screen, the layout is the complete document."""
        lines = texts(outline(value, None, 100_000, 10_000))
        self.assertEqual(json.loads("\n".join(lines)), value)

    def test_layout(self):
        """A value that fits on a line is on one line, except at the top level."""
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
        """If not everything fits, the arrays share the rows, and rows that one does not need go to the next."""
        value = {"short": ["x" * 30, "y" * 30], "long": list(range(100, 150))}
        self.assertEqual(
            texts(outline(value, None, 40, 12)),
            ["{", '  "short": [', f'    "{"x" * 30}",', f'    "{"y" * 30}"', "  ],", '  "long": [',
             *(f"    {number}," for number in range(100, 103)), "    … 47 more", "  ]", "}"],
        )  # fmt: skip

    def test_hidden_changes(self):
        """A change in a part that is not shown is highlighted in the count of hidden members."""
        before, after = list(range(100)), [*range(99), 0]
        self.assertEqual(highlighted(outline(after, changes(before, after), 40, 5)), ["… 98 more"])
        after = [5, *range(1, 100)]
        self.assertEqual(highlighted(outline(after, changes(before, after), 40, 5)), ["5"])

    def test_wide(self):
        """Wide characters take two columns, combining ones none."""
        self.assertEqual(columns("aé界🗳e\u0301"), 1 + 1 + 2 + columns("🗳") + 1)
        self.assertEqual(texts(outline("界界界", None, 6, 1)), ['"界界…'])

    def test_large(self):
        """Of a document much larger than the screen, only the visible part is visited."""

        class Counted(dict[str, Any]):
            visited = 0

            def items(self):
                for item in super().items():
                    Counted.visited += 1
                    yield item

        value = {"rows": [Counted({"n": n, "text": "x" * 1000}) for n in range(10_000)]}
        self.assertEqual(len(outline(value, None, 80, 24)), 24)
        self.assertLess(Counted.visited, 24 * 24)

    @many
    @given(documents, documents)
    def test_changes(self, before, after):
        """Equal documents have no changes; documents without changes between them have the same type."""
        self.assertIsNone(changes(before, json.loads(json.dumps(before))))
        found = changes(before, after)
        if found is None:
            # A removed member is not there to be highlighted.
            self.assertEqual(type(before), type(after))
        if before == after and json.dumps(before) == json.dumps(after):
            self.assertIsNone(found)

    def test_highlighted(self):
        """Only changes are highlighted: one number in an array, a new member, another type."""
        before = {"a": [{"n": 1, "m": 1}, {"n": 2, "m": 2}], "t": 1, "gone": 0}
        after = {"a": [{"n": 1, "m": 1}, {"n": 3, "m": 2}, {"n": 4}], "t": True, "new": [5]}
        self.assertEqual(highlighted(outline(after, changes(before, after), 80, 20)), ['3{"n": 4}', "true", "[5]"])
        self.assertEqual(highlighted(outline(1, changes(0, 1), 80, 20)), ["1"])
        self.assertEqual(highlighted(outline(after, None, 80, 20)), [])

    def test_deep(self):
        """Deeply nested documents are truncated and do not fail."""
        value: Any = 1
        other: Any = 1
        for _ in range(900):
            value, other = [value], [other, 1]
        self.assertTrue(changes(value, other))
        self.assertLessEqual(len(outline(value, True, 80, 24)), 24)
