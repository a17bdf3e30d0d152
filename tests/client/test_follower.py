"""The follower's transports, delays and errors, with a fake clock and a fake server."""

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
from livestate.client.connection import TIMEOUT, Connection
from livestate.client.follower import (
    FIRST_BYTES_TIMEOUT,
    MAX_DELAY,
    MAX_FAILED_STREAMS,
    MAX_SERVER_DELAY,
    MISSED_HEARTBEATS,
    STREAM_RETRY,
    WAIT,
    Follower,
)
from livestate.client.state import Status
from livestate.errors import WatchError
from tests.support import log_lines

URL = "http://live.example/r.json"
EVENTS = "http://live.example/r.json/events?delta=merge"


@implementer(IResponse)
class Response:
    """A response whose body arrives piece by piece."""

    def __init__(self, code: int = 200, body: bytes | None = None, **fields: str) -> None:
        self.code = code
        self.headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        self.length = 1
        self.request = self.previousResponse = self.phrase = self.version = None
        self.body: Any = None
        self.closed = False
        self._complete_body = body

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol
        protocol.makeConnection(self)
        if self._complete_body:
            protocol.dataReceived(self._complete_body)
        if self._complete_body is not None:
            self.end()

    def setPreviousResponse(self, response: Any) -> None:
        raise NotImplementedError

    def end(self, reason: Exception | None = None) -> None:
        self.body.connectionLost(Failure(reason or ResponseDone()))

    def loseConnection(self) -> None:
        self.closed = True


@dataclass
class Request:
    """One request."""

    url: str
    headers: Headers
    response: Deferred[Response]

    def field(self, name: str) -> str | None:
        return self.headers.getRawHeaders(name, [None])[0]


@implementer(IAgent)
@dataclass
class Server:
    """Records requests and responds with the next item of `script`; when that is empty, by URL with `always`."""

    requests: list[Request] = field(default_factory=list)
    script: list[Response | Exception] = field(default_factory=list)
    always: dict[str, Any] = field(default_factory=dict)

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        response: Deferred[Any] = Deferred()
        if self.script or uri.decode() in self.always:
            result = self.script.pop(0) if self.script else self.always[uri.decode()]()
            response = fail(result) if isinstance(result, Exception) else succeed(result)
        self.requests.append(Request(uri.decode(), headers, response))
        return response


def stream(body: bytes | None = None) -> Response:
    """Return an event stream; with a body, it ends after that."""
    return Response(200, body, Content_Type="text/event-stream; charset=utf-8")


def event(version: int | str, data: str) -> bytes:
    """Return the bytes of an event."""
    return f"id: {version}\ndata: {data}\n\n".encode()


def down() -> Exception:
    """Return the error for a server that is down."""
    return ConnectionRefusedError()


class FollowerCase(SynchronousTestCase):
    """A follower whose random delays are always the longest possible."""

    def setUp(self):
        self.patch(random, "uniform", mock.Mock(side_effect=lambda low, high: high))
        self.clock: Any = Clock()
        self.server = Server()
        self.states: list[Any] = []
        self.statuses: list[Status] = []
        self.ended: list[Any] = []
        self.stop_in_callback = False
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
        if self.stop_in_callback:
            self.follower.stop()

    def start(self, *script: Response | Exception) -> None:
        """Start following, with these responses to come."""
        self.server.script += script
        self.follower.start().addBoth(self.ended.append)

    def stop(self) -> None:
        """Stop, and check that no delayed call is left."""
        self.follower.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.ended), 1)

    def values(self) -> list[Any]:
        return [state.value for state in self.states]

    def new_requests(self) -> list[str]:
        """Return the URLs requested since the last call."""
        urls = [request.url for request in self.server.requests]
        self.server.requests.clear()
        return urls

    def assert_delay(self, seconds: float, then: list[str]) -> None:
        """Check that nothing is requested for this long, and then these URLs are."""
        self.new_requests()
        self.clock.advance(seconds - 0.01)
        self.assertEqual(self.new_requests(), [])
        self.clock.advance(0.02)
        self.assertEqual([request.url for request in self.server.requests], then)

    def error(self) -> str:
        """Return the text of the error that ended the follower."""
        (failure,) = self.ended
        self.assertTrue(failure.check(WatchError), failure)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return str(failure.value)


