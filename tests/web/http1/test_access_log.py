"""The access log has the same line for a request on either path."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from livestate.net.proxy_protocol import ProxyProtocolFactory
from livestate.web.http1.access_log import line
from tests.support import examples
from tests.web.http1.test_channel import PAIR, Pair, PausableTransport, request

PEER = IPv4Address("TCP", "192.0.2.7", 4711)


class FakeLogFile:
    """A stand-in for a log file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)


def lines_of(pair: Pair, pieces: list[bytes], fast: bool) -> list[str]:
    site: Any = pair.site if fast else pair.slow_site
    log = FakeLogFile()
    site.log_to(log)
    channel, transport = pair.fast(PEER) if fast else pair.slow()
    transport.peerAddr = PEER
    for piece in pieces:
        channel.dataReceived(piece)
    return log.lines


class AccessLogTests(SynchronousTestCase):
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"User-Agent: Mozilla/5.0 (X11)", b'user-agent:  say "hi" \\ ', b"Referer: https://example.org/",
                    b"User-Agent: \xff", b"If-None-Match: " + PAIR.etags[0], b'If-None-Match: "x"', b"Referer:",
                ]
            ),
            max_size=4,
        ),
        st.sampled_from([b"/", b"/?a=b", b"/nothing", b"/results.json"]),
    )  # fmt: skip
    @examples(200)
    def test_same_lines(self, fields: list[bytes], target: bytes) -> None:
        """A request on the fast path has the same line as one that twisted.web parsed."""
        pair = Pair()
        pieces = [request(*fields, target=target)] * 3
        self.assertEqual(lines_of(pair, pieces, fast=True), lines_of(pair, pieces, fast=False))

    def test_proxied(self) -> None:
        """Behind a proxy that speaks the PROXY protocol, every line has the client's address."""
        pair, log = Pair(), FakeLogFile()
        site: Any = pair.site
        site.log_to(log)
        protocol: Any = ProxyProtocolFactory(pair.clock, site).buildProtocol(PEER)
        protocol.makeConnection(PausableTransport(peerAddress=PEER))
        protocol.dataReceived(b"PROXY TCP4 198.51.100.9 192.0.2.1 1 80\r\n" + request())
        for piece in (request(), request(b"X-Odd: 1"), request(target=b"/nothing")):
            protocol.dataReceived(piece)
        self.assertEqual([text.split(" ")[0] for text in log.lines], ["198.51.100.9"] * 4)

    def test_line(self) -> None:
        """A line is in the combined format."""
        text = line("192.0.2.7", "[24/Nov/2026:04:17:00 +0000]", b"GET / HTTP/1.1", 200, 4300, b"-", b"curl/8")
        self.assertEqual(text, '192.0.2.7 - - [24/Nov/2026:04:17:00 +0000] "GET / HTTP/1.1" 200 4300 "-" "curl/8"\n')

    @given(st.binary(), st.binary(), st.binary())
    @examples(100)
    def test_one_line(self, first: bytes, referer: bytes, agent: bytes) -> None:
        """Whatever a client sends, it is logged as one line, with the quoted parts intact."""
        text = line("192.0.2.7", "[-]", first, 200, 0, referer, agent)
        self.assertEqual(text.count("\n"), 1)
        self.assertTrue(text.isascii())
        self.assertEqual(text.count('"'), 6)
