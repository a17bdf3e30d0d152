"""A site with many documents: what each costs, and what is counted."""

import json
import tracemalloc
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.protocol import connectionDone
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.settings import load_settings
from livestate.documents.document import Document
from livestate.system.logs import LogFiles
from livestate.web.counts import Counts, DocumentCounts
from livestate.web.site_service import SiteService
from tests.support import FakeReactor, parse_response, request, result_of, stories
from tests.web.resources.test_events import Connection


def body_of(number: int) -> bytes:
    """Return a document of about 2 KB."""
    return json.dumps({"number": number, "places": [f"{n * 7919 % 99991:05}" for n in range(240)]}).encode()


class ServedDocument:
    """A document that a test changes."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def is_fresh(self) -> bool:
        return True


class Site:
    """A running SiteService with some documents."""

    def __init__(self, paths: list[str]) -> None:
        self.reactor = FakeReactor()
        served = [ServedDocument(Document(self.reactor, path, 2**24)) for path in paths]
        self.documents = {each.document.path: each.document for each in served}
        settings = load_settings({"http": ["tcp:0"], "source": [f"{path}=demo:" for path in paths]})
        self.service = SiteService(self.reactor, settings, served, LogFiles())
        self.endpoints = self.service._endpoints
        self.service.startService()

    def fill(self) -> None:
        """Publish a version of each document."""
        for number, document in enumerate(self.documents.values()):
            result_of(document.update(body_of(number)))

    def connect(self, target: str, **fields: str) -> Connection:
        """Send a request on a new connection."""
        return Connection(self.service.site, request(target, **fields))

    def get(self, target: str, **fields: str) -> Any:
        """Return the response to a request."""
        return parse_response(self.connect(target, **fields).transport.value())

    def followed(self) -> list[str]:
        """Return the paths of the documents that the site follows."""
        return [path for path, document in self.documents.items() if document._subscribers]


class ManyDocumentsTests(SynchronousTestCase):
    """A site with many documents, of which few are asked for."""

    def setUp(self) -> None:
        self.paths = [f"/wards/{number}.json" for number in range(1000)]
        self.site = Site(self.paths)
        self.site.fill()
        self.addCleanup(self.site.service.stopService)

    def test_made_on_demand(self):
        """A document that no one asks for is not followed and not counted; the others are, in whatever way."""
        self.assertEqual((self.site.followed(), len(self.site.endpoints)), ([], 0))
        self.assertEqual(self.site.service.counts().documents, {})
        self.assertEqual(self.site.get("/wards/3.json").status, 200)
        self.assertEqual(self.site.get("/wards/4.json", if_none_match="W/x", prefer="wait=0").status, 200)
        self.site.connect("/wards/5.json/events")
        for target in ("/wards/-1.json", "/wards/-1.json/events", "/events", "/", "/wards/6.json/"):
            self.assertEqual(self.site.get(target).status, 404)
        expected = [f"/wards/{number}.json" for number in (3, 4, 5)]
        self.assertEqual(self.site.followed(), expected)
        self.assertEqual(list(self.site.service.counts().documents), expected)

    def test_seconds_cost_what_is_asked_for(self):
        """In a second only the variants that made a response are renewed, and only groups with subscribers checked."""
        renewals, streams = self.site.endpoints.renewals, self.site.endpoints.streams
        for path in self.paths[:200]:
            self.site.get(path)
        self.assertEqual(len(renewals), 200)
        subscribers = [self.site.connect(f"{path}/events") for path in self.paths[:7]]
        self.assertEqual((len(renewals), len(streams._groups)), (200, 7))
        self.site.reactor.advance(1)
        self.assertEqual(len(renewals), 0)
        self.site.get(self.paths[0])
        self.assertEqual(len(renewals), 1)
        for subscriber in subscribers[1:]:
            subscriber.channel.connectionLost(connectionDone)
        self.assertEqual(len(streams._groups), 1)
        self.site.reactor.advance(20)
        self.assertIn(b":\n", subscribers[0].transport.value())

    def test_nothing_is_compressed(self):
        """No document has a content coding before a client asks for it, and none is made for another document."""
        self.site.get(self.paths[1], accept_encoding="br")
        codings = [set(d.snapshot.representations) for d in self.site.documents.values() if d.snapshot is not None]
        self.assertEqual(codings, [{"identity"}, {"identity", "br"}] + [{"identity"}] * 998)

    def test_unsubscribed(self):
        """A site that has stopped follows no document any longer."""
        for path in self.paths[:5]:
            self.site.get(path)
            self.site.connect(f"{path}/events")
            self.site.connect(path, if_none_match="*", prefer="wait=30")
        self.assertEqual(len(self.site.followed()), 5)
        self.site.service.stopService()
        self.assertEqual(self.site.followed(), [])
        self.assertEqual(self.site.endpoints.streams._stop_callbacks, {})
        self.site.service.startService()

    def test_event_paths(self):
        """A document's events are at its path, without a last slash, and /events."""
        site = Site(["/", "/a", "/b/", "/c/events"])
        self.addCleanup(site.service.stopService)
        for target, status in (("/events", 200), ("/a/events", 200), ("/b/events", 200), ("/c/events/events", 200),
                               ("/c/events", 503), ("/b//events", 404), ("/a//events", 404), ("/a/", 404),
                               ("/b", 404)):  # fmt: skip
            self.assertEqual(site.get(target).status, status, target)


