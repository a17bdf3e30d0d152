"""Tests of Document, with good, bad and large updates."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

import livestate.documents.document
from livestate.documents.document import Document
from livestate.documents.snapshot import LARGE, Snapshot, new_snapshot
from livestate.errors import DocumentRefused
from tests.support import NOW, FakeReactor, few, result_of

SMALL = b'{"votes": 1}'
MIDDLE = json.dumps({"votes": list(range(200))}).encode()
BIG = json.dumps([{"row": n} for n in range(LARGE // 10)]).encode()

updates = st.lists(st.sampled_from([SMALL, b"2", b'"nope', b"", MIDDLE, b"3" * 2000, b"\xff"]), max_size=12)


class DocumentTests(SynchronousTestCase):
    """What an update does."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.document = Document(self.reactor, "/", 2**20)
        self.published: list[Snapshot] = []
        self.document.subscribe(self.published.append)

    def update(self, data):
        result_of(self.document.update(data))

    def test_first(self):
        """A good document is published once, as plain bytes."""
        self.update(MIDDLE)
        (snapshot,) = self.published
        self.assertIs(self.document.snapshot, snapshot)
        self.assertEqual(set(snapshot.representations), {"identity"})
        self.assertEqual((snapshot.body, snapshot.modified, snapshot.version), (MIDDLE, NOW, int(NOW * 1000)))
        self.assertEqual((self.document.changes, self.document.refusals), (1, 0))

    def test_unchanged(self):
        """Equal bytes publish no new snapshot, but confirm the document."""
        self.update(SMALL)
        before = self.document.snapshot
        self.reactor.advance(3)
        self.assertEqual(self.document.age(), 3)
        self.update(bytes(bytearray(SMALL)))
        self.assertIs(self.document.snapshot, before)
        self.assertEqual(len(self.published), 1)
        self.assertEqual(self.document.age(), 0)
        self.assertEqual(self.document.changes, 1)

    def test_unchanged_costs_nothing(self):
        """Equal bytes are not checked, compressed or hashed again."""
        self.update(MIDDLE)

        def fail(*args):
            raise AssertionError("worked for nothing")

        for name in ("check", "new_snapshot"):
            self.patch(livestate.documents.document, name, fail)
        self.update(MIDDLE)

    def test_refused(self):
        """A refused document keeps the last good one and its age, and is counted every time."""
        self.update(SMALL)
        self.reactor.advance(5)
        for _ in range(3):
            error = self.assertRaises(DocumentRefused, self.update, b'{"votes": ')
        self.assertIn("truncated", str(error))
        assert self.document.snapshot is not None
        self.assertEqual(self.document.snapshot.body, SMALL)
        self.assertEqual((self.document.age(), self.document.refusals, len(self.published)), (5, 3, 1))

    def test_verdict_is_remembered(self):
        """The same bad bytes are not checked again, until good ones have come in between."""
        checked = []

        def check(data, size):
            checked.append(data)
            if data == b"bad":
                raise DocumentRefused("bad")

        self.patch(livestate.documents.document, "check", check)
        self.update(SMALL)
        for _ in range(3):
            self.assertRaises(DocumentRefused, self.update, b"bad")
        self.assertEqual(checked, [SMALL, b"bad"])
        self.update(SMALL)
        self.assertRaises(DocumentRefused, self.update, b"bad")
        self.assertEqual(checked, [SMALL, b"bad", b"bad"])

    def test_too_large(self):
        """A document over the size limit is refused without using a thread, although it is large."""
        self.reactor.hold_threads = True
        document = Document(self.reactor, "/", 1000)
        error = self.assertRaises(DocumentRefused, result_of, document.update(BIG))
        self.assertIn("--max-size is 1,000", str(error))
        self.assertEqual(self.reactor.jobs, [])

    def test_large(self):
        """A large document is checked and hashed in threads, and published once, as plain bytes."""
        self.reactor.hold_threads = True
        done = Deferred.fromCoroutine(self.document.update(BIG))
        for _ in ("its check", "its entity tag"):
            self.assertIsNone(self.document.snapshot)
            self.assertNoResult(done)
            self.reactor.run_job()
        self.successResultOf(done)
        self.assertEqual([set(snapshot.representations) for snapshot in self.published], [{"identity"}])
        self.assertEqual((self.document.changes, self.reactor.jobs), (1, []))

    def test_large_and_bad(self):
        """A large bad document is refused in a thread and never published."""
        self.reactor.hold_threads = True
        done = Deferred.fromCoroutine(self.document.update(BIG[:-1]))
        self.reactor.run_job()
        self.failureResultOf(done, DocumentRefused)
        self.assertEqual(self.published, [])

    def test_large_cancelled(self):
        """An update that is cancelled while a coding is being made leaves that to the thread."""
        self.update(BIG)
        self.document.ask(("gzip",))
        self.reactor.hold_threads = True
        done = Deferred.fromCoroutine(self.document.update(b"[0,%b" % BIG[1:]))
        self.reactor.run_job()
        self.reactor.run_job()
        self.assertNoResult(done)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        assert self.document.snapshot is not None
        self.assertEqual(set(self.document.snapshot.representations), {"identity"})
        self.reactor.run_job()
        self.assertEqual(set(self.document.snapshot.representations), {"identity", "gzip"})

    def test_age_never_negative(self):
        """The age is not negative after the clock was set back."""
        self.update(SMALL)
        self.reactor.rightNow -= 100
        self.assertEqual(self.document.age(), 0)

    @few
    @given(updates, st.lists(st.floats(-5, 5), min_size=12, max_size=12), st.integers(0, 2**48))
    def test_versions_go_up(self, sequence, steps, restored):
        """Whatever the updates and the clock, versions increase with every change, also after a restore."""
        reactor = FakeReactor()
        document = Document(reactor, "/", 1000)
        published: list[Snapshot] = []
        document.subscribe(published.append)
        document.restore(new_snapshot(b'"saved"', NOW, restored), NOW - 60)
        good = [b'"saved"']
        for data, step in zip(sequence, steps, strict=False):
            reactor.rightNow += step
            try:
                result_of(document.update(data))
            except DocumentRefused:
                pass
            else:
                good.append(data)
            assert document.snapshot is not None
            self.assertEqual(document.snapshot.body, good[-1])
        versions = [snapshot.version for snapshot in published]
        self.assertEqual(versions, sorted(set(versions)))
        self.assertEqual(len(published), document.changes + 1)

    def test_restore(self):
        """A restored snapshot is published with its own age, and equal bytes from the store confirm it."""
        saved = new_snapshot(SMALL, NOW - 100, 7)
        self.document.restore(saved, NOW - 60)
        self.assertEqual((self.document.snapshot, self.document.age()), (saved, 60))
        self.update(SMALL)
        self.assertIs(self.document.snapshot, saved)
        self.assertEqual((self.document.age(), self.document.changes), (0, 0))

    def test_unsubscribe(self):
        """Unsubscribing ends the calls, works twice, and works during a call, as does subscribing."""
        calls = []

        def once(snapshot):
            calls.append("once")
            unsubscribe()
            self.document.subscribe(lambda snapshot: calls.append("late"))

        unsubscribe = self.document.subscribe(once)
        self.document.subscribe(lambda snapshot: calls.append("always"))
        self.update(b"1")
        self.assertEqual(calls, ["once", "always"])
        unsubscribe()
        self.update(b"2")
        self.assertEqual(calls, ["once", "always", "always", "late"])
