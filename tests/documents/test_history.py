"""Tests of the history: subscribers get patches where these help, and always enough to have the newest state."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.documents import history
from livestate.documents.document import Document
from livestate.documents.history import MAX_PATCHED_SIZE, MAX_PATCHES, History, Message
from livestate.documents.snapshot import new_snapshot
from livestate.formats.merge_patch import apply
from tests.support import many


def snapshot(version, value, pad=300):
    """Return one version of a document that is much longer than the part that changes."""
    return new_snapshot(json.dumps({"value": value, "pad": "x" * pad}).encode(), version / 1000)


def applied(state, messages):
    """Return what a subscriber with `state` (a parsed document, or None) has after some messages."""
    for message in messages:
        state = apply(state, json.loads(message.data)) if message.is_patch else json.loads(message.data)
    return state


class HistoryTests(SynchronousTestCase):
    def setUp(self):
        self.history = History(Document(Clock(), "/", 2**24))

    def add(self, *values, deltas=True, pad=300):
        """Add a version for each value, numbered from the current one."""
        for value in values:
            self.assertTrue(self.history.add(snapshot(self.history.version + 1, value, pad), deltas))

    def test_no_document(self):
        """Without a document there are no messages."""
        self.assertEqual((self.history.since(0, True), self.history.since(5, False)), ((), ()))

    def test_existing_document(self):
        """A document that exists when the history is created is the first state."""
        document = Document(Clock(), "/", 2**24)
        document.snapshot = snapshot(7, 1)
        created = History(document)
        self.assertEqual(created.since(0, True), (Message(7, document.snapshot.body, False, document.snapshot.tag),))
        self.assertEqual(created.since(7, True), ())

    def test_version_of(self):
        """An event id is recognised by its tag, whatever its number, and never without the tag."""
        self.add(1, 2, 1, 3)
        tags = {value: snapshot(1, value).tag for value in (1, 2, 3, 4)}
        for value, version in ((1, 3), (2, 2), (3, 4), (4, 0)):
            for number in (b"0", b"2", b"4", b"9" * 50, b"x", b""):
                self.assertEqual(self.history.version_of(number + b"-" + tags[value]), version)
        for name in (b"", b"4", b"-", b"4-", b"4-" + tags[3][:-1], tags[3], b"4-" + tags[3] + b", 4-" + tags[3]):
            self.assertEqual(self.history.version_of(name), 0, name)
        self.add(5, deltas=False)
        self.assertEqual(self.history.version_of(b"4-" + tags[3]), 0)

    def test_same_version(self):
        """A version that comes again, with one more content coding, is not a change."""
        self.add(1, 2)
        self.assertFalse(self.history.add(snapshot(2, 2), True))
        self.assertEqual([m.is_patch for m in self.history.since(1, True)], [True])

    @many
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([None, 1, [2], {"a": 1}, {"b": 2}, {"a": None}]), st.booleans(), st.integers(0, 40)
            )
        ),
        st.integers(0, 12),
        st.booleans(),
    )
    def test_any_changes(self, changes, start, deltas):
        """A subscriber with any earlier version has the newest one after applying the messages."""
        self.setUp()
        states = {}
        for value, wanted, pad in changes:
            version = self.history.version + 1
            states[version] = {"value": value, "pad": "x" * pad}
            self.history.add(snapshot(version, value, pad), wanted)
        messages = self.history.since(start, deltas)
        if states:
            self.assertEqual(applied(states.get(start), messages), states[self.history.version])
            size = len(json.dumps(states[self.history.version]))
            self.assertTrue(sum(len(message.data) for message in messages) <= size)
        self.assertTrue(deltas or not any(message.is_patch for message in messages))

    def test_bounds(self):
        """At most MAX_PATCHES patches are kept, and fewer bytes of them than the state has."""
        self.add(*range(MAX_PATCHES * 2), pad=100_000)
        newest = self.history.version
        self.assertEqual(len(self.history.since(newest - MAX_PATCHES, True)), MAX_PATCHES)
        self.assertFalse(self.history.since(newest - MAX_PATCHES - 1, True)[0].is_patch)
        self.add(*["y" * (10_000 + n) for n in range(20)], pad=50_000)
        held = sum(len(patch.data) for patch in self.history._patches)
        self.assertTrue(20_000 < held < 60_000, held)

    def test_not_wanted(self):
        """While no subscriber wants patches none is made, and one made later does not bridge the gap."""
        self.patch(history, "patch", None)
        self.add(1, 2, 3, deltas=False)
        self.patch(history, "patch", lambda before, after: b"{}")
        self.add(4)
        self.assertTrue(self.history.since(3, True)[0].is_patch)
        self.assertFalse(self.history.since(2, True)[0].is_patch)

    def test_large(self):
        """No patch is made for a document above the size limit."""
        self.patch(history, "patch", None)
        self.add(1, 2, pad=MAX_PATCHED_SIZE)
        self.assertFalse(self.history.since(1, True)[0].is_patch)
