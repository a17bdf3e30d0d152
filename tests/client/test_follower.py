"""Keeping up with a document: transports, pauses and ends, with a clock that is told what to do."""

import random
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from livestate.client.address import parse_address
from livestate.client.connection import ANSWER, Connection
from livestate.client.follower import (
    FIRST_BYTES,
    HEARTBEATS,
    LONGEST_PAUSE,
    LONGEST_WISH,
    STREAM_AGAIN,
    STREAM_TRIES,
    WAIT,
    Follower,
)
from livestate.client.state import Status
from livestate.errors import WatchError
from tests.support import log_lines

URL = "http://live.example/r.json"
EVENTS = "http://live.example/r.json/events?delta=merge"


@implementer(IResponse)
class Answer:
    """An answer whose body comes piece by piece."""

    def __init__(self, code: int = 200, body: bytes | None = None, **fields: str) -> None:
        self.code = code
        self.headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        self.length = 1
        self.request = self.previousResponse = self.phrase = self.version = None
        self.body: Any = None
        self.closed = False
        self._whole = body

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol
        protocol.makeConnection(self)
        if self._whole:
            protocol.dataReceived(self._whole)
        if self._whole is not None:
            self.end()

    def setPreviousResponse(self, response: Any) -> None:
        raise NotImplementedError

    def end(self, why: Exception | None = None) -> None:
        self.body.connectionLost(Failure(why or ResponseDone()))

    def loseConnection(self) -> None:
        self.closed = True


@dataclass
class Asked:
    """One request."""

    url: str
    headers: Headers
    answer: Deferred[Answer]

    def field(self, name: str) -> str | None:
        return self.headers.getRawHeaders(name, [None])[0]


@implementer(IAgent)
@dataclass
class Server:
    """Notes what it is asked; `script` answers, as long as there is something in it, and then `always`, by URL."""

    asked: list[Asked] = field(default_factory=list)
    script: list[Answer | Exception] = field(default_factory=list)
    always: dict[str, Any] = field(default_factory=dict)

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        if self.script or uri.decode() in self.always:
            given = self.script.pop(0) if self.script else self.always[uri.decode()]()
            answer = fail(given) if isinstance(given, Exception) else succeed(given)
        self.asked.append(Asked(uri.decode(), headers, answer))
        return answer


def stream(body: bytes | None = None) -> Answer:
    """Give an event stream; with a body it ends after that."""
    return Answer(200, body, Content_Type="text/event-stream; charset=utf-8")


def event(version: int | str, data: str) -> bytes:
    """Give the bytes of an event."""
    return f"id: {version}\ndata: {data}\n\n".encode()


def down() -> Exception:
    """Give what comes of a server that is not there."""
    return ConnectionRefusedError()


class FollowerCase(SynchronousTestCase):
    """A follower whose pauses are the longest of those that may be drawn."""

    def setUp(self):
        self.patch(random, "uniform", mock.Mock(side_effect=lambda low, high: high))
        self.clock: Any = Clock()
        self.server = Server()
        self.states: list[Any] = []
        self.statuses: list[Status] = []
        self.ended: list[Any] = []
        self.stop_at_once = False
        self.follower = self.new_follower()
        self.addCleanup(self.stop)

    def new_follower(self, **options: Any) -> Follower:
        address = parse_address(URL)
        connection = Connection(self.clock, address, headers={"X-Key": "1"}, agent=self.server)
        settings: dict[str, Any] = {"interval": 1.0, "heartbeat": 15.0, "max_size": 1000}
        return Follower(
            connection, address, self.on_state,
            on_status=self.statuses.append,
            **{**settings, **options},
        )  # fmt: skip

    def on_state(self, state: Any) -> None:
        self.states.append(state)
        if self.stop_at_once:
            self.follower.stop()

    def start(self, *script: Answer | Exception) -> None:
        """Begin, with these answers to come."""
        self.server.script += script
        self.follower.start().addBoth(self.ended.append)

    def stop(self) -> None:
        """End, and see that nothing is left."""
        self.follower.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.ended), 1)

    def values(self) -> list[Any]:
        return [state.value for state in self.states]

    def asked(self) -> list[str]:
        """Give what was asked for since the last time."""
        urls = [asked.url for asked in self.server.asked]
        self.server.asked.clear()
        return urls

    def assert_pause(self, seconds: float, then: list[str]) -> None:
        """See that nothing is asked for so long, and then that."""
        self.asked()
        self.clock.advance(seconds - 0.01)
        self.assertEqual(self.asked(), [])
        self.clock.advance(0.02)
        self.assertEqual([asked.url for asked in self.server.asked], then)

    def error(self) -> str:
        """Give the one line of the error that ended it."""
        (failure,) = self.ended
        self.assertTrue(failure.check(WatchError), failure)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return str(failure.value)


