"""Event streams: what a reader is sent, when, and what is not sent to one who is behind."""

import gc
import json
import weakref
from itertools import count, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from livestate.documents.document import Document
from livestate.documents.snapshot import new_snapshot
from livestate.formats.event_stream import LAST_CHUNK
from livestate.formats.merge_patch import apply
from livestate.web.http1.channel import LiveChannel
from livestate.web.idle_timeout import QUIET, IdleTimeouts
from livestate.web.resources.document import DocumentResource
from livestate.web.resources.events import EventsResource
from livestate.web.resources.long_poll import LongPolls
from livestate.web.responses.responder import Responder
from livestate.web.site import LiveSite
from livestate.web.streams import subscriber as reader_module
from livestate.web.streams.streams import Streams
from livestate.web.streams.subscriber import STUCK
from tests.formats.test_event_stream import joined, parsed
from tests.support import FakeReactor, answer_of, exchange, exchange_on, few, request


def state(number: int, **more: Any) -> bytes:
    """Give a document of which a patch is much smaller."""
    return json.dumps({"number": number, "title": "x" * 300, **more}).encode()


class SlowTransport(StringTransport):
    """Takes what its peer has room for; what it cannot send waits, and pauses the producer."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = b""
        self.room = 1 << 30
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.waiting += data
        self._send()
        if self.waiting and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def give_room(self, room: int) -> None:
        """Let the peer take so many bytes more."""
        self.room += room
        if self.waiting:
            self._send()
            if not self.waiting and self.producer is not None:
                self.producer.resumeProducing()

    def _send(self) -> None:
        sending, self.waiting = self.waiting[: self.room], self.waiting[self.room :]
        self.room -= len(sending)
        super().write(sending)

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


class Connection:
    """One reader's connection."""

    def __init__(self, site: LiveSite, data: bytes) -> None:
        self.channel: LiveChannel = site.buildProtocol(None)
        self.transport = SlowTransport()
        self.channel.makeConnection(self.transport)
        self.channel.dataReceived(data)

    @property
    def stream(self) -> bytes:
        """The body so far."""
        body = answer_of(self.transport.value()).body
        return joined(body + (b"" if body.endswith(b"\r\n" + LAST_CHUNK) else LAST_CHUNK))

    def events(self) -> list[tuple[str, str, str]]:
        """Give all events so far: type, id and data."""
        return parsed(self.stream)[0]

    def numbers(self) -> list[int]:
        """Give what the documents of the events say, patches applied to the state before them."""
        value: Any = None
        numbers = []
        for kind, _, data in self.events():
            value = apply(value, json.loads(data)) if kind == "patch" else json.loads(data)
            numbers.append(value["number"])
        return numbers

    def lose(self) -> None:
        """Go away."""
        self.channel.connectionLost(None)


class Case(SynchronousTestCase):
    """One document, and a site that streams it."""

    heartbeat = 15.0
    origins: tuple[str, ...] = ("*",)
    max_stale: float | None = None

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.document = Document(self.reactor, "/", 2**24)
        self.responder = Responder(self.document, self.origins, self.max_stale, self.reactor.seconds)
        self.streams = Streams(self.reactor, self.heartbeat)
        self.broadcast = self.streams.broadcast(self.document, self.responder.servable)
        self.polls = LongPolls(self.reactor, self.document, self.streams)
        self.site = LiveSite(
            {
                b"/": DocumentResource(self.responder, self.polls),
                b"/events": EventsResource(self.responder, self.broadcast),
            },
            self.reactor,
            {b"/": self.responder},
        )
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        self.publish(state(1))

    def publish(self, data: bytes) -> None:
        """Change the document, and let those be told who can be."""
        Deferred.fromCoroutine(self.document.update(data))
        self.reactor.advance(0.001)

    def reader(self, target: str = "/events", **fields: str) -> Connection:
        """Connect one."""
        return Connection(self.site, request(target, **fields))

    @property
    def version(self) -> str:
        """The newest version."""
        assert self.document.snapshot is not None
        return str(self.document.snapshot.version)

    @property
    def name(self) -> str:
        """The newest version as the id of an event."""
        assert self.document.snapshot is not None
        return f"{self.version}-{self.document.snapshot.tag.decode()}"


