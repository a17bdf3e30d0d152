"""Sending documents to workers."""

from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.documents.document import Document
from livestate.documents.snapshot import LARGE
from livestate.workers.document_feed import DocumentFeed
from livestate.workers.document_replica import DocumentReplica
from livestate.workers.messages import Changed, Confirmed, supervisor_decoder, worker_decoder
from livestate.workers.pipe import Pipe
from livestate.workers.worker_feed import WorkerFeed
from tests.support import FakeReactor, result_of

TEXT = b'["%b"]' % (b"word " * 100)


class FeedTests(SynchronousTestCase):
    """One document, and the workers that it is sent to."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.document = Document(self.reactor, "/", 2**24)
        self.document_feed = DocumentFeed(self.document)
        self.worker_feeds: list[WorkerFeed] = []
        self.document.subscribe(lambda snapshot: self.notify())
        self.document.on_confirmed = self.notify

    def notify(self) -> None:
        """Notify all workers."""
        for worker_feed in self.worker_feeds:
            worker_feed.notify(self.document_feed)

    def worker(self) -> tuple[Pipe[Any], "list[Any]", DocumentReplica]:
        """Start another worker; return the supervisor's end of its pipe, the messages sent, and the worker's replica."""
        pipe = Pipe(supervisor_decoder(), lambda message: None, lambda: None)
        pipe.makeConnection(StringTransport())
        replica, messages, decoder = DocumentReplica(self.reactor, "/", 2**24, 1.0), [], worker_decoder()

        def write(data: bytes) -> None:
            for message in decoder.feed(data):
                messages.append(message)
                if isinstance(message, Confirmed):
                    replica.document.confirmed = message.when
                elif isinstance(message, Changed):
                    replica.apply(message)

        pipe.transport.write = write
        self.worker_feeds.append(WorkerFeed(pipe, [self.document_feed]))
        return pipe, messages, replica

    def test_fetch_start(self):
        """A worker knows when the fetch of its version began, so that it can measure the delivery delay."""
        result_of(self.document.update(TEXT, 12.5))
        _, _, replica = self.worker()
        self.assertEqual(replica.document.fetch_started, 12.5)

    def test_nothing_yet(self):
        """Nothing is sent while there is no document; the first version arrives as plain bytes, and as fresh as it is."""
        _, messages, replica = self.worker()
        self.assertEqual(messages, [])
        self.assertFalse(replica.is_fresh())
        result_of(self.document.update(TEXT))
        self.assertEqual(replica.document.snapshot, self.document.snapshot)
        assert replica.document.snapshot is not None
        self.assertEqual(set(replica.document.snapshot.representations), {"identity"})
        self.assertEqual(replica.document.confirmed, self.document.confirmed)
        self.assertTrue(replica.is_fresh())

    def test_late_worker(self):
        """A worker that starts later is sent the current version."""
        result_of(self.document.update(TEXT))
        _, _, replica = self.worker()
        self.assertEqual(replica.document.snapshot, self.document.snapshot)

    def test_confirmation(self):
        """A confirmation without a change is one small message."""
        result_of(self.document.update(TEXT))
        _, messages, replica = self.worker()
        messages.clear()
        self.reactor.advance(1)
        result_of(self.document.update(TEXT))
        self.assertEqual(messages, [Confirmed("/", self.reactor.seconds())])
        self.assertEqual(replica.document.age(), 0)

    def test_codings_are_made_where_they_are_asked_for(self):
        """A worker makes the codings that it is asked for, under the same tags, and is sent each version once."""
        (_, messages, replica), (_, others, other_replica) = self.worker(), self.worker()
        large = b"[%b]" % b",".join(b"%d" % n for n in range(LARGE // 4))
        for data in (TEXT, large):
            result_of(self.document.update(data))
            for document in (self.document, replica.document):
                document.ask(("br",))
            assert self.document.snapshot is not None and replica.document.snapshot is not None
            self.assertEqual(replica.document.snapshot, self.document.snapshot)
            self.assertEqual(set(replica.document.snapshot.representations) - {"zstd"}, {"identity", "br"})
            assert other_replica.document.snapshot is not None
            self.assertEqual(set(other_replica.document.snapshot.representations), {"identity"})
        self.assertEqual(len([message for message in messages if isinstance(message, Changed)]), 2)
        self.assertEqual(messages, others)

    def test_conflated(self):
        """A worker that does not read is sent nothing, and then only the newest version."""
        pipe, messages, replica = self.worker()
        result_of(self.document.update(b"[0]"))
        messages.clear()
        pipe.pauseProducing()
        for number in range(1, 6):
            self.reactor.advance(1)
            result_of(self.document.update(b"[%d]" % number))
        self.assertEqual(messages, [])
        pipe.resumeProducing()
        self.assertEqual([type(message) for message in messages], [Confirmed, Changed])
        self.assertEqual(replica.document.snapshot, self.document.snapshot)
        pipe.resumeProducing()
        self.assertEqual(len(messages), 2)
