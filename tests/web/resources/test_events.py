"""Event streams: what subscribers are sent and when, and what slow subscribers are not sent."""

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
from livestate.web.streams import subscriber as subscriber_module
from livestate.web.streams.streams import Streams
from livestate.web.streams.subscriber import STUCK
from tests.formats.test_event_stream import joined, parsed
from tests.support import FakeReactor, exchange, exchange_on, few, parse_response, request


def state(number: int, **more: Any) -> bytes:
    """Return a document that is much larger than a patch of its number."""
    return json.dumps({"number": number, "title": "x" * 300, **more}).encode()


class SlowTransport(StringTransport):
    """A transport that sends only as much as its peer has room for, and pauses the producer while data is unsent."""

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

    def make_room(self, room: int) -> None:
        """Let the peer read `room` more bytes."""
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
    """The connection of one client."""

    def __init__(self, site: LiveSite, data: bytes) -> None:
        self.channel: LiveChannel = site.buildProtocol(None)
        self.transport = SlowTransport()
        self.channel.makeConnection(self.transport)
        self.channel.dataReceived(data)

    @property
    def stream(self) -> bytes:
        """The body so far."""
        body = parse_response(self.transport.value()).body
        return joined(body + (b"" if body.endswith(b"\r\n" + LAST_CHUNK) else LAST_CHUNK))

    def events(self) -> list[tuple[str, str, str]]:
        """Return all events so far: type, id and data."""
        return parsed(self.stream)[0]

    def numbers(self) -> list[int]:
        """Return the numbers of the documents in all events, with each patch applied to the previous state."""
        value: Any = None
        numbers = []
        for kind, _, data in self.events():
            value = apply(value, json.loads(data)) if kind == "patch" else json.loads(data)
            numbers.append(value["number"])
        return numbers

    def lose(self) -> None:
        """Disconnect."""
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
        """Change the document, and let subscribers be notified."""
        Deferred.fromCoroutine(self.document.update(data))
        self.reactor.advance(0.001)

    def subscriber(self, target: str = "/events", **fields: str) -> Connection:
        """Connect a subscriber."""
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
    """What a subscriber is sent."""

    def test_response_head(self) -> None:
        """A stream is not stored or buffered, may be read across origins, and starts with its own reconnection time."""
        waits = set()
        for _ in range(20):
            subscriber = self.subscriber()
            response = parse_response(subscriber.transport.value())
            self.assertEqual(response.status, 200)
            fields = response.fields
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
            [wait] = parsed(subscriber.stream)[1]
            self.assertTrue(1000 <= wait <= 4000)
            self.assertTrue(subscriber.stream.startswith(b"retry: "))
            waits.add(wait)
        self.assertGreater(len(waits), 5)

    def test_state_and_changes(self) -> None:
        """A subscriber is sent the state first and then each change, with the version as the event's id."""
        subscriber = self.subscriber()
        self.assertEqual(subscriber.events(), [("message", self.name, state(1).decode())])
        self.publish(state(2))
        self.assertEqual(subscriber.events()[1:], [("message", self.name, state(2).decode())])
        self.publish(state(2))
        self.assertEqual(len(subscriber.events()), 2)

    def test_same_bytes(self) -> None:
        """A change is encoded once: the same object is written to all subscribers."""
        written: list[bytes] = []
        subscribers = [self.subscriber() for _ in range(50)]
        for subscriber in subscribers:
            subscriber.transport.write = written.append  # type: ignore[method-assign, assignment]
            subscriber.channel.stream.write = written.append  # type: ignore[union-attr]
        self.publish(state(2))
        self.assertEqual(len(written), 50)
        self.assertEqual(len(set(map(id, written))), 1)

    def test_before_the_first_document(self) -> None:
        """While there is no document yet, the stream is open and silent; the state follows."""
        self.document.snapshot = None
        self.streams = Streams(self.reactor, 15.0)
        self.broadcast = self.streams.broadcast(self.document, self.responder.servable)
        resources = {b"/events": EventsResource(self.responder, self.broadcast)}
        subscriber = Connection(LiveSite(resources, self.reactor), request("/events"))
        self.assertEqual(parse_response(subscriber.transport.value()).status, 200)
        self.assertEqual(subscriber.events(), [])
        self.publish(state(5))
        self.assertEqual(subscriber.numbers(), [5])

    def test_deltas(self) -> None:
        """With `delta=merge` a change is sent as a patch if that is smaller, and otherwise as the state."""
        subscriber, plain = self.subscriber("/events?delta=merge"), self.subscriber()
        self.publish(state(2))
        self.publish(state(3, members=[{"a": None}]))
        self.publish(b'{"number": 4}')
        self.publish(state(5, member=None))
        self.publish(state(6, member=None))
        kinds = [kind for kind, _, _ in subscriber.events()]
        self.assertEqual(kinds, ["message", "patch", "patch", "message", "message", "patch"])
        self.assertEqual(subscriber.events()[1][2], '{"number":2}')
        self.assertEqual(subscriber.numbers(), [1, 2, 3, 4, 5, 6])
        self.assertEqual(plain.numbers(), [1, 2, 3, 4, 5, 6])
        self.assertEqual({kind for kind, _, _ in plain.events()}, {"message"})
        self.assertEqual([i for _, i, _ in subscriber.events()], [i for _, i, _ in plain.events()])

    def test_last_event_id(self) -> None:
        """A client with the current version is sent nothing, one with a recent version patches, and any other the state."""
        first = self.subscriber("/events?delta=merge")
        old = self.name
        self.assertEqual(self.subscriber(last_event_id=old).events(), [])
        self.publish(state(2))
        self.publish(state(3))
        resumed = self.subscriber("/events?delta=merge", last_event_id=old)
        self.assertEqual(resumed.events(), first.events()[1:])
        self.assertEqual(self.subscriber(last_event_id=old).events(), [("message", self.name, state(3).decode())])
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
            subscriber = self.subscriber("/events?delta=merge", last_event_id=unknown.encode().decode("latin-1"))
            self.assertEqual([kind for kind, _, _ in subscriber.events()], ["message"], unknown)
        subscriber = self.subscriber("/events?delta=merge", last_event_id=self.name)
        self.publish(state(4))
        self.assertEqual([kind for kind, _, _ in subscriber.events()], ["patch"])

    def test_reconnect_within_a_minute(self) -> None:
        """If the only subscriber to patches reconnects within a minute, it is sent the patches that it missed."""
        subscriber = self.subscriber("/events?delta=merge")
        version = int(self.version)
        subscriber.lose()
        for number, seconds, kind in ((2, 59, "patch"), (3, 2, "message")):
            self.reactor.advance(seconds)
            self.publish(state(number))
            with self.subTest(kind):
                snapshot = self.document.snapshot
                assert snapshot is not None
                messages = self.broadcast.messages_since(version, True)
                self.assertEqual([message.is_patch for message in messages], [kind == "patch"])

    def test_same_version_of_another_document(self) -> None:
        """A client from another server, or from before a restart, where the same version was a different document, is
        sent the state, and never a patch to a document that it does not have."""
        other_server = Case()
        other_server.setUp()
        self.subscriber("/events?delta=merge")
        self.reactor.advance(1)
        other_server.reactor.advance(1)
        self.publish(state(2))
        other_server.publish(state(20))
        self.assertEqual(self.version, other_server.version)
        [*_, (_, last, _)] = other_server.subscriber().events()
        self.assertEqual(self.subscriber(last_event_id=last).numbers(), [2])
        self.publish(state(3))
        self.assertEqual(self.subscriber("/events?delta=merge", last_event_id=last).numbers(), [3])
        other_server.doCleanups()

    def test_same_document_with_another_version(self) -> None:
        """A client from another server is sent nothing if it has the current document, and otherwise the right patches."""
        other_server = Case()
        other_server.setUp()
        self.subscriber("/events?delta=merge")
        for number, server in ((2, other_server), (2, self), (3, self)):
            server.reactor.advance(number)
            server.publish(state(number))
        self.assertNotEqual(self.version, other_server.version)
        [*_, (_, last, _)] = other_server.subscriber().events()
        resumed = self.subscriber("/events?delta=merge", last_event_id=last).events()
        self.assertEqual([(kind, data) for kind, _, data in resumed], [("patch", '{"number":3}')])
        other_server.publish(state(3))
        [*_, (_, last, _)] = other_server.subscriber().events()
        self.assertEqual(self.subscriber(last_event_id=last).events(), [])
        other_server.doCleanups()

    def test_http_1_0(self) -> None:
        """In HTTP/1.0 the stream is sent without chunks until the connection closes."""
        subscriber = Connection(self.site, b"GET /events HTTP/1.0\r\n\r\n")
        response = parse_response(subscriber.transport.value())
        self.assertTrue(subscriber.transport.value().startswith(b"HTTP/1.0 200 "))
        self.assertNotIn("Transfer-Encoding", response.fields)
        self.publish(state(2))
        body = parse_response(subscriber.transport.value()).body
        self.assertEqual([json.loads(data)["number"] for _, _, data in parsed(body)[0]], [1, 2])
        self.assertFalse(subscriber.transport.disconnecting)

    def test_methods(self) -> None:
        """HEAD returns only the head, OPTIONS the allowed methods, and other methods are refused."""
        full, head = self.subscriber().transport, exchange_on(self.site, request("/events", "HEAD"))
        fields = parse_response(full.value()).fields
        del fields["Transfer-Encoding"]
        self.assertEqual(parse_response(head.value()).fields, fields)
        self.assertEqual(parse_response(head.value()).body, b"")
        options = parse_response(exchange(self.site, request("/events", "OPTIONS", origin="https://a.example")))
        self.assertEqual((options.status, options.fields["Access-Control-Allow-Headers"]), (204, "*"))
        for method in ("POST", "PUT", "DELETE", "get"):
            response = parse_response(exchange(self.site, request("/events", method)))
            self.assertEqual((response.status, response.fields["Allow"]), (405, "GET, HEAD, OPTIONS"))

    def test_heartbeat(self) -> None:
        """An idle subscriber is sent a comment in time, and an active one is not."""
        subscribers = [self.subscriber() for _ in range(50)]
        for second in range(40):
            self.reactor.run_for(1, step=0.25)
            if second % 9 == 8:
                self.publish(state(second))
        for subscriber in subscribers:
            self.assertNotIn(b":\n\n", subscriber.stream)
        times: dict[Connection, list[float]] = {subscriber: [self.reactor.seconds()] for subscriber in subscribers}
        lengths = {subscriber: len(subscriber.stream) for subscriber in subscribers}
        for _ in range(60 * 4):
            self.reactor.run_for(0.25, step=0.25)
            for subscriber in subscribers:
                if len(subscriber.stream) > lengths[subscriber]:
                    self.assertTrue(subscriber.stream.endswith(b"\n\n:\n\n"))
                    lengths[subscriber] = len(subscriber.stream)
                    times[subscriber].append(self.reactor.seconds())
        for at in times.values():
            gaps = [later - earlier for earlier, later in pairwise(at)]
            self.assertGreaterEqual(len(gaps), 3)
            self.assertTrue(all(4 <= gap <= 16.5 for gap in gaps), gaps)
        first = [at[1] for at in times.values()]
        self.assertGreater(max(first) - min(first), 2, "the heartbeats are spread out")

    def test_disconnect(self) -> None:
        """A subscriber that disconnects is forgotten at once, in whatever state, and a thousand of them leave nothing."""
        for n in range(1000):
            subscriber = self.subscriber("/events?delta=merge" if n % 2 else "/events")
            self.assertEqual(self.broadcast.subscriber_counts()["event_readers"], 1)
            if n % 3:
                subscriber.transport.room = 5
                self.publish(state(n + 7))
            subscriber.lose()
            self.assertEqual(self.broadcast.subscriber_counts().total(), 0)
            subscriber.transport.make_room(10**6)
        self.assertEqual(self.site.connections.open, set())

    def test_no_reference_cycle(self) -> None:
        """When a client disconnects, all of its memory is freed at once, without the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        for target, fields in (("/events", {}), ("/", {"prefer": "wait=9", "if_none_match": "*"})):
            subscriber = self.subscriber(target, **fields)
            channel = weakref.ref(subscriber.channel)
            subscriber.lose()
            subscriber.transport.unregisterProducer()
            del subscriber
            self.assertIsNone(channel(), target)

    def test_stop(self) -> None:
        """When the service stops, each stream is ended as HTTP ends a body, or aborted if the subscriber is too slow."""
        subscriber, behind = self.subscriber(), self.subscriber()
        behind.transport.room = 10
        self.publish(state(2))
        self.streams.stopService()
        self.assertTrue(subscriber.transport.value().endswith(b"\r\n0\r\n\r\n"))
        self.assertTrue(subscriber.transport.disconnecting)
        self.assertTrue(behind.transport.aborted)
        self.streams.startService()

    def test_data_after_the_request(self) -> None:
        """Data that a client sends on a stream is discarded: it is not answered and not buffered."""
        subscriber = self.subscriber()
        for _ in range(100):
            subscriber.channel.dataReceived(request() * 100)
        both = Connection(self.site, request("/events") + request() * 3)
        self.publish(state(2))
        for connection in (subscriber, both):
            self.assertEqual(connection.numbers(), [1, 2])
            self.assertEqual(connection.transport.value().count(b"HTTP/1.1 "), 1)
            self.assertEqual(
                (connection.channel._pending, connection.channel._dataBuffer, connection.channel._buffer),
                (b"", [], b""),
            )

    def test_idle_timeout(self) -> None:
        """A stream has no idle timeout."""
        idle_timeouts = IdleTimeouts(self.reactor, lambda: self.site.connections.open)
        idle_timeouts.startService()
        self.addCleanup(idle_timeouts.stopService)
        subscriber, behind = self.subscriber(), self.subscriber()
        behind.transport.room = 10
        self.reactor.run_for(6 * QUIET * 5.0, step=1)
        self.assertFalse(subscriber.transport.disconnecting)

    def test_counts(self) -> None:
        """Subscribers, sent events and events that slow subscribers missed are counted."""
        _, behind = self.subscriber(), self.subscriber()
        behind.transport.room = 10
        for n in (2, 3, 4):
            self.publish(state(n))
        counted = self.broadcast.subscriber_counts(), self.broadcast.sent, self.broadcast.skipped
        self.assertEqual(counted, ({"event_readers": 2}, 6, 2))


class ConflationTests(Case):
    """Slow subscribers."""

    def test_slow_subscriber_skips_versions(self) -> None:
        """A subscriber with unsent data is sent nothing more, and later only the newest version."""
        subscriber, fast = self.subscriber(), self.subscriber()
        subscriber.transport.room = 100
        for n in range(2, 50):
            self.publish(state(n))
            self.assertLess(len(subscriber.transport.waiting), 600)
        subscriber.transport.make_room(10**6)
        self.assertEqual(subscriber.numbers(), [1, 2, 49])
        self.assertEqual(fast.numbers(), list(range(1, 50)))
        self.publish(state(50))
        self.assertEqual(subscriber.numbers()[-1], 50)

    def test_slow_subscriber_to_patches(self) -> None:
        """A slow subscriber to patches is sent the patches that it missed or the state, whichever is smaller."""
        subscriber = self.subscriber("/events?delta=merge")
        for missed, kinds in ((3, ["patch"] * 3), (60, ["message"])):
            subscriber.transport.room = 10
            before = len(subscriber.events()) if not subscriber.transport.waiting else 0
            start = self.document.changes
            for n in range(missed + 1):
                self.publish(state(1000 + start + n))
            subscriber.transport.make_room(10**9)
            self.assertEqual([kind for kind, _, _ in subscriber.events()[before + 1 :]], kinds)
            self.assertEqual(subscriber.numbers()[-1], 1000 + start + missed)

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
        """However slowly a subscriber reads, at most one event is unsent, and in the end it has the newest document."""
        self.setUp()
        subscriber = self.subscriber("/events?delta=merge" if deltas else "/events")
        subscriber.transport.room = 100
        unsent_sizes = []
        for number, (step, value) in enumerate(steps):
            if step == "change":
                self.publish(state(number + 2, value=value))
            elif step == "room":
                subscriber.transport.make_room(value)
            else:
                self.reactor.run_for(value, step=1)
            unsent_sizes.append(len(subscriber.transport.waiting))
        self.assertTrue(all(size < 500 for size in unsent_sizes), unsent_sizes)
        while subscriber.transport.waiting:
            subscriber.transport.make_room(10**6)
        value = None
        for kind, _, data in subscriber.events():
            value = apply(value, json.loads(data)) if kind == "patch" else json.loads(data)
        assert self.document.snapshot is not None
        self.assertEqual(value, json.loads(self.document.snapshot.body))

    def test_stuck_subscriber(self) -> None:
        """A subscriber that reads nothing for half a minute is disconnected; one that reads a byte now and then is not."""
        subscribers = [self.subscriber() for _ in range(3)]
        self.patch(subscriber_module, "unsent", lambda transport: len(transport.waiting))
        dead, slow, fast = subscribers
        dead.transport.room = slow.transport.room = 10
        self.publish(state(2))
        for second in range(int(STUCK) + 3):
            slow.transport.make_room(1)
            self.assertFalse(dead.transport.aborted and second < STUCK - 1)
            self.reactor.run_for(1, step=0.25)
        self.assertTrue(dead.transport.aborted)
        self.assertFalse(slow.transport.aborted or fast.transport.aborted)

    def test_delivery(self) -> None:
        """The time from the start of a fetch until all subscribers of every kind were written to is counted once."""
        for target in ("/events", "/events", "/events?delta=merge"):
            self.subscriber(target)
        self.assertEqual(sum(self.broadcast.delivery.counts), 0)
        Deferred.fromCoroutine(self.document.update(state(2), self.reactor.seconds() - 0.3))
        self.reactor.advance(0.001)
        self.assertEqual(sum(self.broadcast.delivery.counts), 1)
        self.assertApproximates(self.broadcast.delivery.sum, 0.3, 0.01)
        self.assertApproximates(self.document.publication_delay.sum, 0.3, 0.01)

    def test_nothing_delivered(self) -> None:
        """A change without subscribers, and a document from an earlier run, have no delivery time."""
        self.publish(state(2))
        Deferred.fromCoroutine(self.document.update(state(3), self.reactor.seconds()))
        self.reactor.advance(0.001)
        self.subscriber()
        self.document.restore(new_snapshot(state(4), self.reactor.seconds() + 1), self.reactor.seconds())
        self.reactor.advance(0.001)
        self.assertEqual(sum(self.broadcast.delivery.counts), 0)

    def test_bytes(self) -> None:
        """The bytes of all events are counted."""
        subscribers = [self.subscriber() for _ in range(3)]
        before = self.broadcast.sent_bytes, sum(len(subscriber.transport.value()) for subscriber in subscribers)
        for n in (2, 3):
            self.publish(state(n))
        after = self.broadcast.sent_bytes, sum(len(subscriber.transport.value()) for subscriber in subscribers)
        self.assertEqual(after[0] - before[0], after[1] - before[1])

    def test_broadcast_is_spread(self) -> None:
        """A broadcast is spread over turns of the reactor, and a version that arrives meanwhile is sent to all."""
        subscribers = [self.subscriber() for _ in range(200)]
        seconds, ticks = self.reactor.seconds, count()
        self.streams.scheduler.seconds = self.broadcast.seconds = lambda: seconds() + next(ticks) * 0.0005
        turns: list[Any] = []
        self.patch(self.reactor, "callLater", lambda delay, function: turns.append(function))
        Deferred.fromCoroutine(self.document.update(state(2)))
        sent = []
        for _ in range(3):
            turns.pop(0)()
            sent.append(sum(len(subscriber.numbers()) for subscriber in subscribers) - 200)
        self.assertTrue(0 < sent[0] < sent[1] < sent[2] < 200, sent)
        Deferred.fromCoroutine(self.document.update(state(3)))
        while turns:
            turns.pop(0)()
        received = [subscriber.numbers() for subscriber in subscribers]
        self.assertEqual({tuple(numbers) for numbers in received}, {(1, 2, 3), (1, 3)})
        self.assertEqual(sum(2 in numbers for numbers in received), sent[2])


class OriginTests(Case):
    """Streams that only some pages may read."""

    origins = ("https://a.example", "https://b.example")

    def test_allowed_origins(self) -> None:
        """Pages of a listed origin may read the stream, others may not, and the response varies by Origin."""
        for origin, allowed in (("https://b.example", "https://b.example"), ("https://c.example", None), (None, None)):
            fields = parse_response(self.subscriber(**({"origin": origin} if origin else {})).transport.value()).fields
            self.assertEqual(fields.get("Access-Control-Allow-Origin"), allowed)
            self.assertEqual(fields["Vary"], "Origin")


class StaleTests(Case):
    """A document that must not be sent when it is too old."""

    max_stale = 10.0

    def test_too_old(self) -> None:
        """While the document is too old, a new subscriber is sent nothing; once it is confirmed, the state."""
        first = self.subscriber()
        self.reactor.run_for(11)
        subscriber = self.subscriber()
        self.assertEqual(subscriber.events(), [])
        self.publish(state(1))
        self.reactor.run_for(2)
        self.assertEqual(subscriber.numbers(), [1])
        self.assertEqual(first.numbers(), [1])