class StreamTests(FollowerCase):
    """Following an event stream."""

    def test_states(self):
        """The stream is requested first, with the right fields, and provides the states."""
        self.start(response := stream())
        (request,) = self.server.requests
        self.assertEqual((request.url, request.field("Accept")), (EVENTS, "text/event-stream"))
        self.assertEqual((request.field("X-Key"), request.field("Last-Event-ID")), ("1", None))
        self.assertEqual(self.follower.status, Status(False, "events"))
        response.body.dataReceived(event(1, '{"a": 1}') + b'event: patch\nid: 2\ndata: {"a": 2}\n\n')
        self.assertEqual(self.values(), [{"a": 1}, {"a": 2}])
        self.assertEqual(self.statuses, [Status(True, "events")])

    def test_resumes(self):
        """A stream that ended is requested again after the server's `retry`, with the id of the newest event."""
        self.start(stream(b"retry: 2500\n\n" + b"id: 7-Ab_c-\ndata: 1\n\n"), stream())
        self.assertEqual(self.statuses[-1], Status(False, "events", "the event stream ended"))
        self.assert_delay(2.5, [EVENTS])
        self.assertEqual(self.server.requests[0].field("Last-Event-ID"), "7-Ab_c-")

    def test_broken_off(self):
        """A stream that breaks off counts as ended, and its incomplete event is dropped."""
        self.start(response := stream(), stream())
        response.body.dataReceived(event(7, "1") + b"data: 2\n")
        response.end(down())
        self.assert_delay(1.0, [EVENTS])
        self.assertEqual(self.values(), [1])

    def test_backoff(self):
        """A server that is down is retried indefinitely, with growing, limited delays, and is logged once."""
        with log_lines() as lines:
            self.start(*(down() for _ in range(20)))
            for delay in (1, 2, 4, 8, MAX_DELAY, MAX_DELAY):
                self.assert_delay(delay, [EVENTS])
            for _ in range(12):
                self.clock.advance(MAX_DELAY)
            self.assertEqual(len(self.statuses), 1)
            self.server.script[:] = [stream(event(1, "1"))]
            self.clock.advance(MAX_DELAY)
        self.assertEqual(self.values(), [1])
        self.assertEqual(
            [line.rpartition(": ")[2] for line in lines[:2]],
            ["Connection was refused by other side; retrying", "reconnected"],
        )

    def test_short_interruptions_are_not_logged(self):
        """A stream that ended and was resumed is not logged; one that was not resumed is logged once."""
        with log_lines() as lines:
            self.start(stream(event(1, "1")), stream(event(2, "2")), stream(event(3, "3")), down(), down())
            self.clock.pump([1, 1, 1])
            self.assertEqual((self.values(), len(lines)), ([1, 2, 3], 1))
            self.clock.pump([2])
            self.assertEqual(len(lines), 1)

    def test_faults_are_not_hidden(self):
        """An exception that is not a network failure is a bug: it is raised, not retried."""
        self.start(ZeroDivisionError())
        self.ended.pop().trap(ZeroDivisionError)
        self.ended.append(None)

    def test_backoff_reset(self):
        """The back-off restarts after a stream that delivered an event, not after a failed one."""
        self.start(down(), down(), down(), stream(event(1, "1")), down())
        self.clock.pump([1, 2, 4])
        self.assertEqual(self.values(), [1])
        self.assert_delay(1.0, [EVENTS])
        self.assert_delay(2.0, [EVENTS])

    def test_server_delay_is_bounded(self):
        """The delay that a server asks for is limited."""
        self.start(stream(b"retry: 999999999999\n\n" + event(7, "1")), stream())
        self.assert_delay(MAX_SERVER_DELAY, [EVENTS])

    def test_heartbeats(self):
        """A stream without data for two and a half heartbeats is dead; a comment is a heartbeat."""
        self.follower = self.new_follower(heartbeat=10.0)
        self.start(response := stream(), stream())
        response.body.dataReceived(event(1, "1"))
        for _ in range(5):
            self.clock.advance(MISSED_HEARTBEATS * 10 - 0.1)
            response.body.dataReceived(b":\n\n")
        self.assertFalse(response.closed)
        self.clock.advance(MISSED_HEARTBEATS * 10)
        self.assertTrue(response.closed)
        self.assertIn("no data for 25 s", str(self.statuses[-1].trouble))
        self.assert_delay(1.0, [EVENTS])
        response.body.dataReceived(event(2, "2"))
        self.assertEqual(self.values(), [1])

    def test_no_answer(self):
        """If the stream gets no response, the document is polled instead, and polling is retried."""
        self.start()
        self.clock.advance(FIRST_BYTES_TIMEOUT)
        self.assertEqual(self.new_requests(), [EVENTS, URL])
        self.clock.advance(WAIT + TIMEOUT)
        self.assertIn("no answer within 40 s", str(self.statuses[-1].trouble))
        self.assert_delay(1.0, [URL])

    def test_stop_in_callback(self):
        """A callback that stops the follower is not called again, though another event has already arrived."""
        self.stop_in_callback = True
        self.start(response := stream())
        response.body.dataReceived(event(1, "1") + event(2, "2"))
        self.assertEqual(self.values(), [1])
        self.assertTrue(response.closed)

    def test_too_large(self):
        """An event above the maximum size is an error."""
        self.start(response := stream())
        response.body.dataReceived(b"data: " + 2000 * b"x")
        self.assertIn("more than 1,000 bytes", self.error())
        self.assertTrue(response.closed)


