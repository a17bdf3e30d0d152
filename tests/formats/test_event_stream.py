"""Event streams as bytes, read back by a parser that follows the standard step by step."""

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.event_stream import COMMENT, LAST_CHUNK, chunk, event, retry
from tests.support import many


def parsed(stream: bytes) -> tuple[list[tuple[str, str, str]], list[int]]:
    """Give the events (type, id, data) and the retry times of a stream, as the HTML Standard's section 9.2.6 says."""
    events: list[tuple[str, str, str]] = []
    retries: list[int] = []
    data: list[str] = []
    last_id = kind = ""
    for line in re.split("\r\n|\r|\n", stream.decode("utf-8").removeprefix("\ufeff"))[:-1]:
        if not line:
            if data:
                events.append((kind or "message", last_id, "\n".join(data)))
            kind, data = "", []
            continue
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if colon and not name:
            continue
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retries.append(int(value))
    return events, retries


def joined(chunks: bytes) -> bytes:
    """Give the body that a chunked body says (RFC 9112 section 7.1), which must be whole and end."""
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
    """What a reader gets is what was meant."""

    @many
    @given(st.lists(messages))
    def test_any_data(self, sent):
        """Any text with any line ends comes out with the same lines, version and type, and nothing beside it."""
        stream = b"".join(event(b"%d" % version, data.encode(), kind) + COMMENT for version, data, kind in sent)
        expected = [
            (kind.decode() or "message", str(version), re.sub("\r\n|\r", "\n", data)) for version, data, kind in sent
        ]
        self.assertEqual(parsed(stream), (expected, []))

    def test_json(self):
        """JSON that is laid out over several lines, however they end, is the same JSON for the reader."""
        value = {"a": ["line\nend", "\r"], "b": {"c": None}}
        for end in ("\n", "\r\n", "\r"):
            text = json.dumps(value, indent=2).replace("\n", end)
            [(_, _, data)], _ = parsed(event(b"1", text.encode()))
            self.assertEqual(json.loads(data), value)

    def test_retry(self):
        """The time to wait is understood and is no event."""
        self.assertEqual(parsed(retry(1500) + COMMENT), ([], [1500]))

    @many
    @given(st.lists(st.binary(min_size=1)))
    def test_chunks(self, pieces):
        """Chunks and the last one make up the body."""
        self.assertEqual(joined(b"".join(map(chunk, pieces)) + LAST_CHUNK), b"".join(pieces))
