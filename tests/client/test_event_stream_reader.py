"""The event stream reader and the client's state."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.client.event_stream_parser import EventTooLarge
from livestate.client.event_stream_reader import ACCEPT_OLDER_AFTER, EventStreamReader, StreamUnusable
from livestate.client.state import ClientState, State, parse, same
from livestate.formats.merge_patch import Inexpressible, apply, patch
from tests.cli.test_outline import documents
from tests.support import many


def event(version, data, kind=""):
    """Return the bytes of one event."""
    name = f"event: {kind}\n" if kind else ""
    return f"{name}id: {version}\ndata: {data}\n\n".encode()


class StreamCase(SynchronousTestCase):
    """A client state and stream readers for it."""

    def setUp(self):
        self.delivered: list[State] = []
        self.client_state = ClientState(self.delivered.append)
        self.clock = Clock()
        self.stream = self.new_stream()

    def new_stream(self, max_size: int = 10_000) -> EventStreamReader:
        return EventStreamReader(self.client_state, max_size, self.clock)

    def values(self) -> list[Any]:
        return [state.value for state in self.delivered]


class StatesTests(StreamCase):
    """States and patches on one stream."""

    def test_states_and_patches(self):
        """A patch applies to the previous state on the stream, and is delivered with the resulting state."""
        self.stream.feed(event(5, '{"a": 1, "b": {"c": 2}}'))
        self.stream.feed(event(6, '{"b": {"c": null, "d": 3}}', "patch"))
        self.stream.feed(event(7, '{"a": 2}', "patch") + event(9, "[]"))
        self.assertEqual(
            self.delivered,
            [
                State({"a": 1, "b": {"c": 2}}, 5, None, None, "events"),
                State({"a": 1, "b": {"d": 3}}, 6, None, {"b": {"c": None, "d": 3}}, "events"),
                State({"a": 2, "b": {"d": 3}}, 7, None, {"a": 2}, "events"),
                State([], 9, None, None, "events"),
            ],
        )
        self.assertEqual(self.client_state.event_id, "9")

    @many
    @given(st.lists(documents, min_size=1, max_size=5))
    def test_any_documents(self, states):
        """The reader follows any sequence of documents, sent as patches where a patch can express the change."""
        self.setUp()
        expected: list[Any] = []
        for number, (before, after) in enumerate(zip([None, *states], states, strict=False)):
            try:
                change, kind = json.dumps(after), ""
                if number:
                    change, kind = patch(json.dumps(before).encode(), change.encode()).decode(), "patch"
            except Inexpressible:
                pass
            self.stream.feed(event(number + 1, change, kind))
            if not expected or not same(expected[-1], after):
                expected.append(after)
        self.assertEqual(
            [json.dumps(value, sort_keys=True) for value in self.values()],
            [json.dumps(value, sort_keys=True) for value in expected],
        )
        for before, after in zip(self.delivered, self.delivered[1:], strict=False):
            if after.patch is not None:
                self.assertTrue(same(apply(before.value, after.patch), after.value))

    def test_ids(self):
        """The number before the hyphen of an id is the version; the id itself is sent back to the server unchanged."""
        for sent, version, returned in (
            ("17-q3_x-A", 17, "17-q3_x-A"), ("18-", 18, "18-"), ("-x", None, "-x"), ("1" * 30, None, "1" * 30),
            ("\u0664-x", None, None), ("a b", None, None), ("x" * 101, None, None),
        ):  # fmt: skip
            self.stream.feed(event(sent, f'"{sent}"'))
            self.assertEqual((self.delivered[-1].version, self.client_state.event_id), (version, returned))

    def test_delivered_states_are_not_modified(self):
        """A later patch does not modify a delivered state."""
        self.stream.feed(event(1, '{"a": {"b": 1}}') + event(2, '{"a": {"b": 2}}', "patch"))
        self.assertEqual(self.values(), [{"a": {"b": 1}}, {"a": {"b": 2}}])

    def test_other_events(self):
        """Events of other types and comments are ignored; an id without a numeric version is accepted."""
        self.stream.feed(event(1, "1") + event(2, "not JSON", "news") + b":\n\n" + event("x", "2") + event(3, "3"))
        self.assertEqual([(state.value, state.version) for state in self.delivered], [(1, 1), (2, None), (3, 3)])

    def test_unusable(self):
        """Data that is not JSON, or a patch without a base, makes the stream unusable."""
        for data in (event(1, "{"), event(1, "NaN"), event(1, '{"a": 1}', "patch"), event(1, 2000 * "[" + 2000 * "]")):
            self.assertRaises(StreamUnusable, self.new_stream().feed, data)
        self.assertEqual(self.delivered, [])

    def test_too_large(self):
        """An event above the maximum size is rejected."""
        self.assertRaises(EventTooLarge, self.new_stream(max_size=10).feed, event(1, 11 * "1"))


class ResumedTests(StreamCase):
    """Streams that are resumed."""

    def test_patch_first(self):
        """A resumed stream may start with a patch to the current version."""
        self.stream.feed(event(5, '{"a": 1}'))
        self.new_stream().feed(event(6, '{"b": 2}', "patch"))
        self.assertEqual(self.delivered[-1], State({"a": 1, "b": 2}, 6, None, {"b": 2}, "events"))

    def test_the_same_state(self):
        """A state equal to the current one is not delivered again, even with another version; patches to it apply."""
        self.stream.feed(event(5, '{"a": 1}'))
        again = self.new_stream()
        again.feed(event(8, '{"a": 1}'))
        self.assertEqual((len(self.delivered), self.client_state.event_id), (1, "8"))
        again.feed(event(9, '{"a": 2}', "patch"))
        self.assertEqual(self.delivered[-1], State({"a": 2}, 9, None, {"a": 2}, "events"))

    def test_nearly_the_same(self):
        """1, 1.0 and true are different states."""
        for version, value in enumerate(("1", "1.0", "true", "[1]", "[true]", "[1.0]"), 1):
            self.stream.feed(event(version, value))
        self.assertEqual(len(self.delivered), 6)

    def test_older_state(self):
        """The older state of a server that lags behind the previous one is not delivered; its next state is."""
        self.stream.feed(event(10, '{"n": 10}'))
        other = self.new_stream()
        other.feed(b"retry: 1000\n\n" + event(7, '{"n": 7}'))
        self.assertEqual((self.values(), self.client_state.event_id), ([{"n": 10}], "10"))
        other.feed(event(11, '{"n": 11, "x": 1}', "patch"))
        self.assertEqual(self.delivered[1:], [State({"n": 11, "x": 1}, 11, None, None, "events")])

    def test_clock_behind(self):
        """If the server's clock is behind, its second state is accepted, or its first one after a while."""
        self.stream.feed(event(10, "10"))
        other = self.new_stream()
        other.feed(event(7, "7"))
        other.feed(event(8, "8"))
        self.assertEqual(self.values(), [10, 8])
        self.stream = self.new_stream()
        self.stream.feed(event(3, "3"))
        self.clock.advance(ACCEPT_OLDER_AFTER - 0.1)
        self.stream.feed(b":\n\n")
        self.assertEqual(self.values(), [10, 8])
        self.clock.advance(0.1)
        self.stream.feed(b":\n\n")
        self.assertEqual((self.values(), self.client_state.event_id), ([10, 8, 3], "3"))

    def test_after_polling(self):
        """A polled state has no version and an event no entity tag, so each clears the other's."""
        self.client_state.set_from_response(1, '"one"', "poll")
        self.assertEqual((self.client_state.event_id, self.client_state.etag), (None, '"one"'))
        self.assertRaises(StreamUnusable, self.new_stream().feed, event(1, "{}", "patch"))
        self.new_stream().feed(event(2, "2"))
        self.assertEqual((self.client_state.event_id, self.client_state.etag), ("2", None))
        self.assertEqual([(s.version, s.etag) for s in self.delivered], [(None, '"one"'), (2, None)])


class RetryTests(StreamCase):
    """`retry:`."""

    def test_retry(self):
        """The reconnection delay is reported in seconds."""
        self.assertIsNone(self.stream.retry)
        self.stream.feed(b"retry: 2500\n\n")
        self.assertEqual(self.stream.retry, 2.5)


class ParseTests(SynchronousTestCase):
    """Parsing documents."""

    def test_refused(self):
        """Text that is not JSON, or is nested too deeply, raises a ValueError."""
        for text in ("", "{", "NaN", "[Infinity]", "-Infinity", b"\xff", 100_000 * "[", "1 2", 5000 * "1"):
            self.assertRaises(ValueError, parse, text)