class StreamTests(FollowerCase):
    """By an event stream."""

    def test_states(self):
        """The stream is asked for first, with what a stream is asked with, and gives the states."""
        self.start(answer := stream())
        (asked,) = self.server.asked
        self.assertEqual((asked.url, asked.field("Accept")), (EVENTS, "text/event-stream"))
        self.assertEqual((asked.field("X-Key"), asked.field("Last-Event-ID")), ("1", None))
        self.assertEqual(self.follower.status, Status(False, "events"))
        answer.body.dataReceived(event(1, '{"a": 1}') + b'event: patch\nid: 2\ndata: {"a": 2}\n\n')
        self.assertEqual(self.values(), [{"a": 1}, {"a": 2}])
        self.assertEqual(self.statuses, [Status(True, "events")])

    def test_comes_back(self):
        """After its end it is asked for again, after the server's `retry`, with the id of the event that is held."""
        self.start(stream(b"retry: 2500\n\n" + b"id: 7-Ab_c-\ndata: 1\n\n"), stream())
        self.assertEqual(self.statuses[-1], Status(False, "events", "the event stream ended"))
        self.assert_pause(2.5, [EVENTS])
        self.assertEqual(self.server.asked[0].field("Last-Event-ID"), "7-Ab_c-")

    def test_broken_off(self):
        """A stream that breaks off is one that ends, and what was in the middle of it does not count."""
        self.start(answer := stream(), stream())
        answer.body.dataReceived(event(7, "1") + b"data: 2\n")
        answer.end(down())
        self.assert_pause(1.0, [EVENTS])
        self.assertEqual(self.values(), [1])

    def test_backoff(self):
        """A server that is away is asked for ever, after pauses that grow up to a limit, and said so once."""
        with log_lines() as lines:
            self.start(*(down() for _ in range(20)))
            for pause in (1, 2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE):
                self.assert_pause(pause, [EVENTS])
            for _ in range(12):
                self.clock.advance(LONGEST_PAUSE)
            self.assertEqual(len(self.statuses), 1)
            self.server.script[:] = [stream(event(1, "1"))]
            self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.values(), [1])
        self.assertEqual(
            [line.rpartition(": ")[2] for line in lines[:2]],
            ["Connection was refused by other side; asking on", "good again"],
        )

    def test_short_pauses_are_not_logged(self):
        """A stream that is ended and taken up again is no line in the log; one that is not, is, once."""
        with log_lines() as lines:
            self.start(stream(event(1, "1")), stream(event(2, "2")), stream(event(3, "3")), down(), down())
            self.clock.pump([1, 1, 1])
            self.assertEqual((self.values(), len(lines)), ([1, 2, 3], 1))
            self.clock.pump([2])
            self.assertEqual(len(lines), 1)

    def test_faults_are_not_hidden(self):
        """What is no failure of the network is a fault, and is raised instead of tried again."""
        self.start(ZeroDivisionError())
        self.ended.pop().trap(ZeroDivisionError)
        self.ended.append(None)

    def test_backoff_begins_anew(self):
        """The pauses begin anew after a stream that was good, not after one that gave nothing."""
        self.start(down(), down(), down(), stream(event(1, "1")), down())
        self.clock.pump([1, 2, 4])
        self.assertEqual(self.values(), [1])
        self.assert_pause(1.0, [EVENTS])
        self.assert_pause(2.0, [EVENTS])

    def test_wish_is_bounded(self):
        """A server cannot wish to be left alone for days."""
        self.start(stream(b"retry: 999999999999\n\n" + event(7, "1")), stream())
        self.assert_pause(LONGEST_WISH, [EVENTS])

    def test_silence(self):
        """A stream on which nothing comes for two and a half heartbeats is dead; a comment is a sign of life."""
        self.follower = self.new_follower(heartbeat=10.0)
        self.start(answer := stream(), stream())
        answer.body.dataReceived(event(1, "1"))
        for _ in range(5):
            self.clock.advance(HEARTBEATS * 10 - 0.1)
            answer.body.dataReceived(b":\n\n")
        self.assertFalse(answer.closed)
        self.clock.advance(HEARTBEATS * 10)
        self.assertTrue(answer.closed)
        self.assertIn("nothing came for 25 s", str(self.statuses[-1].trouble))
        self.assert_pause(1.0, [EVENTS])
        answer.body.dataReceived(event(2, "2"))
        self.assertEqual(self.values(), [1])

    def test_no_answer(self):
        """A server that accepts and says nothing is asked for the document, which may go through, and then on and on."""
        self.start()
        self.clock.advance(FIRST_BYTES)
        self.assertEqual(self.asked(), [EVENTS, URL])
        self.clock.advance(WAIT + ANSWER)
        self.assertIn("no answer within 40 s", str(self.statuses[-1].trouble))
        self.assert_pause(1.0, [URL])

    def test_stop_in_callback(self):
        """One who stops when called is not called again, though more has come already."""
        self.stop_at_once = True
        self.start(answer := stream())
        answer.body.dataReceived(event(1, "1") + event(2, "2"))
        self.assertEqual(self.values(), [1])
        self.assertTrue(answer.closed)

    def test_too_large(self):
        """An event that is larger than allowed is an error."""
        self.start(answer := stream())
        answer.body.dataReceived(b"data: " + 2000 * b"x")
        self.assertIn("more than 1,000 bytes", self.error())
        self.assertTrue(answer.closed)


