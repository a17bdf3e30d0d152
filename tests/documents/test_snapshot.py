"""Tests of Snapshot, and of the check before one is made."""

import json
import math
import random
from unittest import mock

from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.documents.snapshot import ENCODERS, LARGE, MIN_CODED_SIZE, check, new_snapshot, with_coding
from livestate.errors import DocumentRefused
from tests.codings import DECODERS
from tests.support import few, many

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=12)
documents = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8"),
    values, st.booleans(), st.sampled_from([None, 1]),
)  # fmt: skip


def refuses(data):
    """Return whether `check` refuses `data`."""
    try:
        check(data, 2**20)
    except DocumentRefused:
        return True
    return False


def strict_json_refuses(data):
    """Return whether the standard library refuses `data`, without its extensions to JSON."""

    def refuse(constant):
        raise ValueError(constant)

    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=refuse, parse_float=lambda text: 0.0, object_pairs_hook=list
        )
        # A deliberate difference: an escaped half of a surrogate pair cannot be encoded as UTF-8.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except ValueError:
        return True
    return False


class CheckTests(SynchronousTestCase):
    """Which bytes are accepted as a document."""

    @many
    @given(documents)
    def test_accepts_json(self, data):
        """All JSON written by the standard library is accepted."""
        self.assertFalse(refuses(data))

    @many
    @given(documents, st.data())
    @example(b'"\\ud800"', None)
    @example(b'"\\udc00\\ud800"', None)
    @example(b'"\\ud83d\\ude00"', None)
    @example(b"[1e999]", None)
    @example(b"\xef\xbb\xbf1", None)
    @example(b'{"a":1,"a":2}', None)
    def test_agrees_with_the_standard_library(self, document, data):
        """For JSON with bytes changed, inserted or removed, the verdict is that of a strict parser."""
        mutated = bytearray(document)
        for _ in range(data.draw(st.integers(1, 3)) if data is not None else 0):
            start = data.draw(st.integers(0, len(mutated)))
            end = data.draw(st.integers(start, min(start + 2, len(mutated))))
            mutated[start:end] = data.draw(st.one_of(st.binary(max_size=2), st.sampled_from(PIECES)))
        self.assertEqual(refuses(bytes(mutated)), strict_json_refuses(bytes(mutated)), bytes(mutated))

    @many
    @given(st.lists(st.sampled_from(b'[]{}",:\\/ \t\r\n0123456789.eE+-truefalsn\x00\x1f\x7f\xc3\xa9'), max_size=14))
    def test_agrees_on_soup(self, soup):
        """For strings of JSON's own characters, the verdict is that of a strict parser."""
        self.assertEqual(refuses(bytes(soup)), strict_json_refuses(bytes(soup)), bytes(soup))

    @few
    @given(st.binary(max_size=40))
    def test_any_bytes(self, data):
        """Any bytes are accepted or refused as by a strict parser, and nothing else is raised."""
        self.assertEqual(refuses(data), strict_json_refuses(data))

    def test_size(self):
        """A document may have max_size bytes, and not one more."""
        check(b'"' + b"x" * 98 + b'"', 100)
        error = self.assertRaises(DocumentRefused, check, b'"' + b"x" * 99 + b'"', 100)
        self.assertIn("101 bytes", str(error))
        self.assertIn("--max-size", str(error))

    def test_says_what_is_wrong(self):
        """Each refusal says in one line what is wrong and, if possible, at which byte."""
        for data, expected in (
            (b"", "empty"),
            (b" \r\n\t", "empty"),
            (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
            (b'{"a": nope}', "byte 7"),
            (b'{"a": NaN}', "byte 6"),
            (b"[" * 200_000, "nested too deeply"),
            (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
            (b"\xef\xbb\xbf{}", "byte 0"),
        ):
            error = self.assertRaises(DocumentRefused, check, data, 2**20)
            self.assertIn(expected, str(error))
            self.assertNotIn("\n", str(error))

    @many
    @given(st.text("aé€😀"), st.binary(max_size=2), st.text("aé€😀"), st.integers(1, 6))
    def test_utf8_in_chunks(self, before, middle, after, chunk):
        """Whatever the chunk size, invalid UTF-8 is refused at the byte that a decoder of the whole names."""
        data = b'"' + before.encode() + middle + after.encode() + b'"'
        with mock.patch("livestate.documents.snapshot.UTF8_CHUNK", chunk):
            try:
                data.decode()
            except UnicodeDecodeError as expected:
                error = self.assertRaises(DocumentRefused, check, data, 2**20)
                self.assertEqual(str(error), f"the document is not UTF-8 (byte {expected.start})")
            else:
                self.assertEqual(refuses(data), strict_json_refuses(data))

    def test_huge_numbers(self):
        """Numbers that fit no machine type are accepted: clients decide what to do with them."""
        check(b"[1e999, -1e999, 1e-999, " + b"9" * 5000 + b"]", 2**20)


PIECES = (
    b"NaN",
    b"Infinity",
    b"-",
    b"\\ud800",
    b"\\u00e9",
    b"\\x",
    b"\xef\xbb\xbf",
    b",",
    b"'",
    b"\x00",
    b"01",
    b"1.",
    b"e5",
)


class SnapshotTests(SynchronousTestCase):
    """Versions, codings and entity tags."""

    @many
    @given(st.binary(max_size=600), st.sampled_from(sorted(ENCODERS)))
    def test_codings_undo(self, data, coding):
        """Every coding can be undone, and is kept only if it is smaller."""
        snapshot = with_coding(new_snapshot(data, 1.0), coding)
        if coding in snapshot.representations:
            representation = snapshot.representations[coding]
            self.assertEqual(representation.coding, coding)
            self.assertEqual(DECODERS[coding](representation.body), data)
            self.assertLess(len(representation.body), len(data))
        self.assertEqual(snapshot.body, data)

    def test_large_codings_undo(self):
        """Every coding of a large document, made at the faster levels, can be undone."""
        data = json.dumps([{"row": n, "name": f"place {n * n}"} for n in range(4000)]).encode()
        self.assertGreater(len(data), LARGE)
        snapshot = new_snapshot(data, 1.0)
        for coding in ENCODERS:
            snapshot = with_coding(snapshot, coding)
            self.assertEqual(DECODERS[coding](snapshot.representations[coding].body), data)
        self.assertEqual(set(snapshot.representations), {"identity", *ENCODERS})

    @few
    @given(st.binary(max_size=300), st.binary(max_size=300))
    def test_tags_name_bytes(self, one, other):
        """Two representations have equal tags if and only if their bytes are equal, whenever they were made."""
        assume(one != other)
        tag_of_one = new_snapshot(one, 1.0).representations["identity"].etag
        self.assertEqual(tag_of_one, new_snapshot(one, 2.0, 77).representations["identity"].etag)
        self.assertNotEqual(tag_of_one, new_snapshot(other, 1.0).representations["identity"].etag)

    def test_tags_of_codings(self):
        """Each coding of a document has its own strong tag, the same every time."""
        data = b'{"votes": [' + b"1, " * 300 + b"1]}"
        tags = []
        for _ in range(2):
            snapshot = new_snapshot(data, 1.0)
            for coding in ENCODERS:
                snapshot = with_coding(snapshot, coding)
            tags.append({r.coding: r.etag for r in snapshot.representations.values()})
        self.assertEqual(tags[0], tags[1])
        self.assertEqual(len(set(tags[0].values())), 4)
        for tag in tags[0].values():
            self.assertRegex(tag.decode("ascii"), r'\A"[A-Za-z0-9_=-]+"\Z')

    @many
    @given(st.floats(0, 4e9), st.integers(0, 2**52))
    def test_versions_go_up(self, modified, previous):
        """A version is greater than the previous one and at least the time in milliseconds, even if a clock is set back."""
        version = new_snapshot(b"1", modified, previous).version
        self.assertGreater(version, previous)
        self.assertGreaterEqual(version, math.floor(modified * 1000))

    def test_small_documents(self):
        """A document that is too small for codings can gain none; a larger one can until each was tried."""
        tiny = new_snapshot(b"x" * (MIN_CODED_SIZE - 1), 1.0)
        self.assertFalse([coding for coding in ENCODERS if tiny.can_gain(coding)])
        self.assertIs(with_coding(tiny, "gzip"), tiny)
        for data, expected in ((b"x" * MIN_CODED_SIZE, True), (random.Random(1).randbytes(MIN_CODED_SIZE), False)):
            snapshot = new_snapshot(data, 1.0, 5)
            for coding in ENCODERS:
                self.assertTrue(snapshot.can_gain(coding))
                tried = with_coding(snapshot, coding)
                self.assertFalse(tried.can_gain(coding))
                self.assertEqual(coding in tried.representations, expected)
                self.assertEqual(coding in tried.possible, expected)
                self.assertEqual((tried.version, tried.modified, tried.plain), (5 + 995, 1.0, snapshot.plain))
            self.assertFalse(snapshot.can_gain("identity"))

    def test_immutable(self):
        """A published snapshot cannot be changed."""
        snapshot = new_snapshot(b"1", 1.0)
        with self.assertRaises(TypeError):
            snapshot.representations["gzip"] = snapshot.representations["identity"]  # type: ignore[index]
        with self.assertRaises(AttributeError):
            snapshot.version = 7  # type: ignore[misc]
        with_coding(new_snapshot(b"x" * 500, 1.0), "gzip")
        self.assertEqual(list(snapshot.representations), ["identity"])