class MemoryTests(SynchronousTestCase):
    """The memory of documents that no one asks for."""

    def test_bound(self):
        """A document of 2 KB takes less than 4 KB of memory, its body included."""
        count = 1000
        Site(["/"]).fill()  # what is imported and cached once
        tracemalloc.start()
        try:
            site = Site([f"/wards/{number}.json" for number in range(count)])
            site.fill()
            memory, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertGreater(len(body_of(0)), 2000)
        self.assertLess(memory / count, 4096)


class CountsStories(RuleBasedStateMachine):
    """Clients of three documents, changes and seconds that pass, with an account of what was sent."""

    PATHS = ("/", "/a.json", "/b.json")

    def __init__(self) -> None:
        super().__init__()
        self.site = Site(list(self.PATHS))
        self.sent = {path: [0, 0] for path in self.PATHS}
        self.subscribed = dict.fromkeys(self.PATHS, 0)
        self.merged = Counts()
        self.connections: dict[str, Connection] = {}
        self.site.fill()

    @rule(path=st.sampled_from(PATHS), coding=st.sampled_from(["gzip", "br", "identity"]), times=st.integers(1, 5),
          general=st.booleans())  # fmt: skip
    def poll(self, path, coding, times, general):
        """Send the same request some times on one connection, on the fast path or not."""
        data = request(path, accept_encoding=coding, **({"if_none_match": "W/x"} if general else {}))
        connection = Connection(self.site.service.site, data)
        for _ in range(times - 1):
            connection.channel.dataReceived(data)
        written = connection.transport.value()
        self.sent[path][0] += times
        self.sent[path][1] += len(written)
        connection.channel.connectionLost(connectionDone)

    @rule(path=st.sampled_from(PATHS))
    def subscribe(self, path):
        self.site.connect(path.rstrip("/") + "/events")
        self.subscribed[path] += 1

    @rule(path=st.sampled_from(PATHS), number=st.integers(0, 1000))
    def change(self, path, number):
        result_of(self.site.documents[path].update(body_of(number)))
        self.site.reactor.advance(0.001)

    @rule(seconds=st.sampled_from([0.1, 0.4, 1.0, 3.0]))
    def wait(self, seconds):
        self.site.reactor.advance(seconds)

    @rule()
    def read_recent(self):
        """Read what has changed, as a worker does every second; together that is all there is to know."""
        self.merged.documents.update(self.site.service.recent_counts().documents)
        assert self.merged.documents == self.site.service.counts().documents
        assert self.site.service.recent_counts().documents == {}

    @invariant()
    def counts_are_right(self):
        documents = self.site.service.counts().documents
        for path in self.PATHS:
            counts = documents.get(path, DocumentCounts())
            assert sum(counts.answers.values()) == self.sent[path][0], (counts.answers, self.sent[path])
            assert sum(counts.ways.values()) == self.sent[path][0], (counts.ways, self.sent[path])
            assert min(counts.ways.values(), default=0) >= 0
            assert counts.bytes_sent == self.sent[path][1]
            assert counts.event_readers == self.subscribed[path]

    def teardown(self):
        self.site.service.stopService()


CountsStories.TestCase.settings = stories
CountsTests = CountsStories.TestCase