class FallbackTests(FollowerCase):
    """Polling a server without an event stream."""

    def poll(self, *script: Response | Exception) -> None:
        """Start with a server that has no event stream."""
        self.start(Response(404, b""), *script)

    def test_no_stream(self):
        """If the response is not an event stream, the document is requested instead, to be held until it changes."""
        for response in (Response(404), Response(405), Response(204), Response(403), Response(301, Location="/"),
                       Response(200, Content_Type="application/json"), Response(200)):  # fmt: skip
            self.follower = self.new_follower()
            self.start(response)
            self.assertEqual(self.new_requests(), [EVENTS, URL], response.code)
            self.stop()
            self.ended.clear()
        self.follower = self.new_follower()
        self.start(Response(404))
        request = self.server.requests[-1]
        self.assertEqual((request.field("Prefer"), request.field("If-None-Match")), ("wait=30", None))

    def test_held(self):
        """A held request is followed by the next one at once, with the entity tag; 304 means no change."""
        held = {"Preference_Applied": "wait=30"}
        self.poll(Response(200, b"[1]", ETag='"a"'))
        self.assertEqual((self.states[0].etag, self.states[0].version), ('"a"', None))
        self.assertEqual(self.statuses[-1], Status(True, "poll"))
        self.clock.advance(1.0)
        self.assertEqual(self.server.requests[-1].field("If-None-Match"), '"a"')
        self.clock.advance(28.0)
        self.new_requests()
        self.server.script.append(Response(200, b"[2]", ETag='"b"', **held))
        self.clock.advance(12.0)
        self.assertEqual(self.statuses[-1].connected, False)
        self.clock.advance(1.0)
        self.assertEqual(self.values(), [[1], [2]])
        self.assertEqual(self.new_requests(), [URL, URL])
        self.assertEqual(self.statuses[-1], Status(True, "long-poll"))

    def test_polled(self):
        """A server that does not hold requests is polled once per interval, measured from request to request."""
        self.follower = self.new_follower(interval=5.0)
        self.poll(Response(200, b"1", ETag='"a"'), Response(304, b"", ETag='"a"'), Response(200, b"2", ETag='"b"'))
        self.assert_delay(5.0, [URL])
        self.assert_delay(5.0, [URL])
        self.assertEqual(self.values(), [1, 2])

    def test_immediate_304(self):
        """Immediate 304 responses do not lead to requests in a tight loop."""
        self.poll(
            Response(200, b"1", ETag='"a"'), *(Response(304, b"", Preference_Applied="wait=30") for _ in range(3))
        )
        self.assert_delay(1.0, [URL])
        self.assert_delay(1.0, [URL])

    def test_no_etag(self):
        """Without entity tags, an unchanged document is still delivered only once."""
        self.poll(Response(200, b"1"), Response(200, b" 1"), Response(200, b"2"))
        self.clock.pump([1, 1])
        self.assertEqual(self.values(), [1, 2])

    def test_stream_is_retried(self):
        """While polling, the stream is retried at doubling intervals."""
        self.server.always = {EVENTS: lambda: Response(404, b""), URL: lambda: Response(304, b"")}
        self.poll(Response(200, b"1", ETag='"a"'))
        tried = []
        for _ in range(450):
            if EVENTS in self.new_requests():
                tried.append(self.clock.seconds())
            self.clock.advance(1.0)
        self.assertEqual(tried, [0, STREAM_RETRY, 3 * STREAM_RETRY, 7 * STREAM_RETRY])

    def test_from_polling_to_a_stream(self):
        """Once the stream works, it starts with a complete state, and polling stops."""
        self.server.always = {URL: lambda: Response(304, b"")}
        self.poll(Response(200, b"1", ETag='"a"'))
        good = stream()
        self.server.always[EVENTS] = lambda: good
        self.new_requests()
        for _ in range(int(STREAM_RETRY)):
            self.clock.advance(1.0)
        self.assertEqual(self.new_requests()[-1], EVENTS)
        good.body.dataReceived(event(5, "1") + event(6, "2"))
        self.assertEqual(self.values(), [1, 2])
        self.assertEqual(self.statuses[-1], Status(True, "events"))
        self.clock.advance(30)
        self.assertEqual(self.new_requests(), [])

    def test_blocked(self):
        """A stream without any first bytes is buffered by a proxy: polling starts at once."""
        self.start(response := stream(), Response(200, b"1"))
        self.clock.advance(FIRST_BYTES_TIMEOUT)
        self.assertTrue(response.closed)
        self.assertEqual((self.new_requests(), self.values()), ([EVENTS, URL], [1]))

    def test_streams_fail(self):
        """After several streams in a row that end without data or with an error status, polling starts."""
        self.start(stream(b""), Response(502, b""), stream(b""), Response(200, b"1"))
        self.clock.pump([1, 2])
        self.assertEqual(self.new_requests(), MAX_FAILED_STREAMS * [EVENTS] + [URL])
        self.assertEqual(self.values(), [1])

    def test_short_streams(self):
        """Short streams that deliver some data do not lead to polling, but their delays grow."""
        self.start(*(stream(b"retry: 1\n\n") for _ in range(9)))
        for delay in (1, 2, 4, 8, MAX_DELAY):
            self.assert_delay(delay, [EVENTS])

    def test_server_restarts(self):
        """After a server was down for a minute, its stream is used again."""
        self.start(stream(event(1, "1")), *(down() for _ in range(8)), stream(event(2, "2")))
        while self.values() == [1] and self.clock.seconds() < 120:
            self.clock.advance(1.0)
        self.assertEqual(self.values(), [1, 2])
        self.assertNotIn(URL, self.new_requests())

    def test_retry_after(self):
        """After a 503, the next request waits for the server's Retry-After."""
        self.poll(Response(503, b"", Retry_After="7"), Response(200, b"1"))
        self.assertEqual(self.statuses[-1], Status(False, "events", "the server answered 503"))
        self.assert_delay(7.0, [URL])
        self.assertEqual(self.values(), [1])

    def test_refused(self):
        """404 and other permanent failures are raised once, with the reason."""
        for response, expected in (
            (Response(404, b""), "answered 404"),
            (Response(410, b""), "answered 410"),
            (Response(401, b""), "answered 401"),
            (Response(304, b""), "answered 304"),
            (Response(301, b"", Location="https://other.example/"), "watch https://other.example/ instead"),
            (Response(200, b"<html>"), "not JSON"),
            (Response(200, 600 * b"[]" + b"x"), "more than 1,000 bytes"),
        ):
            self.follower = self.new_follower()
            self.poll(response)
            self.assertIn(expected, self.error())
            self.assertIn(URL, self.error())
            self.ended.clear()
        self.ended.append(None)

    def test_stop_in_callback(self):
        """A callback that stops the follower while polling is not called again, and nothing is left."""
        self.stop_in_callback = True
        self.poll(Response(200, b"1", Preference_Applied="wait=30"))
        self.assertEqual((self.values(), self.new_requests()), ([1], [EVENTS, URL]))


class AddressTests(SynchronousTestCase):
    """Parsing the URL of a document."""

    def test_events(self):
        """The event stream's path is below the document's, with the document's query."""
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
        """User and password are removed from the URL and percent-decoded."""
        address = parse_address("https://a%40b:c%3A@h/")
        self.assertEqual((address.login, address.document, address.host), (("a@b", "c:"), "https://h/", "h"))
        self.assertIsNone(parse_address("https://h/").login)
