"""The supervisor, with fake generations of workers, on a clock that only the test advances."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.web.counts import Counts, DocumentCounts
from livestate.workers import supervisor as module
from livestate.workers.document_replica import DocumentReplica
from livestate.workers.slots import REPORT_AFTER
from livestate.workers.supervisor import DRAIN_TIMEOUT, Supervisor
from livestate.workers.worker_process import MAX_STARTUP
from tests.support import FakeReactor, log_lines, result_of


class FakeWorker:
    """Stands in for a WorkerProcess."""

    def __init__(self, generation: "FakeGeneration", number: int) -> None:
        self.number, self.age, self.silence, self.gone = number, 0, 0, False
        self.pid: int | None = 100 + number
        self.ready = self.unresponsive = False
        self.counts = Counts({"/": DocumentCounts({"br": 10}, event_readers=1)}, connections=1)
        self.generation = generation

    def tick(self) -> None:
        self.age += 1

    def status(self) -> dict[str, Any]:
        return {"pid": self.pid}

    def serve(self) -> None:
        self.ready = True
        self.generation.on_worker_ready(self.generation)

    def end(self) -> None:
        self.gone = True
        self.generation.workers.discard(self)
        self.generation.on_worker_exit(self.generation, self)


class FakeGeneration:
    """Stands in for a Generation."""

    all: "list[FakeGeneration]"

    def __init__(
        self, reactor: Any, feeds: Any, on_worker_exit: Any, on_worker_ready: Any, on_zygote_exit: Any
    ) -> None:
        self.feeds, self.on_zygote_exit = feeds, on_zygote_exit
        self.on_worker_exit, self.on_worker_ready = on_worker_exit, on_worker_ready
        self.workers: set[FakeWorker] = set()
        self.forked: list[FakeWorker] = []
        self.can_fork, self.draining, self.killed, self.stopped = True, False, False, False
        self.notified: list[str] = []
        self.all.append(self)

    def start(self, setup: Any, binders: Any) -> None:
        self.setup = setup

    def fork(self, number: int) -> FakeWorker:
        worker = FakeWorker(self, number)
        self.workers.add(worker)
        self.forked.append(worker)
        return worker

    def notify(self, feed: Any) -> None:
        self.notified.append(feed.document.path)

    def drain(self, shutdown: bool) -> None:
        self.draining, self.shutdown = True, shutdown

    def kill(self) -> None:
        self.killed = True
        for worker in list(self.workers):
            worker.end()

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return succeed(None)

    def die(self) -> None:
        """Let the zygote exit."""
        self.can_fork = False
        self.on_zygote_exit(self)


class SupervisorTests(SynchronousTestCase):
    """A supervisor with two slots."""

    def setUp(self):
        self.generations: list[FakeGeneration] = []
        FakeGeneration.all = self.generations
        self.patch(module, "Generation", FakeGeneration)
        self.reactor = FakeReactor()
        self.settings = load_settings({"workers": ["2"], "http": ["tcp:0:interface=127.0.0.1"], "source": ["demo:"]})
        self.replica = DocumentReplica(self.reactor, "/", 2**20, 1.0)
        self.supervisor = Supervisor(self.reactor, self.settings, [self.replica])
        self.supervisor.privilegedStartService()
        self.supervisor.startService()
        self.addCleanup(self.end)
        for worker in self.generations[0].forked:
            worker.serve()

    def end(self) -> None:
        """Stop what a test has left running."""
        if self.supervisor._drained is None:
            self.supervisor.drain()
            for generation in list(self.generations):
                generation.kill()
        self.supervisor.stopService()

    def pids(self) -> list[Any]:
        """Return the process id of each worker, and whether it is draining."""
        return [(worker["pid"], worker.get("draining", False)) for worker in self.supervisor.workers()]

    def test_replaced_together(self):
        """New workers replace the old ones once all of them are serving; only then are the old ones drained."""
        self.supervisor.renew()
        old, new = self.generations
        new.forked[0].serve()
        self.assertFalse(old.draining)
        self.assertIs(self.supervisor._slots[0].worker, old.forked[0])
        new.forked[1].serve()
        self.assertTrue(old.draining)
        self.assertFalse(old.shutdown)
        self.assertEqual([slot.worker for slot in self.supervisor._slots], new.forked)
        self.assertEqual([draining for _, draining in self.pids()], [False, False, True, True])
        for worker in old.forked:
            self.assertFalse(old.stopped)
            worker.end()
        self.assertTrue(old.stopped)
        self.assertEqual(len(self.pids()), 2)

    def test_failed_start(self):
        """When a new worker exits, or is not serving in time, all new ones are abandoned and the old ones stay."""
        old = self.generations[0]
        for fail in (
            lambda new: new.forked[0].end(),
            lambda new: self.reactor.run_for(MAX_STARTUP + 1, 1.0),
            FakeGeneration.die,
        ):
            with log_lines() as lines:
                self.supervisor.renew()
                new = self.generations[-1]
                fail(new)
            self.assertIn("keeping the current ones", lines[-1])
            self.assertTrue(new.draining)
            self.assertFalse(old.draining)
            self.assertEqual([slot.worker for slot in self.supervisor._slots], old.forked)
            new.kill()

    def test_replacement_is_awaited(self):
        """A request for new workers fires when they are serving or abandoned; of several, all fire with the last."""
        done = self.supervisor.certificates_changed()
        first, second = self.supervisor.renew(), self.supervisor.renew()
        for request in (done, first, second):
            self.assertNoResult(request)
        for worker in self.generations[-1].forked:
            worker.serve()
        for request in (done, first, second):
            self.successResultOf(request)
        self.assertEqual((self.supervisor.trouble(), self.supervisor.outdated()), ("", False))
        failed = self.supervisor.renew()
        self.generations[-1].forked[0].end()
        self.successResultOf(failed)
        self.assertEqual(self.supervisor.trouble(), "new workers failed to start, the previous ones are still serving")
        self.assertTrue(self.supervisor.outdated())
        again = self.supervisor.renew()
        for worker in self.generations[-1].forked:
            worker.serve()
        self.successResultOf(again)
        self.assertFalse(self.supervisor.outdated())
        last = self.supervisor.renew()
        self.supervisor.drain()
        self.successResultOf(last)

    def test_not_serving(self):
        """Workers that are not serving are logged once, after a while, and again when all are serving."""
        with log_lines() as lines:
            self.generations[0].forked[0].end()
            self.assertEqual(self.supervisor.trouble(), "1 of 2 workers not serving")
            self.reactor.run_for(REPORT_AFTER - 1, 1.0)
            self.assertEqual(lines[1:], [])
            self.reactor.run_for(100, 1.0)
            self.assertEqual(len(lines), 2, lines)
            self.assertIn("1 of 2 workers not serving for 10 s", lines[1])
            self.generations[0].forked[-1].serve()
            self.reactor.run_for(2, 1.0)
        self.assertEqual(lines[2:], ["all workers are serving"])
        self.assertTrue(self.supervisor.serving())

    def test_two_at_once(self):
        """When new workers are requested again meanwhile, only the newest generation counts."""
        self.supervisor.renew()
        self.supervisor.renew()
        _, second, third = self.generations
        self.assertTrue(second.draining)
        for worker in (*second.forked, *third.forked):
            worker.serve()
        self.assertEqual([slot.worker for slot in self.supervisor._slots], third.forked)

    def test_zygote_exits(self):
        """When the zygote exits, another generation replaces it after a delay, and until then the workers stay."""
        self.generations[0].die()
        self.assertEqual(len(self.generations), 1)
        self.reactor.advance(1)
        self.assertEqual(len(self.generations), 2)
        self.assertFalse(self.generations[0].draining)
        # That one fails too, and is replaced again.
        self.generations[1].die()
        self.reactor.advance(1)
        self.assertEqual(len(self.generations), 3)

    def test_worker_exits(self):
        """A worker that exits is replaced from the current generation, and its totals stay in the sum."""
        self.generations[0].forked[0].end()
        self.assertEqual(len(self.generations[0].forked), 3)
        counts = self.supervisor.counts()
        self.assertEqual((counts.documents["/"].answers, counts.documents["/"].event_readers), ({"br": 30}, 2))
        self.supervisor.renew()
        for worker in self.generations[1].forked:
            worker.serve()
        self.generations[0].forked[1].end()
        self.assertEqual((len(self.generations[0].forked), len(self.generations[1].forked)), (3, 2))

    def test_notified(self):
        """All generations that have workers are notified of a change or confirmation of a document."""
        self.supervisor.renew()
        result_of(self.replica.document.update(b"[1]"))
        result_of(self.replica.document.update(b"[1]"))
        self.assertEqual([generation.notified for generation in self.generations], [["/", "/"]] * 2)

    def test_other_documents(self):
        """With new settings, a document that stays keeps its feed, and a removed one is no longer sent."""
        other = DocumentReplica(self.reactor, "/b", 2**20, 1.0)
        settings = load_settings(
            {"workers": ["2"], "http": ["tcp:0:interface=127.0.0.1"], "source": ["demo:", "/b=demo:"]}
        )
        self.supervisor.change(settings, [self.replica, other])
        old, new = self.generations
        self.assertEqual([feed.document.path for feed in new.feeds], ["/", "/b"])
        self.assertEqual(new.feeds[0], old.feeds[0])
        self.supervisor.change(self.settings, [self.replica])
        result_of(other.document.update(b"[2]"))
        self.assertEqual(self.generations[-1].notified, [])

    def test_drain(self):
        """A drain is done when all workers and zygotes are gone; those that take too long are killed."""
        self.supervisor.renew()
        done = self.supervisor.drain()
        self.assertTrue(all(generation.draining for generation in self.generations))
        self.assertTrue(self.generations[0].shutdown)
        self.generations[1].kill()
        self.generations[0].forked[0].end()
        self.assertNoResult(done)
        self.reactor.run_for(DRAIN_TIMEOUT + 1, 1.0)
        self.assertTrue(self.generations[0].killed)
        self.successResultOf(done)
        self.assertEqual(len(self.generations[0].forked), 2)

    def test_unsubscribed(self):
        """The supervisor unsubscribes from a document that is no longer served."""
        other = DocumentReplica(self.reactor, "/", 2**20, 1.0)
        self.supervisor.change(self.settings, [other])
        self.assertEqual(len(self.replica.document._subscribers), 0)
        self.assertEqual(len(other.document._subscribers), 1)
