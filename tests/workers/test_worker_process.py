"""One worker process, as the supervisor sees it."""

from twisted.trial.unittest import SynchronousTestCase

from livestate.web.counts import Counts, DocumentCounts
from livestate.workers.messages import Alive
from livestate.workers.worker_process import WorkerProcess
from tests.support import FakeReactor


class CountsTests(SynchronousTestCase):
    """The counters that a worker sends with its heartbeats."""

    def test_merged(self):
        """A heartbeat has the counters that have changed; those of other documents stay as they were."""
        worker = WorkerProcess(FakeReactor(), 0, lambda worker: None, lambda: None)
        for documents, connections in (
            ({"/a": DocumentCounts(bytes_sent=1), "/b": DocumentCounts(event_readers=2)}, 5),
            ({"/b": DocumentCounts(event_readers=0, events_sent=7)}, 4),
            ({}, 3),
        ):
            worker._message_received(Alive(Counts(documents, connections=connections)))
            self.assertEqual((worker.counts.connections, worker.silence), (connections, 0))
        self.assertEqual(
            worker.counts.documents,
            {"/a": DocumentCounts(bytes_sent=1), "/b": DocumentCounts(event_readers=0, events_sent=7)},
        )
        self.assertEqual(worker.counts.past().documents["/b"].events_sent, 7)
