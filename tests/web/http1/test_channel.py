"""The fast path responds as twisted.web does: both are sent the same bytes, and the responses are compared."""

import itertools
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from livestate.documents.document import Document
from livestate.web.http1 import fast_request
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.request import LiveRequest
from livestate.web.http1.request_rules import ValidatingChannel
from livestate.web.resources.document import DocumentResource
from livestate.web.responses.responder import Responder
from livestate.web.site import LiveSite
from tests.support import examples

BODY = b'{"title": "an election night", "votes": [' + b", ".join(b"%d" % (7919 * n) for n in range(99)) + b"]}"


class PausableTransport(StringTransport):
    """A StringTransport that can be aborted, and that pauses its producer once it holds enough."""

    limit = 1 << 30
    aborted = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > self.limit and self.producer is not None:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class Pair:
    """One document, served by a site with the fast path and by twisted.web's channel alone."""

    def __init__(self, body: bytes | None = BODY, origins: tuple[str, ...] = ("*",)) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        document = Document(self.clock, "/", 1 << 20)
        if body is not None:
            Deferred.fromCoroutine(document.update(body))
        self.responder = Responder(document, origins, None, self.clock.seconds)
        resources = {b"/": DocumentResource(self.responder), b"/results.json": DocumentResource(self.responder)}
        self.site = LiveSite(resources, self.clock, {b"/": self.responder, b"/results.json": self.responder})
        self.slow_site = LiveSite(resources, self.clock)
        snapshot = document.snapshot
        self.etags = [] if snapshot is None else [r.etag for r in snapshot.representations.values()]

    def turn(self) -> None:
        """Run the reactor until nothing is left to do at this time."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def fast(self, peer: Any = None) -> tuple[LiveChannel, PausableTransport]:
        channel, transport = self.site.buildProtocol(None), PausableTransport(peerAddress=peer)
        channel.makeConnection(transport)
        return channel, transport

    def slow(self) -> tuple[Any, PausableTransport]:
        channel: Any = ValidatingChannel()
        channel.requestFactory, channel.site, channel.factory, channel.timeOut = (
            LiveRequest,
            self.slow_site,
            self.slow_site,
            None,
        )
        transport = PausableTransport()
        channel.makeConnection(transport)
        return channel, transport

    def responses(self, pieces: list[bytes]) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        """Feed both channels until they close, and return what each wrote, without Date's value, and whether it closed."""
        results = []
        for channel, transport in (self.fast(), self.slow()):
            for piece in pieces:
                if transport.disconnecting:
                    break
                channel.dataReceived(piece)
                self.turn()
            results.append(
                (re.sub(rb"\r\nDate: [^\r]*", b"\r\nDate: (now)", transport.value()), transport.disconnecting)
            )
        return results[0], results[1]


def request(*fields: bytes, target: bytes = b"/", end: bytes = b"\r\n") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n" % target + b"".join(f + b"\r\n" for f in fields) + end


PAIR = Pair()
TWO_ORIGINS = Pair(origins=("https://a.example", "https://b.example"))
NO_DOCUMENT = Pair(body=None)

