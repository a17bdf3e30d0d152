"""Long polls: requests that are held until the document changes."""

import gzip
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from livestate.documents.snapshot import LARGE
from livestate.formats.negotiation import wait_preference
from livestate.web.resources.long_poll import MAX_WAIT
from tests.support import many, parse_response, request
from tests.web.resources.test_events import Case, Connection, state


class LongPollTests(Case):
    """Which requests are held, and when they are answered."""

    def poll(self, prefer: str = "wait=30", **fields: str) -> Connection:
        """Send a long poll with the current entity tag."""
        assert self.document.snapshot is not None
        etag = self.document.snapshot.representations["identity"].etag.decode()
        return Connection(self.site, request("/", **{"if_none_match": etag, "prefer": prefer, **fields}))

    def test_change(self) -> None:
        """A poll is held until the document changes, and then gets the usual response with Preference-Applied."""
        poll = self.poll()
        self.assertEqual((poll.transport.value(), len(self.polls)), (b"", 1))
        self.reactor.run_for(5)
        self.assertEqual(poll.transport.value(), b"")
        self.publish(state(2))
        response = parse_response(poll.transport.value())
        self.assertEqual((response.status, response.body), (200, state(2)))
        plain = parse_response(Connection(self.site, request()).transport.value())
        self.assertEqual(response.fields, plain.fields | {"Preference-Applied": "wait=30", "Cache-Control": "no-store"})
        self.assertEqual(len(self.polls), 0)

    def test_timeout(self) -> None:
        """Without a change, polls are answered 304, at different moments within the last tenth of their time."""
        polls = [self.poll() for _ in range(30)]
        self.reactor.run_for(26.9)
        self.assertEqual(len(self.polls), 30)
        self.reactor.run_for(1.5)
        self.assertTrue(0 < len(self.polls) < 30)
        self.reactor.run_for(1.7)
        self.assertEqual(len(self.polls), 0)
        for poll in polls:
            response = parse_response(poll.transport.value())
            self.assertEqual((response.status, response.fields["Preference-Applied"]), (304, "wait=30"))
        self.assertEqual(
            [call for call in self.reactor.getDelayedCalls() if call.getTime() > self.reactor.seconds() + 2], []
        )

    def test_maximum_wait(self) -> None:
        """No request is held for more than a minute, and the response says so."""
        poll = self.poll("wait=86400")
        self.reactor.run_for(MAX_WAIT * 0.89, step=1)
        self.assertEqual(poll.transport.value(), b"")
        self.reactor.run_for(MAX_WAIT * 0.12, step=1)
        self.assertEqual(parse_response(poll.transport.value()).fields["Preference-Applied"], "wait=60")

    def test_answered_at_once(self) -> None:
        """A client without the current document, or with `wait=0`, is answered at once, with Preference-Applied."""
        for poll, status in (
            (self.poll(if_none_match='"other"'), 200),
            (self.poll("wait=0"), 304),
            (self.poll("wait=00"), 304),
        ):
            response = parse_response(poll.transport.value())
            self.assertEqual(response.status, status)
            self.assertTrue(response.fields["Preference-Applied"].startswith("wait="))
            self.assertEqual(response.fields["Cache-Control"], "no-store")

    def test_not_a_long_poll(self) -> None:
        """Other preferences, other methods, and requests from a cache are answered as usual."""
        for poll in (
            self.poll("respond-async"),
            self.poll("wait"),
            self.poll("wait=x"),
            self.poll(if_modified_since="Mon, 02 Nov 2026 00:00:00 GMT"),
        ):
            response = parse_response(poll.transport.value())
            self.assertEqual(response.status, 304)
            self.assertNotIn("Preference-Applied", response.fields)
            self.assertIn("max-age=1", response.fields["Cache-Control"])
        first = parse_response(Connection(self.site, request("/", prefer="wait=9")).transport.value())
        self.assertEqual(first.lines, parse_response(Connection(self.site, request("/")).transport.value()).lines)
        head = Connection(self.site, request("/", "HEAD", prefer="wait=30", if_none_match="*"))
        self.assertNotIn("Preference-Applied", parse_response(head.transport.value()).fields)

    def test_connection_stays_open(self) -> None:
        """After the response, the connection serves further requests in order, including pipelined ones."""
        poll = self.poll()
        poll.channel.dataReceived(request("/nothing") + request())
        self.assertEqual(poll.transport.value(), b"")
        self.publish(state(2))
        self.assertEqual(poll.transport.value().count(b"HTTP/1.1 "), 3)
        first, second, third = poll.transport.value().split(b"HTTP/1.1 ")[1:]
        self.assertTrue(first.startswith(b"200") and second.startswith(b"404") and third.startswith(b"200"))
        poll.channel.dataReceived(request())
        self.assertEqual(poll.transport.value().count(b"HTTP/1.1 "), 4)
        self.assertTrue(poll.channel._fast)

    def test_closing(self) -> None:
        """If the client asks for it or speaks HTTP/1.0, the connection is closed after the response."""
        assert self.document.snapshot is not None
        etag = self.document.snapshot.representations["identity"].etag
        closing = self.poll(connection="close")
        old = Connection(self.site, b"GET / HTTP/1.0\r\nPrefer: wait=30\r\nIf-None-Match: %b\r\n\r\n" % etag)
        self.publish(state(2))
        self.assertEqual(parse_response(closing.transport.value()).fields["Connection"], "close")
        self.assertTrue(old.transport.value().startswith(b"HTTP/1.0 200 "))
        for poll in (closing, old):
            self.assertEqual(parse_response(poll.transport.value()).body, state(2))
            self.assertTrue(poll.transport.disconnecting)

    def test_disconnect(self) -> None:
        """A client that disconnects is forgotten at once, and leaves no timer."""
        before = len(self.reactor.getDelayedCalls())
        poll = self.poll()
        poll.lose()
        self.assertEqual((len(self.polls), len(self.reactor.getDelayedCalls())), (0, before))
        self.publish(state(2))
        self.assertEqual(poll.transport.value(), b"")

    def test_stop(self) -> None:
        """When the service stops, held requests are answered."""
        poll = self.poll()
        self.streams.stopService()
        self.assertEqual(parse_response(poll.transport.value()).status, 304)
        self.streams.startService()

    def test_change_and_back(self) -> None:
        """If the document changes and changes back before a poll is answered, the poll stays held."""
        poll = self.poll()
        for n in (2, 1):
            Deferred.fromCoroutine(self.document.update(state(n)))
        self.reactor.advance(0.01)
        self.assertEqual(poll.transport.value(), b"")
        self.publish(state(3))
        self.assertEqual(json.loads(parse_response(poll.transport.value()).body)["number"], 3)

    def large(self, number: int) -> bytes:
        """Return a large document."""
        return json.dumps({"number": number, "rows": [{"row": n} for n in range(LARGE // 10)]}).encode()

    def change(self, number: int) -> None:
        """Publish a large document, without finishing the threads that make its codings."""
        Deferred.fromCoroutine(self.document.update(self.large(number)))
        for _ in ("its check", "its entity tag"):
            self.reactor.jobs.pop()()
        self.reactor.advance(0.01)

    def start_large(self) -> tuple[Connection, Connection]:
        """Publish a large document; return held requests of a client that prefers gzip and of one that accepts none."""
        self.publish(self.large(1))
        etag = parse_response(Connection(self.site, request(accept_encoding="gzip")).transport.value()).fields["ETag"]
        zipped, plain = self.poll(accept_encoding="gzip", if_none_match=etag), self.poll()
        self.reactor.hold_threads = True
        return zipped, plain

    def test_waits_for_its_coding(self) -> None:
        """A large document is sent in the coding that the client prefers, when it is ready; others do not wait for it."""
        zipped, plain = self.start_large()
        self.change(2)
        self.assertEqual(json.loads(parse_response(plain.transport.value()).body)["number"], 2)
        self.assertEqual(zipped.transport.value(), b"")
        self.reactor.run_job()
        self.reactor.advance(0.01)
        response = parse_response(zipped.transport.value())
        self.assertEqual(json.loads(gzip.decompress(response.body))["number"], 2)

    def test_waits_for_one_version(self) -> None:
        """If the document changes again before the coding is ready, the client gets another coding at once."""
        zipped, _ = self.start_large()
        self.change(2)
        self.assertEqual(zipped.transport.value(), b"")
        self.change(3)
        response = parse_response(zipped.transport.value())
        self.assertEqual((response.status, json.loads(response.body)["number"]), (200, 3))
        self.assertNotIn("Content-Encoding", response.fields)

    def test_time_over_while_waiting(self) -> None:
        """A request whose time is over before the coding is ready gets another coding."""
        zipped, _ = self.start_large()
        self.change(2)
        self.reactor.run_for(31, step=0.5)
        self.assertEqual(json.loads(parse_response(zipped.transport.value()).body)["number"], 2)


TOKENS = st.text("abcxyz-!", min_size=1, max_size=4).filter(lambda text: text != "wait")
QUOTED = st.text('ab,;= \\"', max_size=5).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
PARAMETER = st.tuples(TOKENS, st.one_of(TOKENS, QUOTED, st.none())).map(
    lambda p: p[0] if p[1] is None else f"{p[0]}={p[1]}"
)
PREFERENCE = st.lists(PARAMETER, min_size=1, max_size=3).map("; ".join)


class PreferTests(SynchronousTestCase):
    """Parsing `wait` in a Prefer field."""

    @many
    @given(st.lists(PREFERENCE, max_size=3), st.lists(PREFERENCE, max_size=3), st.integers(0, 10**6), st.booleans())
    def test_any_neighbours(self, before, after, seconds, quoted):
        """`wait` is found among any other preferences, quoted or not, in any spelling. The first of several counts."""
        wait = f'Wait = "{seconds}"' if quoted else f"wait={seconds}"
        field = " , ".join([*before, wait, *after, "wait=5"])
        self.assertEqual(wait_preference(field.encode()), seconds)
        self.assertIsNone(wait_preference(", ".join([*before, *after]).encode()))

    @many
    @given(st.binary(max_size=40))
    def test_any_bytes(self, field):
        """No field value causes an error."""
        result = wait_preference(field)
        self.assertTrue(result is None or result >= 0)

    def test_hostile(self):
        """A field of the maximum length that would cause endless backtracking is parsed quickly."""
        for piece in (b" ;  ", b'"\\', b'"\\"', b'"', b"x = ;", b" ,", b"\\", b" ", b'x="'):
            self.assertIsNone(wait_preference(piece * (16384 // len(piece)) + b"\0"))

    def test_values(self):
        """Seconds consist of digits; with anything else there is no preference."""
        for field, seconds in (
            (None, None), (b"", None), (b"wait=10", 10), (b"WAIT=010", 10), (b'wait="1\\0"', 10), (b"wait=", None),
            (b"wait", None), (b"wait=-1", None), (b"wait=1.5", None), (b"wait=1 0", None), (b"wait=10;x=y, z", 10),
            (b'x="wait=3", wait=4', 4), (b"x;wait=3", None), (b",,wait=7,", 7), (b"wait=" + b"9" * 99, None),
            (b"respond-async, wait=100, handling=lenient", 100),
        ):  # fmt: skip
            self.assertEqual(wait_preference(field), seconds, field)