class FallbackTests(FollowerCase):
    """Where there is no stream."""

    def poll(self, *script: Answer | Exception) -> None:
        """Begin with a server that has no events."""
        self.start(Answer(404, b""), *script)

    def test_no_stream(self):
        """Any answer that is no event stream has the document asked for instead, to be held for news."""
        for answer in (Answer(404), Answer(405), Answer(204), Answer(403), Answer(301, Location="/"),
                       Answer(200, Content_Type="application/json"), Answer(200)):  # fmt: skip
            self.follower = self.new_follower()
            self.start(answer)
            self.assertEqual(self.asked(), [EVENTS, URL], answer.code)
            self.stop()
            self.ended.clear()
        self.follower = self.new_follower()
        self.start(Answer(404))
        asked = self.server.asked[-1]
        self.assertEqual((asked.field("Prefer"), asked.field("If-None-Match")), ("wait=30", None))

    def test_held(self):
        """A request that was held is followed by the next at once, with the entity tag; 304 means that nothing is new."""
        held = {"Preference_Applied": "wait=30"}
        self.poll(Answer(200, b"[1]", ETag='"a"'))
        self.assertEqual((self.states[0].etag, self.states[0].version), ('"a"', None))
        self.assertEqual(self.statuses[-1], Status(True, "poll"))
        self.clock.advance(1.0)
        self.assertEqual(self.server.asked[-1].field("If-None-Match"), '"a"')
        self.clock.advance(28.0)
        self.asked()
        self.server.script.append(Answer(200, b"[2]", ETag='"b"', **held))
        self.clock.advance(12.0)
        self.assertEqual(self.statuses[-1].connected, False)
        self.clock.advance(1.0)
        self.assertEqual(self.values(), [[1], [2]])
        self.assertEqual(self.asked(), [URL, URL])
        self.assertEqual(self.statuses[-1], Status(True, "long-poll"))

    def test_polled(self):
        """A server that does not hold requests is asked each interval, counted from request to request."""
        self.follower = self.new_follower(interval=5.0)
        self.poll(Answer(200, b"1", ETag='"a"'), Answer(304, b"", ETag='"a"'), Answer(200, b"2", ETag='"b"'))
        self.assert_pause(5.0, [URL])
        self.assert_pause(5.0, [URL])
        self.assertEqual(self.values(), [1, 2])

    def test_held_and_nothing_new(self):
        """Requests that are answered at once with nothing new do not follow each other without a pause."""
        self.poll(Answer(200, b"1", ETag='"a"'), *(Answer(304, b"", Preference_Applied="wait=30") for _ in range(3)))
        self.assert_pause(1.0, [URL])
        self.assert_pause(1.0, [URL])

    def test_no_etag(self):
        """Without entity tags the same document is still given once."""
        self.poll(Answer(200, b"1"), Answer(200, b" 1"), Answer(200, b"2"))
        self.clock.pump([1, 1])
        self.assertEqual(self.values(), [1, 2])

    def test_stream_is_tried_again(self):
        """After a while of polling, and then ever longer ones, a stream is tried; it goes on from a whole state."""
        self.server.always = {EVENTS: lambda: Answer(404, b""), URL: lambda: Answer(304, b"")}
        self.poll(Answer(200, b"1", ETag='"a"'))
        tried = []
        for _ in range(450):
            if EVENTS in self.asked():
                tried.append(self.clock.seconds())
            self.clock.advance(1.0)
        self.assertEqual(tried, [0, STREAM_AGAIN, 3 * STREAM_AGAIN, 7 * STREAM_AGAIN])

    def test_from_polling_to_a_stream(self):
        """The stream gives a whole state, for which no patch is expected, and the document is not asked for any more."""
        self.server.always = {URL: lambda: Answer(304, b"")}
        self.poll(Answer(200, b"1", ETag='"a"'))
        good = stream()
        self.server.always[EVENTS] = lambda: good
        self.asked()
        for _ in range(int(STREAM_AGAIN)):
            self.clock.advance(1.0)
        self.assertEqual(self.asked()[-1], EVENTS)
        good.body.dataReceived(event(5, "1") + event(6, "2"))
        self.assertEqual(self.values(), [1, 2])
        self.assertEqual(self.statuses[-1], Status(True, "events"))
        self.clock.advance(30)
        self.assertEqual(self.asked(), [])

    def test_blocked(self):
        """A stream of which nothing comes through is one that a proxy gathers: polling begins at once."""
        self.start(answer := stream(), Answer(200, b"1"))
        self.clock.advance(FIRST_BYTES)
        self.assertTrue(answer.closed)
        self.assertEqual((self.asked(), self.values()), ([EVENTS, URL], [1]))

    def test_streams_fail(self):
        """Streams that end without anything, or are answered with errors, are given up after some tries."""
        self.start(stream(b""), Answer(502, b""), stream(b""), Answer(200, b"1"))
        self.clock.pump([1, 2])
        self.assertEqual(self.asked(), STREAM_TRIES * [EVENTS] + [URL])
        self.assertEqual(self.values(), [1])

    def test_short_streams(self):
        """Streams of which something came through are no reason to poll, however short they are, but pauses grow."""
        self.start(*(stream(b"retry: 1\n\n") for _ in range(9)))
        for pause in (1, 2, 4, 8, LONGEST_PAUSE):
            self.assert_pause(pause, [EVENTS])

    def test_server_restarts(self):
        """A server that is away for a minute is found again with its stream."""
        self.start(stream(event(1, "1")), *(down() for _ in range(8)), stream(event(2, "2")))
        while self.values() == [1] and self.clock.seconds() < 120:
            self.clock.advance(1.0)
        self.assertEqual(self.values(), [1, 2])
        self.assertNotIn(URL, self.asked())

    def test_retry_after(self):
        """503 has it asked again after the server's Retry-After."""
        self.poll(Answer(503, b"", Retry_After="7"), Answer(200, b"1"))
        self.assertEqual(self.statuses[-1], Status(False, "events", "the server answered 503"))
        self.assert_pause(7.0, [URL])
        self.assertEqual(self.values(), [1])

    def test_refused(self):
        """404 and other answers that will not change are raised, once, with what they were."""
        for answer, expected in (
            (Answer(404, b""), "answered 404"),
            (Answer(410, b""), "answered 410"),
            (Answer(401, b""), "answered 401"),
            (Answer(304, b""), "answered 304"),
            (Answer(301, b"", Location="https://other.example/"), "it points to https://other.example/"),
            (Answer(200, b"<html>"), "not JSON"),
            (Answer(200, 600 * b"[]" + b"x"), "more than 1,000 bytes"),
        ):
            self.follower = self.new_follower()
            self.poll(answer)
            self.assertIn(expected, self.error())
            self.assertIn(URL, self.error())
            self.ended.clear()
        self.ended.append(None)

    def test_stop_in_callback(self):
        """One who stops when called with what was polled is not called again, and nothing is left."""
        self.stop_at_once = True
        self.poll(Answer(200, b"1", Preference_Applied="wait=30"))
        self.assertEqual((self.values(), self.asked()), ([1], [EVENTS, URL]))


class AddressTests(SynchronousTestCase):
    """Where things are."""

    def test_events(self):
        """The stream of a document is below it, and the document's query goes along."""
        for url, document, events in (
            ("http://h", "http://h/", "http://h/events?delta=merge"),
            ("https://h:8443/", "https://h:8443/", "https://h:8443/events?delta=merge"),
            ("http://h/a/r.json", "http://h/a/r.json", "http://h/a/r.json/events?delta=merge"),
            ("http://h/a/?x=1#y", "http://h/a/?x=1", "http://h/a/events?x=1&delta=merge"),
            ("http://[::1]:80/", "http://[::1]:80/", "http://[::1]:80/events?delta=merge"),
        ):
            address = parse_address(url)
            self.assertEqual((address.document, address.events), (document, events))

    def test_login(self):
        """User and password are taken out of the URL and unescaped."""
        address = parse_address("https://a%40b:c%3A@h/")
        self.assertEqual((address.login, address.document, address.host), (("a@b", "c:"), "https://h/", "h"))
        self.assertIsNone(parse_address("https://h/").login)
