"""Many documents of one store: what is read, what is logged, and how fresh they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from livestate.documents.batches import LARGE_VALUE, MAX_BYTES, MAX_KEYS, batches
from livestate.documents.document import Document
from livestate.documents.polled_document import PolledDocument
from livestate.documents.poller import MIN_POLL_SPACING, SWEEP_TICKS, StorePoller
from livestate.documents.poller_log import MAX_LINES
from livestate.errors import DocumentMissing, LivestateError, SourceError
from livestate.sources.api import IWatchingStore
from tests.support import FakeReactor, few, log_lines


@implementer(IWatchingStore)
class FakeStore:
    """A store of values, which can confirm that they have not changed, fail, and be silent."""

    def __init__(self, confirms: bool = True) -> None:
        self.values: dict[str, bytes] = {}
        self.errors: dict[str, LivestateError] = {}
        self.confirms = confirms
        self.failure: BaseException | None = None
        self.silent = False
        self.reads: list[list[str]] = []
        self.confirmations = 0
        self.changed: Callable[[str | None], None] = lambda key: None
        self.closed = 0

    def __str__(self) -> str:
        return "fake://store"

    async def read(self, keys: Sequence[str]) -> Mapping[str, bytes | LivestateError]:
        self.reads.append(list(keys))
        await self._answer()
        return {
            key: self.errors.get(key) or self.values.get(key) or DocumentMissing(f"no such key: {key}") for key in keys
        }

    def watch(self, changed: Callable[[str | None], None]) -> None:
        self.changed = changed

    async def confirm(self) -> bool:
        self.confirmations += 1
        await self._answer()
        return self.confirms

    def close(self) -> None:
        self.closed += 1

    async def _answer(self) -> None:
        if self.silent:
            await Deferred()
        if self.failure is not None:
            raise self.failure


class StoreCase(SynchronousTestCase):
    """A store with documents."""

    def start(self, count: int = 1000, confirms: bool = True) -> None:
        self.reactor = FakeReactor()
        self.store = FakeStore(confirms)
        self.poller = StorePoller(self.store, 1.0, self.reactor)
        self.documents: dict[str, PolledDocument] = {}
        for number in range(count):
            self.store.values[f"k{number}"] = b"%d" % number
            self.add(f"k{number}")
        self.poller.startService()
        self.addCleanup(self.poller.stopService)

    def add(self, key: str) -> PolledDocument:
        document = Document(self.reactor, f"/{key}", 2**20)
        polled = self.documents[key] = PolledDocument(document, key, f"fake://store?key={key}", self.poller)
        self.poller.add(polled)
        return polled

    def change(self, key: str, value: bytes) -> None:
        """Change a key, and have the store notify of it."""
        self.store.values[key] = value
        self.store.changed(key)

    def body(self, key: str) -> bytes | None:
        snapshot = self.documents[key].document.snapshot
        return None if snapshot is None else snapshot.body

    def keys_read(self) -> list[str]:
        """Return the keys that were read since the last call."""
        keys = [key for keys in self.store.reads for key in keys]
        self.store.reads.clear()
        return keys


class StorePollerTests(StoreCase):
    """Reading."""

    def test_interface(self) -> None:
        """The store of these tests is one as livestate knows it."""
        verifyObject(IWatchingStore, FakeStore())

    def test_start(self) -> None:
        """At the start each document is read once, in batches."""
        self.start(1000)
        self.reactor.run_for(0.5)
        self.assertLessEqual(max(map(len, self.store.reads)), MAX_KEYS)
        self.assertEqual(sorted(self.keys_read()), sorted(self.documents))
        for number in (0, 500, 999):
            self.assertEqual(self.body(f"k{number}"), b"%d" % number)

    def test_confirmed(self) -> None:
        """While the store confirms, a second costs one confirmation and a sixtieth of the keys, and all are fresh."""
        self.start(1000)
        self.reactor.run_for(3.5)
        self.keys_read()
        self.store.confirmations = 0
        self.reactor.run_for(10)
        self.assertEqual(self.store.confirmations, 10)
        self.assertLessEqual(len(self.keys_read()), 10 * (1000 // SWEEP_TICKS + 1))
        self.assertTrue(all(polled.is_fresh() for polled in self.documents.values()))
        self.assertLess(max(polled.document.age() for polled in self.documents.values()), 1.1)

    def test_sweep(self) -> None:
        """A change that the store did not notify of is found within a minute all the same."""
        self.start(1000)
        self.reactor.run_for(2)
        for key in ("k0", "k321", "k999"):
            self.store.values[key] = b"[1]"
        self.reactor.run_for(2 * SWEEP_TICKS)
        self.assertEqual([self.body(key) for key in ("k0", "k321", "k999")], [b"[1]"] * 3)

    def test_not_confirmed(self) -> None:
        """While the store cannot confirm, every key is read every interval."""
        self.start(300, confirms=False)
        self.reactor.run_for(0.5)
        self.keys_read()
        self.store.values["k7"] = b"[7]"
        self.reactor.run_for(1)
        self.assertEqual(sorted(self.keys_read()), sorted(self.documents))
        self.assertEqual(self.body("k7"), b"[7]")

    def test_change(self) -> None:
        """A key that the store notifies of is read at once, and no other is."""
        self.start(1000)
        self.reactor.run_for(1.5)
        self.keys_read()
        self.change("k5", b"[5]")
        self.assertEqual((self.keys_read(), self.body("k5")), (["k5"], b"[5]"))
        self.assertEqual(self.documents["k5"].stats.notifications, 1)
        self.assertEqual(self.documents["k6"].stats.notifications, 0)

    def test_change_during_a_read(self) -> None:
        """A key that is reported while it is read is read once more."""
        self.start(3)
        self.reactor.run_for(1.5)
        self.store.silent = True
        self.change("k1", b"[1]")
        self.store.values["k1"] = b"[2]"
        self.store.changed("k1")
        self.store.silent = False
        self.reactor.run_for(2)
        self.assertEqual(self.body("k1"), b"[2]")

    def test_many_changes(self) -> None:
        """Changes that come faster are read together, at most every 50 ms, and none is missed."""
        self.start(100)
        self.reactor.run_for(1.5)
        self.keys_read()
        before = self.reactor.seconds()
        for number in range(100):
            self.change(f"k{number}", b"[%d]" % number)
            self.reactor.advance(0.001)
        self.reactor.run_for(0.2, step=0.01)
        reads = len(self.store.reads)
        self.assertLessEqual(reads, (self.reactor.seconds() - before) / MIN_POLL_SPACING + 2)
        self.assertEqual([self.body(f"k{n}") for n in range(100)], [b"[%d]" % n for n in range(100)])

    def test_everything_changed(self) -> None:
        """When the store cannot tell which keys have changed, all are read at once."""
        self.start(300)
        self.reactor.run_for(1.5)
        self.keys_read()
        self.store.values["k123"] = b"[1]"
        self.store.changed(None)
        self.reactor.run_for(0.2)
        self.assertEqual(self.body("k123"), b"[1]")
        self.assertEqual(set(self.keys_read()), set(self.documents))

    def test_add_and_remove(self) -> None:
        """A document that is added while the store is polled is read at once; one that is removed no more."""
        self.start(10)
        self.reactor.run_for(1.5)
        self.keys_read()
        self.store.values["new"] = b"[0]"
        self.add("new")
        self.reactor.run_for(0.1)
        self.assertEqual((self.keys_read(), self.body("new")), (["new"], b"[0]"))
        self.poller.remove(self.documents["k3"])
        self.change("k3", b"[3]")
        self.reactor.run_for(2 * SWEEP_TICKS)
        self.assertNotIn("k3", self.keys_read())
        self.assertEqual(self.body("k3"), b"3")

    def test_one_key_twice(self) -> None:
        """Two documents of one key are updated by one read."""
        self.start(2)
        self.reactor.run_for(1.5)
        other = PolledDocument(Document(self.reactor, "/other", 100), "k1", "fake://store?key=k1", self.poller)
        self.poller.add(other)
        self.reactor.run_for(0.1)
        self.keys_read()
        self.change("k1", b"[1]")
        self.assertEqual(self.keys_read(), ["k1"])
        assert other.document.snapshot is not None
        self.assertEqual((self.body("k1"), other.document.snapshot.body), (b"[1]", b"[1]"))

    def test_stop(self) -> None:
        """A poller that is stopped reads no more, and closes its store once."""
        self.start(10)
        self.poller.stopService()
        self.keys_read()
        self.store.changed("k1")
        self.reactor.run_for(3)
        self.assertEqual((self.keys_read(), self.store.closed), ([], 1))
        self.poller.startService()  # for the clean-up


class TroubleTests(StoreCase):
    """Failures."""

    def test_store_failed(self) -> None:
        """A store that fails is one line, whatever the number of documents, and one when it is back."""
        self.start(1000)
        self.reactor.run_for(1.5)
        with log_lines(LogLevel.info) as lines:
            self.store.failure = SourceError("away")
            self.reactor.run_for(10)
            self.assertEqual(lines, ["fake://store (1000 documents): away; serving the last good documents, retrying"])
            stats = self.documents["k7"].stats
            self.assertEqual(stats.error, "away")
            self.assertGreater(stats.failures, 5)
            self.assertFalse(self.documents["k7"].is_fresh())
            self.store.failure = None
            self.reactor.run_for(3)
        self.assertEqual(len(lines), 2)
        self.assertIn("fake://store (1000 documents): recovered after", lines[1])
        self.assertTrue(self.documents["k7"].is_fresh())
        self.assertIsNone(stats.error)

    def test_changes_meanwhile(self) -> None:
        """What was to be read when the store failed is read when it is back."""
        self.start(1000)
        self.reactor.run_for(1.5)
        self.store.failure = SourceError("away")
        for number in range(0, 1000, 3):
            self.change(f"k{number}", b"[%d]" % number)
        self.reactor.run_for(5)
        self.store.failure = None
        self.reactor.run_for(2)
        for number in range(0, 1000, 3):
            self.assertEqual(self.body(f"k{number}"), b"[%d]" % number)

    def test_silent(self) -> None:
        """A store that does not answer is a failure after 0.8 of the interval."""
        self.start(10)
        self.reactor.run_for(1.5)
        self.store.silent = True
        with log_lines() as lines:
            self.reactor.run_for(2)
        self.assertIn("no answer within 0.8 s", lines[0])

    def test_document_failed(self) -> None:
        """What is wrong with one key is that document's error alone."""
        self.start(100)
        self.reactor.run_for(1.5)
        with log_lines() as lines:
            self.store.errors["k5"] = SourceError("not a string")
            del self.store.values["k6"]
            self.store.values["k7"] = b"{"
            for key in ("k5", "k6", "k7"):
                self.store.changed(key)
            self.reactor.run_for(5)
        self.assertEqual(len(lines), 3)
        self.assertIn("/k5: fake://store?key=k5: not a string; serving the last good document, retrying", lines)
        errors = {key: polled.stats.error for key, polled in self.documents.items() if polled.stats.error}
        self.assertEqual(set(errors), {"k5", "k6", "k7"})
        self.assertFalse(self.documents["k5"].is_fresh())
        self.assertTrue(self.documents["k8"].is_fresh())
        del self.store.errors["k5"]
        self.store.changed("k5")
        self.reactor.run_for(0.1)
        self.assertTrue(self.documents["k5"].is_fresh())
        self.assertIsNone(self.documents["k5"].stats.error)

    def test_many_documents_failed(self) -> None:
        """However many documents have an error of their own, the log stays readable."""
        with log_lines() as lines:
            self.reactor = FakeReactor()
            self.store = FakeStore()
            self.poller = StorePoller(self.store, 1.0, self.reactor)
            self.documents = {}
            for number in range(1000):
                self.add(f"k{number}")
            self.poller.startService()
            self.addCleanup(self.poller.stopService)
            self.reactor.run_for(5)
        self.assertEqual(len(lines), MAX_LINES + 1)
        self.assertIn("more documents have changed their state", lines[-1])

    def test_age(self) -> None:
        """The age of a document counts from the last confirmation, shared or its own."""
        self.start(10)
        self.reactor.run_for(3.5)
        self.assertLess(self.documents["k1"].document.age(), 1.1)
        self.store.failure = SourceError("away")
        self.reactor.run_for(10)
        self.assertGreater(self.documents["k1"].document.age(), 9)
        self.store.failure = None
        self.reactor.run_for(2)
        self.assertLess(self.documents["k1"].document.age(), 1.1)


class BatchTests(SynchronousTestCase):
    """Batches."""

    @few
    @given(st.lists(st.integers(0, 2 * LARGE_VALUE), max_size=2000))
    def test_batches(self, sizes: list[int]) -> None:
        """Every key is in one batch; no batch is too long or too large; a large value is alone, and read last."""
        keys = {f"k{number}": size for number, size in enumerate(sizes)}
        made: list[Any] = list(batches(keys, keys.__getitem__))
        self.assertEqual(sorted(key for batch in made for key in batch), sorted(keys))
        for batch in made:
            self.assertLessEqual(len(batch), MAX_KEYS)
            if len(batch) > 1:
                self.assertLess(max(keys[key] for key in batch), LARGE_VALUE)
                self.assertLessEqual(sum(keys[key] for key in batch), MAX_BYTES)
        large = [len(batch) == 1 and keys[batch[0]] >= LARGE_VALUE for batch in made]
        self.assertEqual(large, sorted(large))
