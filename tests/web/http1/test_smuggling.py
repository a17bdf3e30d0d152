"""The end of a request is never ambiguous: ambiguous requests are refused, and nothing behind them is answered."""

import itertools
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.web.http1.test_channel import Pair

#: The request that would be smuggled, or that follows a valid request. It is recognised by its status, 404.
BEHIND = b"GET /behind HTTP/1.1\r\nHost: h\r\n\r\n"

CHUNKED = b"Transfer-Encoding: chunked"


def post(*fields: bytes, body: bytes = b"", method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    """Return a request for the document."""
    lines = method + b" / " + version, b"Host: h", *fields
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    """Return a request with this chunked body."""
    return post(CHUNKED, body=body)


#: Requests whose end or meaning is ambiguous, by what makes them ambiguous.
AMBIGUOUS = {
    # Content-Length
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
    "the same length twice": post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "two lengths in one line": post(b"Content-Length: 5, 5", body=b"hello"),
    "a plus sign": post(b"Content-Length: +5", body=b"hello"),
    "a negative length": post(b"Content-Length: -5", body=b"hello"),
    "hexadecimal": post(b"Content-Length: 0x5", body=b"hello"),
    "an underscore": post(b"Content-Length: 1_0", body=b"0123456789"),
    "a space inside": post(b"Content-Length: 1 0", body=b"0123456789"),
    "a fraction": post(b"Content-Length: 5.0", body=b"hello"),
    "no length": post(b"Content-Length:", body=b"hello"),
    "other digits": post("Content-Length: ٥".encode(), body=b"hello"),
    "2^64 + 5": post(b"Content-Length: 18446744073709551621", body=b"hello"),
    "5,000 digits": post(b"Content-Length: " + b"1" * 5000, body=b"hello"),
    "a length before a line end and a space": post(b"Content-Length:\r\n 5", body=b"hello"),
    "space before the colon": post(b"Content-Length : 5", body=b"hello"),
    "a tab before the colon": post(b"Content-Length\t: 5", body=b"hello"),
    "a name with NUL": post(b"Content-Length\0: 5", body=b"hello"),
    "a vertical tab": post(b"Content-Length: \x0b5", body=b"hello"),
    # Both
    "length and chunks": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "chunks and length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "length and identity": post(b"Content-Length: 5", b"Transfer-Encoding: identity", body=b"hello"),
    # Transfer-Encoding
    "identity": post(b"Transfer-Encoding: identity"),
    "unknown": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "identity, chunked": post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "chunked twice in one line": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "quoted": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "with a parameter": post(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n"),
    "no coding": post(b"Transfer-Encoding:", body=b"0\r\n\r\n"),
    "a vertical tab before chunked": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunked, continued": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "space before the colon of chunked": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "space before chunked's name": post(b" Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked behind a bare LF": post(b"X: a\nTransfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked behind a bare CR": post(b"X: a\rTransfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n", version=b"HTTP/1.0"),
    # Chunks
    "a chunk size with a plus sign": chunked(b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with an underscore": chunked(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size behind a space": chunked(b" 5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size before a space": chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
    "no chunk size": chunked(b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with an end of LF": chunked(b"5\nhello\r\n0\r\n\r\n"),
    "a chunk size with an end of CR": chunked(b"5\rhello\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": chunked(b"4\r\nhello\r\n0\r\n\r\n"),
    "a chunk with an end of LF": chunked(b"5\r\nhello\n0\r\n\r\n"),
    "a chunk extension with LF": chunked(b"5;a=\nb\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension with CR": chunked(b"5;a=\rb\r\nhello\r\n0\r\n\r\n"),
    "a chunk extension with NUL": chunked(b"5;a=\0\r\nhello\r\n0\r\n\r\n"),
    "a long chunk extension": chunked(b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n"),
    "a trailer that ends with LF": chunked(b"0\r\nX: y\n\n" + BEHIND),
    "a trailer that is continued": chunked(b"0\r\nX: y\r\n z\r\n\r\n"),
    "a trailer with CR": chunked(b"0\r\nX: y\rz\r\n\r\n"),
    "a trailer that is no field": chunked(b"0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    # Fields
    "continued with a space": post(b"X: a", b" b", method=b"GET"),
    "continued with a tab": post(b"X: a", b"\tb", method=b"GET"),
    "continued without anything": post(b"X: a", b" ", method=b"GET"),
    "LF in a value": post(b"X: a\nb", method=b"GET"),
    "CR in a value": post(b"X: a\rb", method=b"GET"),
    "NUL in a value": post(b"X: a\0b", method=b"GET"),
    "NUL in a name": post(b"X\0: a", method=b"GET"),
    "no colon": post(b"X", method=b"GET"),
    "no name": post(b": a", method=b"GET"),
    "lines that end with LF": b"GET / HTTP/1.1\nHost: h\n\n\r\n\r\n",
    "lines that end with CR": b"GET / HTTP/1.1\rHost: h\r\r\r\n\r\n",
    "a request line that ends with LF": b"GET / HTTP/1.1\nHost: h\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n",
    # Request lines
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
    "HTTP/2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: h\r\n\r\n",
    "http/1.1": b"GET / http/1.1\r\nHost: h\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab": b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "space at its beginning": b" GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "space at its end": b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a method that is no token": b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two empty lines": b"\r\n\r\n",
}  # fmt: skip

#: Requests that are valid, though unusual, by what is unusual.
VALID = {
    "a body": post(b"Content-Length: 5", body=b"hello"),
    "a body that looks like a request": post(b"Content-Length: %d" % len(BEHIND), body=BEHIND),
    "a body with GET": post(b"Content-Length: 5", body=b"hello", method=b"GET"),
    "a length with zeroes": post(b"Content-Length: 0005", body=b"hello"),
    "a length between tabs": post(b"Content-Length:\t5\t", body=b"hello"),
    "lower case": post(b"content-length:5", body=b"hello"),
    "chunks": chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    "chunks with GET": post(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n", method=b"GET"),
    "chunks that look like a request": chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BEHIND), BEHIND)),
    "no chunks": chunked(b"0\r\n\r\n"),
    "CHUNKED": post(b"TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n"),
    "chunks behind a tab": post(b"Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"),
    "chunk sizes with zeroes": chunked(b"0005\r\nhello\r\n000\r\n\r\n"),
    "chunk extensions": chunked(b'5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n'),
    "trailers": chunked(b"5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 5\r\n\r\n"),
    "an unrelated field with a similar name": post(b"Transfer_Encoding: chunked"),
    "100-continue": post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello"),
    "absolute form": b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "absolute form of another host": b"GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "authority form": b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a lower-case method": post(method=b"get"),
    "an unknown method": post(method=b"FROB"),
    "an empty line before it": b"\r\n" + post(method=b"GET"),
    "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "an upgrade": post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", method=b"GET"),
    "an empty value": post(b"X:", method=b"GET"),
    "a value with bytes above 127": post(b"X: \xff\x80", method=b"GET"),
}  # fmt: skip

_STATUS = re.compile(rb"HTTP/1\.[01] (\d\d\d) ")


def splits(stream: bytes) -> Iterator[list[bytes]]:
    """Yield a stream in one piece, in two pieces split at many places, and byte by byte."""
    yield [stream]
    yield from ([stream[:n], stream[n:]] for n in range(1, len(stream), 11 if len(stream) < 400 else 997))
    yield [bytes([byte]) for byte in stream]


class SmugglingTests(SynchronousTestCase):
    """Sends requests on both paths, split anywhere, behind requests on the fast path."""

    def setUp(self) -> None:
        self.pair = Pair()

    def check(self, name: str, stream: bytes, statuses: int, closed: bool) -> list[bytes]:
        """Assert how many responses follow the first two, and whether the connection closes then; return their statuses."""
        found: list[list[bytes]] = []
        first = post(method=b"GET")
        for pieces in splits(stream):
            for wire, disconnecting in self.pair.responses([first, first, *pieces]):
                responses = [status for status in _STATUS.findall(wire) if status != b"100"]
                self.assertEqual(
                    (responses[:2], len(responses) - 2, disconnecting), ([b"200"] * 2, statuses, closed), name
                )
                found.append(responses[2:])
        self.assertTrue(all(one == other for one, other in itertools.pairwise(found)), (name, found))
        return found[0]

    def test_ambiguous(self) -> None:
        """An ambiguous request is answered 400, once, and this is the last response on the connection."""
        for name, request in AMBIGUOUS.items():
            self.assertEqual(self.check(name, request + BEHIND, 1, True), [b"400"], name)

    def test_valid(self) -> None:
        """A valid request is answered once, and so is the request behind it."""
        for name, request in VALID.items():
            self.assertEqual(self.check(name, request + BEHIND, 2, False)[1], b"404", name)
