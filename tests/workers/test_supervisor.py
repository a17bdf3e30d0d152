"""The supervisor, with generations of workers that are made up, in a time that stands still until it is told to go on."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.web.counts import Counts, DocumentCounts
from livestate.workers import supervisor as module
from livestate.workers.slot import STARTING
from livestate.workers.slots import UNSERVED
from livestate.workers.supervisor import PATIENCE, Supervisor
from livestate.workers.worker import Supplied
from tests.support import FakeReactor, log_lines, result_of


class FakeWorker:
    """Stands for a worker."""

    def __init__(self, generation: "FakeGeneration", number: int) -> None:
        self.number, self.age, self.silence, self.gone = number, 0, 0, False
        self.pid: int | None = 100 + number
        self.ready = self.unresponsive = False
        self.counts = Counts({"/": DocumentCounts({"br": 10}, event_readers=1)}, connections=1)
        self.generation = generation

    def beat(self) -> None:
        self.age += 1

    def status(self) -> dict[str, Any]:
        return {"pid": self.pid}

    def serve(self) -> None:
        self.ready = True
        self.generation.on_ready(self.generation)

    def end(self) -> None:
        self.gone = True
        self.generation.workers.discard(self)
        self.generation.on_lost(self.generation, self)


class FakeGeneration:
    """Stands for a generation."""

    all: "list[FakeGeneration]"

    def __init__(self, reactor: Any, shipments: Any, on_lost: Any, on_ready: Any, on_end: Any) -> None:
        self.shipments, self.on_lost, self.on_ready, self.on_end = shipments, on_lost, on_ready, on_end
        self.workers: set[FakeWorker] = set()
        self.born: list[FakeWorker] = []
        self.fertile, self.draining, self.killed, self.stopped = True, False, False, False
        self.told: list[str] = []
        self.all.append(self)

    def start(self, setup: Any, binders: Any) -> None:
        self.setup = setup

    def fork(self, number: int) -> FakeWorker:
        worker = FakeWorker(self, number)
        self.workers.add(worker)
        self.born.append(worker)
        return worker

    def tell(self, shipment: Any) -> None:
        self.told.append(shipment.document.path)

    def drain(self, ending: bool) -> None:
        self.draining, self.ending = True, ending

    def kill(self) -> None:
        self.killed = True
        for worker in list(self.workers):
            worker.end()

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return succeed(None)

    def die(self) -> None:
        """Let the zygote end."""
        self.fertile = False
        self.on_end(self)


class SupervisorTests(SynchronousTestCase):
    """Two places, and who is in them."""

    def setUp(self):
        self.generations: list[FakeGeneration] = []
        FakeGeneration.all = self.generations
        self.patch(module, "Generation", FakeGeneration)
        self.reactor = FakeReactor()
        self.settings = load_settings({"workers": ["2"], "http": ["tcp:0:interface=127.0.0.1"], "source": ["demo:"]})
        self.supplied = Supplied(self.reactor, "/", 2**20, 1.0)
        self.supervisor = Supervisor(self.reactor, self.settings, [self.supplied])
        self.supervisor.privilegedStartService()
        self.supervisor.startService()
        self.addCleanup(self.end)
        for worker in self.generations[0].born:
            worker.serve()

    def end(self) -> None:
        """End what a test has left."""
        if self.supervisor._emptied is None:
            self.supervisor.drain()
            for generation in list(self.generations):
                generation.kill()
        self.supervisor.stopService()

    def pids(self) -> list[Any]:
        """Give who is in the places, or draining."""
        return [(told["pid"], told.get("draining", False)) for told in self.supervisor.workers()]

    def test_replaced_together(self):
        """New workers take the places when all of them serve, and only then are the old ones drained."""
        self.supervisor.renew()
        old, new = self.generations
        new.born[0].serve()
        self.assertFalse(old.draining)
        self.assertIs(self.supervisor._places[0].worker, old.born[0])
        new.born[1].serve()
        self.assertTrue(old.draining)
        self.assertFalse(old.ending)
        self.assertEqual([place.worker for place in self.supervisor._places], new.born)
        self.assertEqual([draining for _, draining in self.pids()], [False, False, True, True])
        for worker in old.born:
            self.assertFalse(old.stopped)
            worker.end()
        self.assertTrue(old.stopped)
        self.assertEqual(len(self.pids()), 2)

    def test_does_not_serve(self):
        """Where a new worker ends, or none serves in time, all new ones are given up and the old ones stay."""
        old = self.generations[0]
        for fail in (
            lambda new: new.born[0].end(),
            lambda new: self.reactor.run_for(STARTING + 1, 1.0),
            FakeGeneration.die,
        ):
            with log_lines() as lines:
                self.supervisor.renew()
                new = self.generations[-1]
                fail(new)
            self.assertIn("those that are there stay", lines[-1])
            self.assertTrue(new.draining)
            self.assertFalse(old.draining)
            self.assertEqual([place.worker for place in self.supervisor._places], old.born)
            new.kill()

    def test_told_when_served(self):
        """Who asks for new workers is told when they serve, or are given up; of two that ask, both, by the last."""
        done = self.supervisor.certificates_changed()
        first, second = self.supervisor.renew(), self.supervisor.renew()
        for asked in (done, first, second):
            self.assertNoResult(asked)
        for worker in self.generations[-1].born:
            worker.serve()
        for asked in (done, first, second):
            self.successResultOf(asked)
        self.assertEqual((self.supervisor.trouble(), self.supervisor.outdated()), ("", False))
        refused = self.supervisor.renew()
        self.generations[-1].born[0].end()
        self.successResultOf(refused)
        self.assertEqual(self.supervisor.trouble(), "new workers did not come to serve, those before stay")
        self.assertTrue(self.supervisor.outdated())
        again = self.supervisor.renew()
        for worker in self.generations[-1].born:
            worker.serve()
        self.successResultOf(again)
        self.assertFalse(self.supervisor.outdated())
        last = self.supervisor.renew()
        self.supervisor.drain()
        self.successResultOf(last)

    def test_nobody_serves(self):
        """Where workers do not come to serve, that is said once after a while, and when they do at last."""
        with log_lines() as lines:
            self.generations[0].born[0].end()
            self.assertEqual(self.supervisor.trouble(), "1 of 2 workers not serving")
            self.reactor.run_for(UNSERVED - 1, 1.0)
            self.assertEqual(lines[1:], [])
            self.reactor.run_for(100, 1.0)
            self.assertEqual(len(lines), 2, lines)
            self.assertIn("for 10 s: 1 of 2 workers not serving", lines[1])
            self.generations[0].born[-1].serve()
            self.reactor.run_for(2, 1.0)
        self.assertEqual(lines[2:], ["all workers serve"])
        self.assertTrue(self.supervisor.serving())

    def test_two_at_once(self):
        """When asked again meanwhile, only the newest counts."""
        self.supervisor.renew()
        self.supervisor.renew()
        _, second, third = self.generations
        self.assertTrue(second.draining)
        for worker in (*second.born, *third.born):
            worker.serve()
        self.assertEqual([place.worker for place in self.supervisor._places], third.born)

    def test_zygote_ended(self):
        """When the zygote is gone, another generation takes over in time, and until then the workers stay."""
        self.generations[0].die()
        self.assertEqual(len(self.generations), 1)
        self.reactor.advance(1)
        self.assertEqual(len(self.generations), 2)
        self.assertFalse(self.generations[0].draining)
        # That one fails too: it is tried again.
        self.generations[1].die()
        self.reactor.advance(1)
        self.assertEqual(len(self.generations), 3)

    def test_lost(self):
        """A worker that is lost is replaced from the generation of the day, and what it has counted stays counted."""
        self.generations[0].born[0].end()
        self.assertEqual(len(self.generations[0].born), 3)
        counts = self.supervisor.counts()
        self.assertEqual((counts.documents["/"].answers, counts.documents["/"].event_readers), ({"br": 30}, 2))
        self.supervisor.renew()
        for worker in self.generations[1].born:
            worker.serve()
        self.generations[0].born[1].end()
        self.assertEqual((len(self.generations[0].born), len(self.generations[1].born)), (3, 2))

    def test_told(self):
        """All generations that have workers are told of a document's news."""
        self.supervisor.renew()
        result_of(self.supplied.document.update(b"[1]"))
        result_of(self.supplied.document.update(b"[1]"))
        self.assertEqual([generation.told for generation in self.generations], [["/", "/"]] * 2)

    def test_other_documents(self):
        """With new settings, old workers are told of a document that stays as long as they are there."""
        other = Supplied(self.reactor, "/b", 2**20, 1.0)
        settings = load_settings(
            {"workers": ["2"], "http": ["tcp:0:interface=127.0.0.1"], "source": ["demo:", "/b=demo:"]}
        )
        self.supervisor.change(settings, [self.supplied, other])
        old, new = self.generations
        self.assertEqual([shipment.document.path for shipment in new.shipments], ["/", "/b"])
        self.assertEqual(new.shipments[0], old.shipments[0])
        self.supervisor.change(self.settings, [self.supplied])
        result_of(other.document.update(b"[2]"))
        self.assertEqual(self.generations[-1].told, [])

    def test_drain(self):
        """A drain is over when all workers and zygotes are gone; those that take too long are killed."""
        self.supervisor.renew()
        done = self.supervisor.drain()
        self.assertTrue(all(generation.draining for generation in self.generations))
        self.assertTrue(self.generations[0].ending)
        self.generations[1].kill()
        self.generations[0].born[0].end()
        self.assertNoResult(done)
        self.reactor.run_for(PATIENCE + 1, 1.0)
        self.assertTrue(self.generations[0].killed)
        self.successResultOf(done)
        self.assertEqual(len(self.generations[0].born), 2)

    def test_document_is_let_go(self):
        """A document that is not served any more is not listened to."""
        other = Supplied(self.reactor, "/", 2**20, 1.0)
        self.supervisor.change(self.settings, [other])
        self.assertEqual(len(self.supplied.document._subscribers), 0)
        self.assertEqual(len(other.document._subscribers), 1)
