"""JSON Pointer."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SettingsError
from livestate.formats.json_pointer import PartMissing, Pointer
from tests.support import many

#: The document of RFC 6901, section 5.
DOCUMENT = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip


class PointerTests(SynchronousTestCase):
    """Parsing pointers and finding the parts they name."""

    def test_examples(self):
        """Every example of RFC 6901 works, as a string (section 5) and as a URI fragment (section 6)."""
        for text, fragment, value in (
            ("", "#", DOCUMENT),
            ("/foo", "#/foo", ["bar", "baz"]),
            ("/foo/0", "#/foo/0", "bar"),
            ("/", "#/", 0),
            ("/a~1b", "#/a~1b", 1),
            ("/c%d", "#/c%25d", 2),
            ("/e^f", "#/e%5Ef", 3),
            ("/g|h", "#/g%7Ch", 4),
            ("/i\\j", "#/i%5Cj", 5),
            ('/k"l', "#/k%22l", 6),
            ("/ ", "#/%20", 7),
            ("/m~0n", "#/m~0n", 8),
        ):
            self.assertEqual(Pointer(text).find(DOCUMENT), value, text)
            self.assertEqual(Pointer(fragment).find(DOCUMENT), value, fragment)

    @many
    @given(st.lists(st.text(), max_size=5))
    def test_escapes(self, names):
        """A pointer can name any member at any depth; ~01 means ~1, not a slash."""
        document = value = object()
        for name in reversed(names):
            document = {name: document}
        text = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
        self.assertIs(Pointer(text).find(document), value)
        if all(name.isprintable() for name in names):
            self.assertIs(Pointer("#" + quote(text)).find(document), value)
        self.assertEqual(Pointer("/~01").find({"~1": 1, "/": 2}), 1)

    def test_missing(self):
        """The error for a missing part names the pointer; an index is a plain number within the array."""
        document = {"a": [1, 2], "s": "text", "n": None}
        for text in ("/b", "/a/2", "/a/-", "/a/01", "/a/-1", "/a/1.0", "/a/+1", "/a/ 1", "/a/", "/a/x", "/s/0", "/n/x",
                     "/a/0/0", "/A", "/a/\u0661", f"/a/{10**30}", f"/a/{5000 * '1'}"):  # fmt: skip
            error = self.assertRaises(PartMissing, Pointer(text).find, document)
            self.assertIn(text, str(error))
        self.assertIsNone(Pointer("/n").find(document))

    def test_wrong(self):
        """A malformed pointer is refused, and the message says why."""
        for text in ("a", "a/b", " /a", "#a", "~1a"):
            self.assertIn("does not begin with /", str(self.assertRaises(SettingsError, Pointer, text)))
        for text in ("/~", "/a~2b", "/~~0", "/a~", "#/a~2"):
            self.assertIn("~0", str(self.assertRaises(SettingsError, Pointer, text)))
