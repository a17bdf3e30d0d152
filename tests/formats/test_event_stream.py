"""Encoding event streams; a parser that follows the standard step by step reads them back."""

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.event_stream import COMMENT, LAST_CHUNK, chunk, event, retry
from tests.support import many


def parsed(stream: bytes) -> tuple[list[tuple[str, str, str]], list[int]]:
    """Return a stream's events (type, id, data) and retry times, by section 9.2.6 of the HTML Standard."""
    events: list[tuple[str, str, str]] = []
    retries: list[int] = []
    data: list[str] = []
    last_id = event_type = ""
    for line in re.split("\r\n|\r|\n", stream.decode("utf-8").removeprefix("\ufeff"))[:-1]:
        if not line:
            if data:
                events.append((event_type or "message", last_id, "\n".join(data)))
            event_type, data = "", []
            continue
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if colon and not name:
            continue
        if name == "event":
            event_type = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retries.append(int(value))
    return events, retries


def joined(chunks: bytes) -> bytes:
    """Return the content of a chunked body (RFC 9112 section 7.1), which must be complete."""
    body = b""
    while True:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert rest == b"\r\n", rest
            return body
        body += rest[:length]
        assert rest[length : length + 2] == b"\r\n"
        chunks = rest[length + 2 :]


lines = st.lists(st.one_of(st.text(max_size=9), st.sampled_from(["\r", "\n", "\r\n", "data: x", ": ", " ", ""])))
documents = lines.map("".join)
messages = st.tuples(st.integers(1, 2**53), documents, st.sampled_from([b"", b"patch"]))


class EventTests(SynchronousTestCase):
    """A client gets the events that were encoded."""

    @many
    @given(st.lists(messages))
    def test_any_data(self, sent):
        """Any text, with any line ends, arrives with the same lines, id and type, and nothing else arrives."""
        stream = b"".join(event(b"%d" % version, data.encode(), type_) + COMMENT for version, data, type_ in sent)
        expected = [
            (type_.decode() or "message", str(version), re.sub("\r\n|\r", "\n", data)) for version, data, type_ in sent
        ]
        self.assertEqual(parsed(stream), (expected, []))

    def test_json(self):
        """JSON on several lines, however they end, arrives as the same JSON."""
        value = {"a": ["line\nend", "\r"], "b": {"c": None}}
        for end in ("\n", "\r\n", "\r"):
            text = json.dumps(value, indent=2).replace("\n", end)
            [(_, _, data)], _ = parsed(event(b"1", text.encode()))
            self.assertEqual(json.loads(data), value)

    def test_retry(self):
        """The retry time is parsed, and is not an event."""
        self.assertEqual(parsed(retry(1500) + COMMENT), ([], [1500]))

    @many
    @given(st.lists(st.binary(min_size=1)))
    def test_chunks(self, pieces):
        """The chunks, followed by the last chunk, make up the body."""
        self.assertEqual(joined(b"".join(map(chunk, pieces)) + LAST_CHUNK), b"".join(pieces))