etag = st.sampled_from(
    [*PAIR.etags, b'"other"', b'W/"x"', b'"a,b"', b"*", b'"', b'"a b"', b"", PAIR.etags[0] + b", " + b'"z"']
)
name = st.sampled_from(
    [
        b"Accept-Encoding", b"accept-encoding", b"If-None-Match", b"if-none-match", b"Origin", b"Connection", b"Host",
        b"Content-Length", b"Transfer-Encoding", b"Expect", b"Cookie", b"X-A", b"User-Agent", b"Prefer", b"Upgrade",
        b"Bad Name", b"", b" folded", b"If-None-Match ", b"Te",
    ]
)  # fmt: skip
value = st.one_of(
    st.sampled_from(
        [
            b"gzip", b"br, gzip;q=0.5", b"gzip, deflate, br, zstd", b"identity;q=0", b"*;q=0", b"keep-alive", b"close",
            b"Keep-Alive", b"close, te", b"0", b"5", b"chunked", b"identity", b"100-continue", b"https://a.example",
            b"x\ny", b"x\x00", b"x\ry", b"\xff", b"h2c", b"wait=3", b"\t gzip \t",
        ]
    ),
    etag,
    st.binary(max_size=8),
)  # fmt: skip
usual_field = st.sampled_from(
    [
        b"Connection: close", b"connection: Close", b"Connection: keep-alive", b"Connection: keep-alive, close",
        b"Accept-Encoding: gzip", b"accept-encoding: br;q=0.2, zstd", b"Accept-Encoding: identity;q=0",
        b"Origin: https://a.example", b"origin:https://c.example", b"Content-Length: 5", b"Content-Length: 0",
        b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Prefer: wait=3", b"Upgrade: h2c", b"Cookie: a=b",
        *(b"If-None-Match: " + tag for tag in PAIR.etags), b'if-none-match: "x"', b"If-None-Match:  *",
    ]
)  # fmt: skip
odd_field = st.builds(
    lambda n, s, v: n + s + v, name, st.sampled_from([b": ", b":", b":  ", b" :", b"\t:", b""]), value
)
any_field = st.one_of(usual_field, usual_field, odd_field)
line_end = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\n "])
first_line = st.one_of(
    st.just(b"GET / HTTP/1.1"),
    st.builds(
        lambda m, t, v: m + b" " + t + b" " + v,
        st.sampled_from([b"GET", b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS", b"get", b""]),
        st.sampled_from(
            [b"/", b"/results.json", b"/?q", b"/?a=//b://c", b"/results%2ejson", b"//", b"/nothing", b"http://h/", b"*",
             b"http://h/results.json?x", b"/\xff", b"/ x", b"/#f", b"/?\"", b"/\"", b""]
        ),
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1"]),
    ),
)  # fmt: skip


@st.composite
def streams(draw: Any) -> list[bytes]:
    """Return a stream of requests, many of them malformed, split anywhere."""
    stream = b""
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 19)) == 0:
            stream += draw(st.one_of(st.just(b"\r\n"), st.just(b"\r\n\r\n"), st.binary(max_size=9)))
        stream += draw(first_line) + draw(line_end)
        if draw(st.integers(0, 9)):
            stream += b"Host: h" + draw(line_end)
        for field in draw(st.lists(any_field, max_size=4)):
            stream += field + draw(line_end)
        stream += b"\r\n"
        if draw(st.integers(0, 9)) == 0:
            stream += draw(st.sampled_from([b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n"]))
    stream *= draw(st.sampled_from([1, 1, 2, 3]))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    edges = [0, *cuts, len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


class SameResponseTests(SynchronousTestCase):
    def assert_same(self, pair: Pair, pieces: list[bytes]) -> bytes:
        fast, slow = pair.responses(pieces)
        self.assertEqual(fast, slow, pieces)
        return fast[0]

    @given(streams(), st.sampled_from([PAIR, TWO_ORIGINS, NO_DOCUMENT]))
    @examples(1500)
    def test_any_stream(self, pieces: list[bytes], pair: Pair) -> None:
        """Whatever bytes arrive, split anywhere, the responses are those of twisted.web."""
        self.assert_same(pair, pieces)

    @given(st.lists(st.sampled_from([b"", b"If-None-Match: " + PAIR.etags[0], b'If-None-Match: "no"']), max_size=6))
    @examples(50)
    def test_repeated_request(self, fields: list[bytes]) -> None:
        """A request that is repeated with changing validators gets the right response each time."""
        self.assert_same(PAIR, [request(b"Accept-Encoding: br, gzip", *filter(None, [f])) for f in fields * 3])

    def test_validator_in_any_position(self) -> None:
        """The line with the validator may be anywhere in a request that is remembered without it."""
        for tag in (*PAIR.etags, b'"no"', b"*", b'W/"x"', b"", b"x\ny", b"x\x00y"):
            line = b"If-None-Match: " + tag
            for fields in ([line, b"X-A: b"], [b"X-A: b", line], [b"X-A: b", line, b" folded"], [line, line]):
                self.assert_same(PAIR, [request(b"X-A: b")] * 3 + [request(*fields)] * 3)
            # Behind the end of the head, the line starts another, malformed request.
            self.assert_same(PAIR, [request()] * 3 + [request() + line + b"\r\n"])
            self.assert_same(PAIR, [request()] * 3 + [request()[:-2] + b"\r\n" + line + b"\r\n\r\n"])

    def test_pipelining(self) -> None:
        """A thousand requests in one piece get a thousand responses."""
        wire = self.assert_same(PAIR, [request() * 1000])
        self.assertEqual(wire.count(b"HTTP/1.1 200 OK\r\n"), 1000)

    def test_many_fields(self) -> None:
        """The limits on the number and size of fields are twisted.web's."""
        for count in (498, 499, 500, 501, 700):
            fields = [b"a:"] * count
            self.assert_same(PAIR, [request(*fields)] * 3 + [request(b"If-None-Match: " + PAIR.etags[0], *fields)])
        for size in (4000, 4096, 16000, 17000):
            self.assert_same(PAIR, [request(b"Cookie: " + b"c" * size)] * 3)

    def test_change_of_the_document(self) -> None:
        """The response to a remembered request has the newest document."""
        pair = Pair()
        channel, transport = pair.fast()
        for _ in range(3):
            channel.dataReceived(request())
        Deferred.fromCoroutine(pair.responder.document.update(b'{"new": true}'))
        transport.clear()
        channel.dataReceived(request(b"If-None-Match: " + pair.etags[0]))
        self.assertTrue(transport.value().endswith(b'{"new": true}'))


class MemoTests(SynchronousTestCase):
    def test_browser_request(self) -> None:
        """A browser's request is a fast request, with or without a validator."""
        fields = [b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", b"Accept-Encoding: gzip, deflate, br, zstd",
                  b"Cookie: a=b; c=d", b"Sec-Fetch-Mode: cors", b"Connection: keep-alive"]  # fmt: skip
        self.assertIsNotNone(fast_request.parse_fast(PAIR.site.connections.responders, request(*fields)))
        parsed = fast_request.parse_fast(PAIR.site.connections.responders, request(*fields, b'If-None-Match: "x"'))
        assert parsed is not None
        self.assertEqual(parsed.validator, b'"x"')

    def test_only_repeated_requests(self) -> None:
        """Only requests that come twice in a row on one connection are remembered."""
        pair = Pair()
        channel, _ = pair.fast()
        for n in range(100):
            channel.dataReceived(request(b"X-Random: %d" % n))
        self.assertEqual(len(pair.site.connections.request_memo), 0)
        for _ in range(2):
            channel.dataReceived(request())
        self.assertEqual(len(pair.site.connections.request_memo), 1)

    def test_validators_share_an_entry(self) -> None:
        """A polling client whose validator changes each time uses one entry."""
        pair = Pair()
        channel, _ = pair.fast()
        for n in range(100):
            channel.dataReceived(request(b'If-None-Match: "%d"' % n))
        self.assertEqual(len(pair.site.connections.request_memo), 1)

    def test_limits(self) -> None:
        """However many requests are added, entries and bytes stay within their limits."""
        self.patch(fast_request, "MAX_ENTRIES", 10)
        self.patch(fast_request, "MAX_BYTES", 1000)
        memo = fast_request.RequestMemo()
        variant = PAIR.responder.variant(None, None)
        for n in range(1000):
            memo.remember(b"%d" % n * (n % 60 + 1), variant)
            self.assertLessEqual(len(memo), 10)
            self.assertLessEqual(sum(map(len, memo._entries)), 1000)
            self.assertIs(memo.get(b"%d" % n * (n % 60 + 1)), variant)


class SlowReaderTests(SynchronousTestCase):
    def test_client_that_does_not_read(self) -> None:
        """A client that sends requests without reading gets a few responses, and no more until it reads."""
        pair = Pair()
        channel, transport = pair.fast()
        transport.limit = 3 * len(BODY)
        channel.dataReceived(request() * 1000)
        self.assertLess(transport.value().count(b"HTTP/1.1 200"), 6)
        responses = 0
        while transport.value():
            responses += transport.value().count(b"HTTP/1.1 200")
            transport.clear()
            channel.resumeProducing()
        self.assertEqual(responses, 1000)

    def test_paused_by_twisted_web(self) -> None:
        """If a response of twisted.web filled the transport, the fast path does not respond either until the client reads."""
        pair = Pair()
        channel, transport = pair.fast()
        for _ in range(3):
            channel.dataReceived(request())
        transport.clear()
        transport.limit = 10
        channel.dataReceived(request(target=b"/nothing"))
        before = transport.value()
        channel.dataReceived(request())
        self.assertEqual(transport.value(), before)
        transport.limit = 1 << 30
        channel.resumeProducing()
        self.assertTrue(transport.value().endswith(BODY))

    def test_paused_by_the_last_piece(self) -> None:
        """If a response of twisted.web filled the transport, reading stops, so that requests do not pile up."""
        pair = Pair()
        channel, transport = pair.fast()
        transport.limit = 10
        channel.dataReceived(request(target=b"/nothing"))
        self.assertEqual(transport.producerState, "paused")
        channel.resumeProducing()
        self.assertEqual(transport.producerState, "producing")

    def test_data_during_a_response(self) -> None:
        """Data that arrives while a response is being made is buffered in few pieces, and up to twisted.web's limit."""
        pair = Pair()

        class SlowResource(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                return NOT_DONE_YET

        resources: Any = pair.site._resources
        pair.site._resources = {**resources, b"/slow": SlowResource()}
        channel, transport = pair.fast()
        channel.dataReceived(request(target=b"/slow"))
        for _ in range(100):
            if transport.producerState == "producing":
                channel.dataReceived(b"\r\n\r\n" * 128)
            self.assertLess(len(channel._dataBuffer), 20)
        self.assertEqual(transport.producerState, "paused")
        self.assertLess(sum(map(len, channel._dataBuffer)), 20_000)

    def test_requests_during_a_response(self) -> None:
        """While a response is being made, the fast requests behind it wait for their turn."""
        pair = Pair()
        pending = []

        class SlowResource(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                pending.append(request)
                return NOT_DONE_YET

        resources: Any = pair.site._resources
        pair.site._resources = {**resources, b"/slow": SlowResource()}
        channel, transport = pair.fast()
        channel.dataReceived(request(target=b"/slow") + request())
        channel.dataReceived(request())
        self.assertEqual(transport.value(), b"")
        pending[0].write(b"slow")
        pending[0].finish()
        pair.turn()
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 3)
        self.assertLess(transport.value().index(b"slow"), transport.value().index(BODY))
        channel.dataReceived(request())
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 4)
