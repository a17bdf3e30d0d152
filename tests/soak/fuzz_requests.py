"""What a fuzzer's bytes are made of on the way of a request: whatever comes, in whatever pieces, the answers are those
of twisted.web, and nothing is raised.

The input is what a client sends, in pieces. A mark ends a piece; the sign behind it says what happens before the next
one, and nothing does for any other sign.
"""

from collections.abc import Callable

import livestate.web.resources.websocket  # noqa: F401  # now, while the fuzzer looks at what is imported
from tests.web.http1.twins import BODY, Connections, Twins

MARK = b"\xff\xfe"

WEBSOCKET = (
    b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13"
    b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)

#: What a fuzzer finds slowly by itself.
WORDS = (
    MARK, MARK + b"c", MARK + b"n", MARK + b"s", MARK + b"m", MARK + b"p", MARK + b"r", MARK + b"d", MARK + b"2",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /events?delta=merge HTTP/1.1\r\nHost: h\r\n", b"HEAD ", b"OPTIONS ",
    b"POST ", b"/results.json", b"/events", b"/_live/", b"/_live/ready", b"/_live/livestate.js", b" HTTP/1.0\r\n",
    b"\r\nHost: h", b"\r\nIf-None-Match: ", b"\r\nAccept-Encoding: ", b"gzip", b"br", b"zstd", b"identity;q=0", b"*;q=0",
    b"\r\nOrigin: https://a.example", b"\r\nConnection: close", b"\r\nConnection: keep-alive", b"\r\nPrefer: wait=2",
    b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc", b"\r\nExpect: 100-continue",
    WEBSOCKET, b"\r\nLast-Event-ID: ", b"\r\nIf-Modified-Since: ", b"\r\n\r\n", b'W/"', b"?delta=merge",
)  # fmt: skip

_twins: Twins | None = None
_used = False


def close() -> None:
    """Let go of the sites that inputs were given to."""
    global _twins  # noqa: PLW0603
    if _twins is not None:
        _twins.close()
        _twins = None


def check(data: bytes) -> None:
    """Have both sites take one input.

    :raises AssertionError: they do not answer alike.
    """
    global _twins, _used  # noqa: PLW0603  # making it takes as long as hundreds of inputs
    if _twins is None or _used:
        close()
        _twins, _used = Twins(cors_origin="https://a.example", max_stale="3600"), False
    twins = _twins
    twins.forget()
    connections = Connections(twins)
    first, *others = data.split(MARK)
    connections.send(first)
    for number, piece in enumerate(others):
        _used |= _happens(twins, connections, piece[:1], number)
        for _ in range(3 if piece[:1] == b"2" else 1):
            connections.send(piece[1:])
    connections.read()
    fast, slow = connections.outcomes()
    connections.lose()
    failures, twins.failures = twins.failures, []
    assert not failures, (data, failures)
    # Not one long text for each: what differs is to be seen.
    assert fast == slow, (data, fast, slow)


def _second(twins: Twins) -> None:
    """Let a second go by."""
    twins.confirm()
    twins.reactor.advance(1)


def _happens(twins: Twins, connections: Connections, what: bytes, number: int) -> bool:
    """Have something happen; tells whether the service is another one after it."""
    events: dict[bytes, Callable[[], object]] = {
        b"c": lambda: twins.publish("/", BODY.replace(b"night", b"day %d" % number)),
        b"n": lambda: twins.publish("/results.json", b"[%d]" % number),
        b"s": lambda: _second(twins),
        b"m": lambda: twins.reactor.run_for(65, 5.0),
        b"d": twins.drain,
    }
    if what == b"p":
        connections.stop_reading()
    elif what == b"r":
        connections.read()
    elif what in events:
        events[what]()
        return True
    return False
