"""The short cut answers as twisted.web does: both are given the same bytes, and what comes back is compared."""

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
from livestate.web.http1 import fast_request as plain
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
    """One document, served by a site with the short cut, and by twisted.web's channel alone."""

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
        """Have the reactor turn until there is nothing more to do."""
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

    def answers(self, pieces: list[bytes]) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        """Feed both, until they close, and give what each wrote and whether it closed; the Date's value left out."""
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
OTHER = Pair(origins=("https://a.example", "https://b.example"))
EMPTY = Pair(body=None)

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
sensible = st.sampled_from(
    [
        b"Connection: close", b"connection: Close", b"Connection: keep-alive", b"Connection: keep-alive, close",
        b"Accept-Encoding: gzip", b"accept-encoding: br;q=0.2, zstd", b"Accept-Encoding: identity;q=0",
        b"Origin: https://a.example", b"origin:https://c.example", b"Content-Length: 5", b"Content-Length: 0",
        b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Prefer: wait=3", b"Upgrade: h2c", b"Cookie: a=b",
        *(b"If-None-Match: " + tag for tag in PAIR.etags), b'if-none-match: "x"', b"If-None-Match:  *",
    ]
)  # fmt: skip
odd = st.builds(lambda n, s, v: n + s + v, name, st.sampled_from([b": ", b":", b":  ", b" :", b"\t:", b""]), value)
header = st.one_of(sensible, sensible, odd)
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
    """Some requests, many of them odd, as one stream, split anywhere."""
    stream = b""
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 19)) == 0:
            stream += draw(st.one_of(st.just(b"\r\n"), st.just(b"\r\n\r\n"), st.binary(max_size=9)))
        stream += draw(first_line) + draw(line_end)
        if draw(st.integers(0, 9)):
            stream += b"Host: h" + draw(line_end)
        for field in draw(st.lists(header, max_size=4)):
            stream += field + draw(line_end)
        stream += b"\r\n"
        if draw(st.integers(0, 9)) == 0:
            stream += draw(st.sampled_from([b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n"]))
    stream *= draw(st.sampled_from([1, 1, 2, 3]))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    edges = [0, *cuts, len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


class EqualityTests(SynchronousTestCase):
    def equal(self, pair: Pair, pieces: list[bytes]) -> bytes:
        fast, slow = pair.answers(pieces)
        self.assertEqual(fast, slow, pieces)
        return fast[0]

    @given(streams(), st.sampled_from([PAIR, OTHER, EMPTY]))
    @examples(1500)
    def test_any_stream(self, pieces: list[bytes], pair: Pair) -> None:
        """Whatever bytes arrive, cut wherever, the answers are those of twisted.web."""
        self.equal(pair, pieces)

    @given(st.lists(st.sampled_from([b"", b"If-None-Match: " + PAIR.etags[0], b'If-None-Match: "no"']), max_size=6))
    @examples(50)
    def test_repeated(self, fields: list[bytes]) -> None:
        """A request that comes again and again, with changing validators, is answered right each time."""
        self.equal(PAIR, [request(b"Accept-Encoding: br, gzip", *filter(None, [f])) for f in fields * 3])

    def test_validator_at_each_place(self) -> None:
        """The validator's line may stand anywhere in a request that is remembered without it."""
        for tag in (*PAIR.etags, b'"no"', b"*", b'W/"x"', b"", b"x\ny", b"x\x00y"):
            line = b"If-None-Match: " + tag
            for fields in ([line, b"X-A: b"], [b"X-A: b", line], [b"X-A: b", line, b" folded"], [line, line]):
                self.equal(PAIR, [request(b"X-A: b")] * 3 + [request(*fields)] * 3)
            # Behind the end of the head it begins another, malformed request.
            self.equal(PAIR, [request()] * 3 + [request() + line + b"\r\n"])
            self.equal(PAIR, [request()] * 3 + [request()[:-2] + b"\r\n" + line + b"\r\n\r\n"])

    def test_pipelined(self) -> None:
        """A thousand requests in one piece are a thousand answers."""
        wire = self.equal(PAIR, [request() * 1000])
        self.assertEqual(wire.count(b"HTTP/1.1 200 OK\r\n"), 1000)

    def test_many_fields(self) -> None:
        """The bounds on the number and size of fields are twisted.web's."""
        for count in (498, 499, 500, 501, 700):
            fields = [b"a:"] * count
            self.equal(PAIR, [request(*fields)] * 3 + [request(b"If-None-Match: " + PAIR.etags[0], *fields)])
        for size in (4000, 4096, 16000, 17000):
            self.equal(PAIR, [request(b"Cookie: " + b"c" * size)] * 3)

    def test_change(self) -> None:
        """A request that is remembered is answered with the newest document."""
        pair = Pair()
        channel, transport = pair.fast()
        for _ in range(3):
            channel.dataReceived(request())
        Deferred.fromCoroutine(pair.responder.document.update(b'{"new": true}'))
        transport.clear()
        channel.dataReceived(request(b"If-None-Match: " + pair.etags[0]))
        self.assertTrue(transport.value().endswith(b'{"new": true}'))


class MemoTests(SynchronousTestCase):
    def test_understood(self) -> None:
        """What a browser sends is a plain request, with a validator and without."""
        fields = [b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", b"Accept-Encoding: gzip, deflate, br, zstd",
                  b"Cookie: a=b; c=d", b"Sec-Fetch-Mode: cors", b"Connection: keep-alive"]  # fmt: skip
        self.assertIsNotNone(plain.parse_fast(PAIR.site.connections.responders, request(*fields)))
        understood = plain.parse_fast(PAIR.site.connections.responders, request(*fields, b'If-None-Match: "x"'))
        assert understood is not None
        self.assertEqual(understood.validator, b'"x"')

    def test_only_what_comes_again(self) -> None:
        """Requests that do not come twice in a row on one connection are not remembered."""
        pair = Pair()
        channel, _ = pair.fast()
        for n in range(100):
            channel.dataReceived(request(b"X-Random: %d" % n))
        self.assertEqual(len(pair.site.connections.request_memo), 0)
        for _ in range(2):
            channel.dataReceived(request())
        self.assertEqual(len(pair.site.connections.request_memo), 1)

    def test_validators_are_one_entry(self) -> None:
        """A poller whose validator changes each time takes one entry."""
        pair = Pair()
        channel, _ = pair.fast()
        for n in range(100):
            channel.dataReceived(request(b'If-None-Match: "%d"' % n))
        self.assertEqual(len(pair.site.connections.request_memo), 1)

    def test_bounds(self) -> None:
        """However many requests are to be remembered, entries and bytes stay within their bounds."""
        self.patch(plain, "MAX_ENTRIES", 10)
        self.patch(plain, "MAX_BYTES", 1000)
        memo = plain.RequestMemo()
        variant = PAIR.responder.variant(None, None)
        for n in range(1000):
            memo.remember(b"%d" % n * (n % 60 + 1), variant)
            self.assertLessEqual(len(memo), 10)
            self.assertLessEqual(sum(map(len, memo._entries)), 1000)
            self.assertIs(memo.get(b"%d" % n * (n % 60 + 1)), variant)


class ReaderTests(SynchronousTestCase):
    def test_reader_who_does_not_read(self) -> None:
        """A reader who sends requests and reads nothing is answered a few times, then not until he reads."""
        pair = Pair()
        channel, transport = pair.fast()
        transport.limit = 3 * len(BODY)
        channel.dataReceived(request() * 1000)
        self.assertLess(transport.value().count(b"HTTP/1.1 200"), 6)
        answers = 0
        while transport.value():
            answers += transport.value().count(b"HTTP/1.1 200")
            transport.clear()
            channel.resumeProducing()
        self.assertEqual(answers, 1000)

    def test_paused_on_the_long_way(self) -> None:
        """A reader whom twisted.web's answer filled up is not answered the short way either, until he reads."""
        pair = Pair()
        channel, transport = pair.fast()
        for _ in range(3):
            channel.dataReceived(request())
        transport.clear()
        transport.limit = 10
        channel.dataReceived(request(target=b"/nothing"))
        held = transport.value()
        channel.dataReceived(request())
        self.assertEqual(transport.value(), held)
        transport.limit = 1 << 30
        channel.resumeProducing()
        self.assertTrue(transport.value().endswith(BODY))

    def test_last_piece_fills_the_transport(self) -> None:
        """A reader whom twisted.web's answer filled up is read from no more: what he sends would pile up here."""
        pair = Pair()
        channel, transport = pair.fast()
        transport.limit = 10
        channel.dataReceived(request(target=b"/nothing"))
        self.assertEqual(transport.producerState, "paused")
        channel.resumeProducing()
        self.assertEqual(transport.producerState, "producing")

    def test_empty_lines_behind_a_pending_request(self) -> None:
        """What comes while an answer is being made is kept in few pieces, and only up to twisted.web's bound."""
        pair = Pair()

        class Slow(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                return NOT_DONE_YET

        pair.site._resources = {**pair.site._resources, b"/slow": Slow()}
        channel, transport = pair.fast()
        channel.dataReceived(request(target=b"/slow"))
        for _ in range(100):
            if transport.producerState == "producing":
                channel.dataReceived(b"\r\n\r\n" * 128)
            self.assertLess(len(channel._dataBuffer), 20)
        self.assertEqual(transport.producerState, "paused")
        self.assertLess(sum(map(len, channel._dataBuffer)), 20_000)

    def test_pending_answer(self) -> None:
        """While an answer is being made, the plain requests behind it wait for their turn."""
        pair = Pair()
        pending = []

        class Slow(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                pending.append(request)
                return NOT_DONE_YET

        pair.site._resources = {**pair.site._resources, b"/slow": Slow()}
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