class EventsTests(Case):
    """What a reader gets."""

    def test_head(self) -> None:
        """A stream is not stored, not gathered, read across origins, and begins with a time to wait of its own."""
        waits = set()
        for _ in range(20):
            reader = self.reader()
            answer = answer_of(reader.transport.value())
            self.assertEqual(answer.status, 200)
            fields = answer.fields
            del fields["Date"]
            self.assertEqual(
                fields,
                {
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",
                    "X-Content-Type-Options": "nosniff",
                    "Access-Control-Allow-Origin": "*",
                    "Access-Control-Expose-Headers": "ETag, Link, Livestate-Age, Preference-Applied",
                    "Transfer-Encoding": "chunked",
                },
            )
            [wait] = parsed(reader.stream)[1]
            self.assertTrue(1000 <= wait <= 4000)
            self.assertTrue(reader.stream.startswith(b"retry: "))
            waits.add(wait)
        self.assertGreater(len(waits), 5)

    def test_state_and_changes(self) -> None:
        """A reader gets the state first and then each change, with the version as its id."""
        reader = self.reader()
        self.assertEqual(reader.events(), [("message", self.name, state(1).decode())])
        self.publish(state(2))
        self.assertEqual(reader.events()[1:], [("message", self.name, state(2).decode())])
        self.publish(state(2))
        self.assertEqual(len(reader.events()), 2)

    def test_same_bytes(self) -> None:
        """All readers of a change are written the same object: it is encoded once."""
        written: list[bytes] = []
        readers = [self.reader() for _ in range(50)]
        for reader in readers:
            reader.transport.write = written.append  # type: ignore[method-assign, assignment]
            reader.channel.stream.write = written.append  # type: ignore[union-attr]
        self.publish(state(2))
        self.assertEqual(len(written), 50)
        self.assertEqual(len(set(map(id, written))), 1)

    def test_before_the_first_document(self) -> None:
        """Where there is no document yet the stream is open and silent, and the state follows."""
        self.document.snapshot = None
        self.streams = Streams(self.reactor, 15.0)
        self.broadcast = self.streams.broadcast(self.document, self.responder.servable)
        resources = {b"/events": EventsResource(self.responder, self.broadcast)}
        reader = Connection(LiveSite(resources, self.reactor), request("/events"))
        self.assertEqual(answer_of(reader.transport.value()).status, 200)
        self.assertEqual(reader.events(), [])
        self.publish(state(5))
        self.assertEqual(reader.numbers(), [5])

    def test_deltas(self) -> None:
        """With `delta=merge` a change is a patch where that is smaller, and the state where it is not."""
        reader, plain = self.reader("/events?delta=merge"), self.reader()
        self.publish(state(2))
        self.publish(state(3, members=[{"a": None}]))
        self.publish(b'{"number": 4}')
        self.publish(state(5, member=None))
        self.publish(state(6, member=None))
        kinds = [kind for kind, _, _ in reader.events()]
        self.assertEqual(kinds, ["message", "patch", "patch", "message", "message", "patch"])
        self.assertEqual(reader.events()[1][2], '{"number":2}')
        self.assertEqual(reader.numbers(), [1, 2, 3, 4, 5, 6])
        self.assertEqual(plain.numbers(), [1, 2, 3, 4, 5, 6])
        self.assertEqual({kind for kind, _, _ in plain.events()}, {"message"})
        self.assertEqual([i for _, i, _ in reader.events()], [i for _, i, _ in plain.events()])

    def test_resume(self) -> None:
        """Who names the current version gets nothing, who names one whose patches are held those, others the state."""
        first = self.reader("/events?delta=merge")
        old = self.name
        self.assertEqual(self.reader(last_event_id=old).events(), [])
        self.publish(state(2))
        self.publish(state(3))
        resumed = self.reader("/events?delta=merge", last_event_id=old)
        self.assertEqual(resumed.events(), first.events()[1:])
        self.assertEqual(self.reader(last_event_id=old).events(), [("message", self.name, state(3).decode())])
        for unknown in (
            "1",
            "0",
            "x",
            "-1",
            "9" * 99,
            f"{self.name}, {old}",
            self.version,
            f"{self.version}-",
            "１",
            "",
        ):
            reader = self.reader("/events?delta=merge", last_event_id=unknown.encode().decode("latin-1"))
            self.assertEqual([kind for kind, _, _ in reader.events()], ["message"], unknown)
        reader = self.reader("/events?delta=merge", last_event_id=self.name)
        self.publish(state(4))
        self.assertEqual([kind for kind, _, _ in reader.events()], ["patch"])

    def test_comes_back(self) -> None:
        """The only reader of patches who goes and comes back within a minute is given those that it missed."""
        reader = self.reader("/events?delta=merge")
        version = int(self.version)
        reader.lose()
        for number, seconds, kind in ((2, 59, "patch"), (3, 2, "message")):
            self.reactor.advance(seconds)
            self.publish(state(number))
            with self.subTest(kind):
                snapshot = self.document.snapshot
                assert snapshot is not None
                told = self.broadcast.messages_since(version, True)
                self.assertEqual([message.is_patch for message in told], [kind == "patch"])

    def test_number_of_another_document(self) -> None:
        """Who comes from another server, or from before a restart, where a version's number was another document's, is
        given the state, and no patch that is not to what it has."""
        elsewhere = Case()
        elsewhere.setUp()
        self.reader("/events?delta=merge")
        self.reactor.advance(1)
        elsewhere.reactor.advance(1)
        self.publish(state(2))
        elsewhere.publish(state(20))
        self.assertEqual(self.version, elsewhere.version)
        [*_, (_, last, _)] = elsewhere.reader().events()
        self.assertEqual(self.reader(last_event_id=last).numbers(), [2])
        self.publish(state(3))
        self.assertEqual(self.reader("/events?delta=merge", last_event_id=last).numbers(), [3])
        elsewhere.doCleanups()

    def test_same_document_of_another_number(self) -> None:
        """Who comes from another server is given nothing if it has the document, and else the patches to what it has."""
        elsewhere = Case()
        elsewhere.setUp()
        self.reader("/events?delta=merge")
        for number, other in ((2, elsewhere), (2, self), (3, self)):
            other.reactor.advance(number)
            other.publish(state(number))
        self.assertNotEqual(self.version, elsewhere.version)
        [*_, (_, last, _)] = elsewhere.reader().events()
        resumed = self.reader("/events?delta=merge", last_event_id=last).events()
        self.assertEqual([(kind, data) for kind, _, data in resumed], [("patch", '{"number":3}')])
        elsewhere.publish(state(3))
        [*_, (_, last, _)] = elsewhere.reader().events()
        self.assertEqual(self.reader(last_event_id=last).events(), [])
        elsewhere.doCleanups()

    def test_http_1_0(self) -> None:
        """To HTTP/1.0 the stream is what comes until the connection ends, without chunks."""
        reader = Connection(self.site, b"GET /events HTTP/1.0\r\n\r\n")
        answer = answer_of(reader.transport.value())
        self.assertTrue(reader.transport.value().startswith(b"HTTP/1.0 200 "))
        self.assertNotIn("Transfer-Encoding", answer.fields)
        self.publish(state(2))
        body = answer_of(reader.transport.value()).body
        self.assertEqual([json.loads(data)["number"] for _, _, data in parsed(body)[0]], [1, 2])
        self.assertFalse(reader.transport.disconnecting)

    def test_methods(self) -> None:
        """HEAD gives the head alone, OPTIONS what may be done, and all else is refused."""
        whole, head = self.reader().transport, exchange_on(self.site, request("/events", "HEAD"))
        fields = answer_of(whole.value()).fields
        del fields["Transfer-Encoding"]
        self.assertEqual(answer_of(head.value()).fields, fields)
        self.assertEqual(answer_of(head.value()).body, b"")
        options = answer_of(exchange(self.site, request("/events", "OPTIONS", origin="https://a.example")))
        self.assertEqual((options.status, options.fields["Access-Control-Allow-Headers"]), (204, "*"))
        for method in ("POST", "PUT", "DELETE", "get"):
            answer = answer_of(exchange(self.site, request("/events", method)))
            self.assertEqual((answer.status, answer.fields["Allow"]), (405, "GET, HEAD, OPTIONS"))

    def test_heartbeat(self) -> None:
        """A reader who was sent nothing is sent a comment within the time, and one who was sent something is not."""
        readers = [self.reader() for _ in range(50)]
        for second in range(40):
            self.reactor.run_for(1, step=0.25)
            if second % 9 == 8:
                self.publish(state(second))
        for reader in readers:
            self.assertNotIn(b":\n\n", reader.stream)
        times: dict[Connection, list[float]] = {reader: [self.reactor.seconds()] for reader in readers}
        lengths = {reader: len(reader.stream) for reader in readers}
        for _ in range(60 * 4):
            self.reactor.run_for(0.25, step=0.25)
            for reader in readers:
                if len(reader.stream) > lengths[reader]:
                    self.assertTrue(reader.stream.endswith(b"\n\n:\n\n"))
                    lengths[reader] = len(reader.stream)
                    times[reader].append(self.reactor.seconds())
        for at in times.values():
            gaps = [later - earlier for earlier, later in pairwise(at)]
            self.assertGreaterEqual(len(gaps), 3)
            self.assertTrue(all(4 <= gap <= 16.5 for gap in gaps), gaps)
        first = [at[1] for at in times.values()]
        self.assertGreater(max(first) - min(first), 2, "they come one after the other")

    def test_gone(self) -> None:
        """A reader who goes is forgotten at once, whatever state it is in, and a thousand leave nothing behind."""
        for n in range(1000):
            reader = self.reader("/events?delta=merge" if n % 2 else "/events")
            self.assertEqual(self.broadcast.subscriber_counts()["event_readers"], 1)
            if n % 3:
                reader.transport.room = 5
                self.publish(state(n + 7))
            reader.lose()
            self.assertEqual(self.broadcast.subscriber_counts().total(), 0)
            reader.transport.give_room(10**6)
        self.assertEqual(self.site.connections.open, set())

    def test_no_circle(self) -> None:
        """When a reader goes, all that was held for it is free at once, without the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        for target, fields in (("/events", {}), ("/", {"prefer": "wait=9", "if_none_match": "*"})):
            reader = self.reader(target, **fields)
            held = weakref.ref(reader.channel)
            reader.lose()
            reader.transport.unregisterProducer()
            del reader
            self.assertIsNone(held(), target)

    def test_stop(self) -> None:
        """When the service stops each stream is ended as HTTP ends a body, or cut where the reader is behind."""
        reader, behind = self.reader(), self.reader()
        behind.transport.room = 10
        self.publish(state(2))
        self.streams.stopService()
        self.assertTrue(reader.transport.value().endswith(b"\r\n0\r\n\r\n"))
        self.assertTrue(reader.transport.disconnecting)
        self.assertTrue(behind.transport.aborted)
        self.streams.startService()

    def test_what_comes_after(self) -> None:
        """What a client sends on a stream is read past: it is answered by nothing, and held nowhere."""
        reader = self.reader()
        for _ in range(100):
            reader.channel.dataReceived(request() * 100)
        both = Connection(self.site, request("/events") + request() * 3)
        self.publish(state(2))
        for connection in (reader, both):
            self.assertEqual(connection.numbers(), [1, 2])
            self.assertEqual(connection.transport.value().count(b"HTTP/1.1 "), 1)
            self.assertEqual(
                (connection.channel._pending, connection.channel._dataBuffer, connection.channel._buffer),
                (b"", [], b""),
            )

    def test_sweep(self) -> None:
        """A stream is quiet for as long as it likes."""
        sweep = IdleTimeouts(self.reactor, lambda: self.site.connections.open)
        sweep.startService()
        self.addCleanup(sweep.stopService)
        reader, behind = self.reader(), self.reader()
        behind.transport.room = 10
        self.reactor.run_for(6 * QUIET * 5.0, step=1)
        self.assertFalse(reader.transport.disconnecting)

    def test_status(self) -> None:
        """The numbers for the status: readers there are, events sent, and events that readers who were behind missed."""
        _, behind = self.reader(), self.reader()
        behind.transport.room = 10
        for n in (2, 3, 4):
            self.publish(state(n))
        counted = self.broadcast.subscriber_counts(), self.broadcast.sent, self.broadcast.skipped
        self.assertEqual(counted, ({"event_readers": 2}, 6, 2))


class ConflationTests(Case):
    """Readers who are behind."""

    def test_skips(self) -> None:
        """One who has not taken what was sent is sent nothing more, and then only the newest."""
        reader, quick = self.reader(), self.reader()
        reader.transport.room = 100
        for n in range(2, 50):
            self.publish(state(n))
            self.assertLess(len(reader.transport.waiting), 600)
        reader.transport.give_room(10**6)
        self.assertEqual(reader.numbers(), [1, 2, 49])
        self.assertEqual(quick.numbers(), list(range(1, 50)))
        self.publish(state(50))
        self.assertEqual(reader.numbers()[-1], 50)

    def test_patches(self) -> None:
        """One who takes patches and is behind is sent those that it missed, or the state, whichever is smaller."""
        reader = self.reader("/events?delta=merge")
        for missed, kinds in ((3, ["patch"] * 3), (60, ["message"])):
            reader.transport.room = 10
            before = len(reader.events()) if not reader.transport.waiting else 0
            start = self.document.changes
            for n in range(missed + 1):
                self.publish(state(1000 + start + n))
            reader.transport.give_room(10**9)
            self.assertEqual([kind for kind, _, _ in reader.events()[before + 1 :]], kinds)
            self.assertEqual(reader.numbers()[-1], 1000 + start + missed)

    @few
    @given(
        st.lists(
            st.one_of(
                st.sampled_from([None, 1, [2], {"a": 1}, {"b": 2}, {"a": None}]).map(lambda value: ("change", value)),
                st.integers(1, 900).map(lambda room: ("room", room)),
                st.integers(0, 20).map(lambda seconds: ("wait", seconds)),
            ),
            max_size=40,
        ),
        st.booleans(),
    )
    def test_any_pace(self, steps: list[tuple[str, Any]], deltas: bool) -> None:
        """However slowly a reader takes what it is sent, no more than one event waits for it, and in the end it has all."""
        self.setUp()
        reader = self.reader("/events?delta=merge" if deltas else "/events")
        reader.transport.room = 100
        sizes = []
        for number, (step, value) in enumerate(steps):
            if step == "change":
                self.publish(state(number + 2, value=value))
            elif step == "room":
                reader.transport.give_room(value)
            else:
                self.reactor.run_for(value, step=1)
            sizes.append(len(reader.transport.waiting))
        self.assertTrue(all(size < 500 for size in sizes), sizes)
        while reader.transport.waiting:
            reader.transport.give_room(10**6)
        value = None
        for kind, _, data in reader.events():
            value = apply(value, json.loads(data)) if kind == "patch" else json.loads(data)
        assert self.document.snapshot is not None
        self.assertEqual(value, json.loads(self.document.snapshot.body))

    def test_stuck(self) -> None:
        """One who takes nothing for half a minute is cut off, and one who takes a byte now and then is not."""
        readers = [self.reader() for _ in range(3)]
        self.patch(reader_module, "unsent", lambda transport: len(transport.waiting))
        dead, slow, quick = readers
        dead.transport.room = slow.transport.room = 10
        self.publish(state(2))
        for second in range(int(STUCK) + 3):
            slow.transport.give_room(1)
            self.assertFalse(dead.transport.aborted and second < STUCK - 1)
            self.reactor.run_for(1, step=0.25)
        self.assertTrue(dead.transport.aborted)
        self.assertFalse(slow.transport.aborted or quick.transport.aborted)

    def test_delivery(self) -> None:
        """The time from a fetch's beginning until all readers, of every kind, were written to is counted once."""
        for target in ("/events", "/events", "/events?delta=merge"):
            self.reader(target)
        self.assertEqual(sum(self.broadcast.delivery.counts), 0)
        Deferred.fromCoroutine(self.document.update(state(2), self.reactor.seconds() - 0.3))
        self.reactor.advance(0.001)
        self.assertEqual(sum(self.broadcast.delivery.counts), 1)
        self.assertApproximates(self.broadcast.delivery.sum, 0.3, 0.01)
        self.assertApproximates(self.document.publication_delay.sum, 0.3, 0.01)

    def test_nothing_delivered(self) -> None:
        """A change that nobody was told, and a document of an earlier run, have no time of delivery."""
        self.publish(state(2))
        Deferred.fromCoroutine(self.document.update(state(3), self.reactor.seconds()))
        self.reactor.advance(0.001)
        self.reader()
        self.document.restore(new_snapshot(state(4), self.reactor.seconds() + 1), self.reactor.seconds())
        self.reactor.advance(0.001)
        self.assertEqual(sum(self.broadcast.delivery.counts), 0)

    def test_bytes(self) -> None:
        """The bytes of all events are counted."""
        readers = [self.reader() for _ in range(3)]
        before = self.broadcast.sent_bytes, sum(len(reader.transport.value()) for reader in readers)
        for n in (2, 3):
            self.publish(state(n))
        after = self.broadcast.sent_bytes, sum(len(reader.transport.value()) for reader in readers)
        self.assertEqual(after[0] - before[0], after[1] - before[1])

    def test_spread(self) -> None:
        """A broadcast takes turns with the rest of the reactor, and a version that comes meanwhile goes to all."""
        readers = [self.reader() for _ in range(200)]
        seconds, looks = self.reactor.seconds, count()
        self.streams.scheduler.seconds = self.broadcast.seconds = lambda: seconds() + next(looks) * 0.0005
        turns: list[Any] = []
        self.patch(self.reactor, "callLater", lambda delay, function: turns.append(function))
        Deferred.fromCoroutine(self.document.update(state(2)))
        told = []
        for _ in range(3):
            turns.pop(0)()
            told.append(sum(len(reader.numbers()) for reader in readers) - 200)
        self.assertTrue(0 < told[0] < told[1] < told[2] < 200, told)
        Deferred.fromCoroutine(self.document.update(state(3)))
        while turns:
            turns.pop(0)()
        got = [reader.numbers() for reader in readers]
        self.assertEqual({tuple(numbers) for numbers in got}, {(1, 2, 3), (1, 3)})
        self.assertEqual(sum(2 in numbers for numbers in got), told[2])


class OriginTests(Case):
    """Streams that only some pages may read."""

    origins = ("https://a.example", "https://b.example")

    def test_origins(self) -> None:
        """A page of a listed origin may read the stream, another may not, and caches are told."""
        for origin, allowed in (("https://b.example", "https://b.example"), ("https://c.example", None), (None, None)):
            fields = answer_of(self.reader(**({"origin": origin} if origin else {})).transport.value()).fields
            self.assertEqual(fields.get("Access-Control-Allow-Origin"), allowed)
            self.assertEqual(fields["Vary"], "Origin")


class StaleTests(Case):
    """A document that must not be given out when it is too old."""

    max_stale = 10.0

    def test_too_old(self) -> None:
        """While the document is too old a new reader gets nothing, and once it is confirmed, unchanged, the state."""
        first = self.reader()
        self.reactor.run_for(11)
        reader = self.reader()
        self.assertEqual(reader.events(), [])
        self.publish(state(1))
        self.reactor.run_for(2)
        self.assertEqual(reader.numbers(), [1])
        self.assertEqual(first.numbers(), [1])
