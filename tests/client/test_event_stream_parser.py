"""The event stream parser."""

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.client.event_stream_parser import Event, EventStreamParser, EventTooLarge
from livestate.formats import event_stream
from tests.support import many


def parsed(*pieces, max_size=10_000):
    """Feed pieces to one parser and return all events."""
    parser = EventStreamParser(max_size)
    return [event for piece in pieces for event in parser.feed(piece)]


def reference_parse(stream):
    """Return the events and the last retry of a whole stream, following the steps of the HTML Standard (9.2.6)."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events, data, event_type, last_id, retry = [], "", "", "", None
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    for line in lines:
        if line == "":
            if data:
                events.append(Event(event_type or "message", data.removesuffix("\n"), last_id))
            data = event_type = ""
        elif line.startswith(":"):
            continue
        else:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                event_type = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                last_id = value
            elif field == "retry" and re.fullmatch("[0-9]+", value):
                retry = int(value[:12])
    return events, retry


def cut(data, positions):
    """Cut bytes into pieces at these positions."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


#: Streams of meaningful lines, and of arbitrary bytes.
lines = st.sampled_from(
    [b"data: x", b"data:", b"data", b"data:  y", b"", b"", b"event: patch", b"id: 7", b"id", b"id: a\0b", b"retry: 12",
     b"retry: 1x", b": hello", b"other: z", b"data: \xc3\xa9\xe2\x82", b"\xef\xbb\xbfdata: bom", b"dataa: no", b"data : no"]
)  # fmt: skip
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
streams = st.one_of(
    st.lists(st.tuples(lines, ends)).map(lambda pairs: b"".join(a + b for a, b in pairs)),
    st.tuples(st.sampled_from([b"", b"\xef\xbb\xbf"]), st.binary(max_size=60)).map(b"".join),
)


class ParserTests(SynchronousTestCase):
    """EventStreamParser."""

    @many
    @given(streams, st.lists(st.integers(0, 1000), max_size=8))
    @example(b"data: x\r\n\r\ndata: y\r\n\r\n", [8, 10, 11])
    @example(b"\xef\xbb\xbfdata: x\n\n", [1, 2])
    @example(b"\xef\xbb", [1])
    def test_matches_the_standard(self, stream, positions):
        """Any stream, cut into any pieces, gives the events that the HTML Standard specifies."""
        parser = EventStreamParser(10_000)
        events = [event for piece in cut(stream, positions) for event in parser.feed(piece)]
        self.assertEqual((events, parser.retry), reference_parse(stream))

    @many
    @given(
        st.integers(0, 10**18),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.sampled_from(["", "patch"]),
    )
    def test_round_trip(self, version, text, event_type):
        """The parser reads what livestate sends; line endings become line feeds."""
        wire = (
            event_stream.retry(1500)
            + event_stream.COMMENT
            + event_stream.event(b"%d-Ab_c" % version, text.encode(), event_type.encode())
        )
        expected = re.sub("\r\n|\r", "\n", text)
        self.assertEqual(parsed(wire), [Event(event_type or "message", expected, f"{version}-Ab_c")])

    def test_examples(self):
        """The examples of the HTML Standard, section 9.2.6, give the events described there."""
        self.assertEqual(parsed(b"data: YHOO\ndata: +2\ndata: 10\n\n"), [Event("message", "YHOO\n+2\n10", "")])
        self.assertEqual(
            parsed(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n"),
            [Event("message", "first event", "1"), Event("message", "second event", "")],
        )
        self.assertEqual(parsed(b"data\n\ndata\ndata\n\ndata:"), [Event("message", "", ""), Event("message", "\n", "")])
        self.assertEqual(parsed(b"data:test\n\ndata: test\n\n"), 2 * [Event("message", "test", "")])

    def test_id_persists(self):
        """An id also applies to the events after it, even if its own event had no data."""
        self.assertEqual(
            [event.id for event in parsed(b"id: 3\n\ndata: a\n\ndata: b\n\nid: 4\ndata: c\n\n")], ["3", "3", "4"]
        )

    def test_too_large(self):
        """An event, line or comment above the maximum size is rejected, whatever pieces it arrives in."""
        fits = b"data: " + 100 * b"x" + b"\n\n"
        self.assertEqual(len(parsed(fits, max_size=100)[0].data), 100)
        self.assertEqual(len(parsed(*cut(fits, range(len(fits))), max_size=100)), 1)
        for stream in (b"data: " + 101 * b"x" + b"\n\n", 60 * b"data: x\n", 60 * b"data\n" + 50 * b"data\n",
                       b"data: " + 1000 * b"x", b":" + 1000 * b" ", b"event: " + 1000 * b"x"):  # fmt: skip
            self.assertRaises(EventTooLarge, parsed, stream, max_size=100)
            self.assertRaises(EventTooLarge, parsed, *cut(stream, range(len(stream))), max_size=100)

    def test_many_pieces(self):
        """A large event in small pieces is joined once, not once per piece: a megabyte fed byte by byte is parsed."""
        parser = EventStreamParser(2_000_000)
        parser.feed(b"data: ")
        for _ in range(1_000_000):
            parser.feed(b"x")
        (event,) = parser.feed(b"\n\n")
        self.assertEqual(len(event.data), 1_000_000)
