"""Documents on their way to workers."""

from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.documents.document import Document
from livestate.documents.snapshot import LARGE
from livestate.workers.feed import DocumentFeed, WorkerFeed
from livestate.workers.messages import Changed, Confirmed, for_supervisor, for_worker
from livestate.workers.pipe import Pipe
from livestate.workers.worker import Supplied
from tests.support import FakeReactor, result_of

TEXT = b'["%b"]' % (b"word " * 100)


class FeedTests(SynchronousTestCase):
    """One document, and workers who are told of it."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.document = Document(self.reactor, "/", 2**24)
        self.shipment = DocumentFeed(self.document)
        self.feeds: list[WorkerFeed] = []
        self.document.subscribe(lambda snapshot: self.tell())
        self.document.on_confirmed = self.tell

    def tell(self) -> None:
        """Tell all workers."""
        for feed in self.feeds:
            feed.tell(self.shipment)

    def worker(self) -> tuple[Pipe[Any], "list[Any]", Supplied]:
        """Begin one more worker; give the supervisor's end, what was said, and what the worker makes of it."""
        pipe = Pipe(for_supervisor(), lambda message: None, lambda: None)
        pipe.makeConnection(StringTransport())
        supplied, said, frames = Supplied(self.reactor, "/", 2**24, 1.0), [], for_worker()

        def heard(data: bytes) -> None:
            for message in frames.feed(data):
                said.append(message)
                if isinstance(message, Confirmed):
                    supplied.document.confirmed = message.when
                elif isinstance(message, Changed):
                    supplied.change(message)

        pipe.transport.write = heard
        self.feeds.append(WorkerFeed(pipe, [self.shipment]))
        return pipe, said, supplied

    def test_begun(self):
        """A worker knows when the fetch of its version began, so that it can tell how long delivery took."""
        result_of(self.document.update(TEXT, 12.5))
        _, _, supplied = self.worker()
        self.assertEqual(supplied.document.fetch_started, 12.5)

    def test_nothing_yet(self):
        """While there is no document nothing is told; then a worker has it in every form, and as fresh as it is."""
        _, said, supplied = self.worker()
        self.assertEqual(said, [])
        self.assertFalse(supplied.is_fresh())
        result_of(self.document.update(TEXT))
        self.assertEqual(supplied.document.snapshot, self.document.snapshot)
        assert supplied.document.snapshot is not None
        self.assertEqual(set(supplied.document.snapshot.representations), {"identity", "gzip", "br", "zstd"})
        self.assertEqual(supplied.document.confirmed, self.document.confirmed)
        self.assertTrue(supplied.is_fresh())

    def test_late(self):
        """A worker that begins later is told what there is."""
        result_of(self.document.update(TEXT))
        _, _, supplied = self.worker()
        self.assertEqual(supplied.document.snapshot, self.document.snapshot)

    def test_confirmation(self):
        """A confirmation without a change is one small message."""
        result_of(self.document.update(TEXT))
        _, said, supplied = self.worker()
        said.clear()
        self.reactor.advance(1)
        result_of(self.document.update(TEXT))
        self.assertEqual(said, [Confirmed("/", self.reactor.seconds())])
        self.assertEqual(supplied.document.age(), 0)

    def test_codings_follow(self):
        """Of a large document each form is sent once, as it comes, and nothing is made twice for two workers."""
        (_, said, supplied), (_, other, _) = self.worker(), self.worker()
        large = b"[%b]" % b",".join(b"%d" % n for n in range(LARGE // 4))
        result_of(self.document.update(large))
        changes = [message for message in said if isinstance(message, Changed)]
        sent = [coding for change in changes for coding, *_ in change.representations]
        self.assertEqual(sorted(sent), ["br", "gzip", "identity", "zstd"])
        self.assertEqual(supplied.document.snapshot, self.document.snapshot)
        self.assertEqual(said, other)

    def test_conflated(self):
        """A worker that does not read is told nothing, and then only the newest."""
        pipe, said, supplied = self.worker()
        result_of(self.document.update(b"[0]"))
        said.clear()
        pipe.pauseProducing()
        for number in range(1, 6):
            self.reactor.advance(1)
            result_of(self.document.update(b"[%d]" % number))
        self.assertEqual(said, [])
        pipe.resumeProducing()
        self.assertEqual([type(message) for message in said], [Confirmed, Changed])
        self.assertEqual(supplied.document.snapshot, self.document.snapshot)
        pipe.resumeProducing()
        self.assertEqual(len(said), 2)
