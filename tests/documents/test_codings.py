"""Content codings, made when they are asked for."""

import json
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

import livestate.documents.codings
import livestate.documents.snapshot
from livestate.documents.codings import LINGER
from livestate.documents.document import Document
from livestate.documents.snapshot import ENCODERS, LARGE, Snapshot
from livestate.formats.negotiation import CODINGS
from tests.codings import DECODERS
from tests.support import FakeReactor, few, stories


def document_of(number: int, rows: int = 50) -> bytes:
    """Return a document that every coding makes smaller."""
    return json.dumps([number, *({"row": n} for n in range(rows))]).encode()


def large(number: int) -> bytes:
    """Return a large document."""
    return document_of(number, LARGE // 10)


class Case(SynchronousTestCase):
    """One document."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.document = Document(self.reactor, "/", 2**20)
        self.published: list[Snapshot] = []
        self.document.subscribe(self.published.append)

    def update(self, data: bytes) -> None:
        Deferred.fromCoroutine(self.document.update(data))

    def made(self) -> set[str]:
        """Return the codings that the current version has."""
        assert self.document.snapshot is not None
        return set(self.document.snapshot.representations) - {"identity"}

    def jobs(self) -> int:
        """Return the number of threads."""
        return len(self.reactor.jobs)


class SmallTests(Case):
    """A document that is compressed at once."""

    def test_on_demand(self):
        """Nothing is made before it is asked for; then it is there at once, and published."""
        self.update(document_of(1))
        self.assertEqual(self.made(), set())
        snapshot = self.document.ask(("gzip", "br", "identity"))
        assert snapshot is not None
        self.assertEqual(self.made(), {"gzip"})
        self.assertIs(self.published[-1], snapshot)
        self.assertEqual([s.version for s in self.published], [snapshot.version] * 2)
        self.document.ask(("gzip", "identity"))
        self.assertEqual(len(self.published), 2)
        self.assertEqual(self.jobs(), 0)

    def test_plain(self):
        """A client that prefers the plain bytes, or accepts nothing, makes no coding."""
        self.update(document_of(1))
        for codings in (("identity", "br"), ("identity",), ()):
            self.document.ask(codings)
        self.assertEqual((self.made(), len(self.published)), (set(), 1))

    def test_nothing_yet(self):
        """Without a document there is nothing to make."""
        self.assertIsNone(self.document.ask(("br",)))

    def test_in_use(self):
        """A coding that is in use is published with the next version, and no other coding is."""
        self.update(document_of(1))
        self.document.ask(("br", "gzip"))
        self.update(document_of(2))
        self.assertEqual(set(self.published[-1].representations), {"identity", "br"})
        self.assertEqual(len(self.published), 3)

    def test_no_longer_in_use(self):
        """A coding that no one asked for in the last version is made for LINGER seconds, and then not again."""
        self.update(document_of(1))
        self.document.ask(("br",))
        self.reactor.advance(LINGER + 1)
        self.update(document_of(2))  # asked for since the previous version
        self.assertEqual(self.made(), {"br"})
        self.reactor.advance(1)
        self.update(document_of(3))
        self.assertEqual(self.made(), set())
        self.document.ask(("br",))
        for number in range(4, 8):
            self.reactor.advance(1)
            self.update(document_of(number))
            self.assertEqual(self.made(), {"br"})

    @few
    @given(st.permutations(CODINGS), st.sets(st.sampled_from(sorted(ENCODERS))))
    def test_the_best_that_helps(self, order, useless):
        """A client gets the first coding that makes the document smaller, whichever do not."""
        encoders = {coding: (bytes if coding in useless else encode) for coding, encode in ENCODERS.items()}
        self.patch(livestate.documents.snapshot, "ENCODERS", encoders)
        self.setUp()
        self.update(document_of(1))
        snapshot = self.document.ask(tuple(order))
        assert snapshot is not None
        best = snapshot.best(order)
        assert best is not None
        self.assertEqual(best.coding, next(coding for coding in order if coding not in useless))


class LargeTests(Case):
    """A document that is compressed in a thread."""

    def setUp(self):
        super().setUp()
        self.update(large(1))
        self.reactor.hold_threads = True

    def change(self, number: int) -> Deferred[None]:
        """Start an update, and run it until the new version is published."""
        done = Deferred.fromCoroutine(self.document.update(large(number)))
        for _ in ("its check", "its entity tag"):
            self.reactor.jobs.pop()()
        return done

    def test_single_flight(self):
        """A coding is made by one thread, however often it is asked for, and published when it is ready."""
        for _ in range(5):
            self.document.ask(("gzip", "identity"))
        self.assertEqual((self.jobs(), self.made()), (1, set()))
        self.assertTrue(self.document.making(("gzip", "identity")))
        self.assertFalse(self.document.making(("identity", "gzip")))
        self.reactor.run_job()
        self.assertEqual((self.jobs(), self.made()), (0, {"gzip"}))
        self.assertFalse(self.document.making(("gzip", "identity")))
        self.assertEqual(len(self.published), 2)

    def test_fastest_meanwhile(self):
        """A client that prefers a slow coding and accepts the fastest one can have that first."""
        self.document.ask(("br", "gzip", "zstd", "identity"))
        self.reactor.run_job()
        self.assertEqual(self.made(), {"zstd"})
        self.assertTrue(self.document.making(("br", "zstd")))
        self.reactor.run_job()
        self.assertEqual((self.made(), self.jobs()), ({"zstd", "br"}, 0))

    def test_in_use(self):
        """A coding in use is made for the next version at once, and the update ends when it is published."""
        self.document.ask(("gzip",))
        self.reactor.run_job()
        done = self.change(2)
        self.assertEqual((self.made(), self.jobs()), (set(), 1))
        self.assertNoResult(done)
        self.reactor.run_job()
        self.assertEqual((self.made(), self.jobs()), ({"gzip"}, 0))
        self.successResultOf(done)

    def test_not_in_use(self):
        """An update does not wait for codings that no one wants."""
        self.successResultOf(self.change(2))
        self.assertEqual((self.made(), self.jobs()), (set(), 0))

    def test_change_while_making(self):
        """A coding that is ready after a change is dropped, and made for the new version by the same single thread."""
        self.document.ask(("gzip",))
        done = self.change(2)
        self.assertEqual(self.jobs(), 1)
        self.reactor.run_job()
        self.assertEqual((self.made(), self.jobs()), (set(), 1))
        self.reactor.run_job()
        self.successResultOf(done)
        assert self.document.snapshot is not None
        self.assertEqual(DECODERS["gzip"](self.document.snapshot.representations["gzip"].body), large(2))

    def test_replaced_while_making(self):
        """A document that takes over while a coding is being made has it soon, without being asked."""
        self.document.ask(("gzip",))
        replacement = Document(self.reactor, "/", 2**20)
        replacement.take_over(self.document)
        self.assertTrue(replacement.making(("gzip",)))
        while self.reactor.jobs:
            self.reactor.run_job()
        assert replacement.snapshot is not None
        self.assertIn("gzip", replacement.snapshot.representations)
        late = Document(self.reactor, "/", 2**20)
        late.take_over(replacement)
        self.assertEqual((late.snapshot, self.jobs()), (replacement.snapshot, 0))

    def test_failure(self):
        """If a coding cannot be made, that is logged, and this version is served without it; the next one is tried."""

        def fail(data, coding):
            raise MemoryError

        with mock.patch.object(livestate.documents.codings, "encoded", fail):
            self.document.ask(("gzip", "identity"))
            self.reactor.run_job()
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.assertFalse(self.document.making(("gzip", "identity")))
        self.document.ask(("gzip", "identity"))
        self.assertEqual((self.made(), self.jobs()), (set(), 0))
        self.change(2)
        self.reactor.run_job()
        self.assertEqual(self.made(), {"gzip"})


class Codings(RuleBasedStateMachine):
    """Clients that ask, changes, reloads, and threads that finish at any time."""

    def __init__(self):
        super().__init__()
        self.reactor = FakeReactor(hold_threads=True)
        self.document = Document(self.reactor, "/", 2**20)
        self.number = 0
        self.change(False)

    @rule(is_large=st.booleans())
    def change(self, is_large):
        self.number += 1
        Deferred.fromCoroutine(self.document.update(large(self.number) if is_large else document_of(self.number)))
        for _ in range(2 if is_large else 0):
            self.reactor.jobs.pop()()

    @rule(codings=st.permutations(CODINGS), count=st.integers(0, 4))
    def ask(self, codings, count):
        asked = tuple(codings[:count])
        snapshot = self.document.ask(asked)
        assert snapshot is not None
        if len(snapshot.body) < LARGE and asked:
            best = snapshot.best(asked)
            assert best is not None and best.coding == asked[0]

    @rule()
    def finish_thread(self):
        if self.reactor.jobs:
            self.reactor.run_job()

    @rule(seconds=st.floats(0, 2 * LINGER))
    def wait(self, seconds):
        self.reactor.advance(seconds)

    @rule()
    def reload(self):
        previous, self.document = self.document, Document(self.reactor, "/", 2**20)
        self.document.take_over(previous)

    @invariant()
    def what_is_made_is_right(self):
        assert self.document.snapshot is not None
        for coding, representation in self.document.snapshot.representations.items():
            assert DECODERS[coding](representation.body) == self.document.snapshot.body

    @invariant()
    def what_is_awaited_is_being_made(self):
        for coding in ENCODERS:
            assert not self.document.making((coding,)) or self.reactor.jobs

    def teardown(self):
        while self.reactor.jobs:
            self.reactor.run_job()
        assert not any(self.document.making((coding,)) for coding in ENCODERS)


Codings.TestCase.settings = stories
CodingsTests = Codings.TestCase
