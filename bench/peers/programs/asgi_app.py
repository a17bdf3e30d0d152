"""The ASGI peer: the document in memory, one body event, and 304. No framework: the fastest that ASGI can be."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

BODY = Path(os.environ["BENCH_DOCUMENT"]).read_bytes()
PACKED = gzip.compress(BODY, 9, mtime=0)
ETAG = b'"' + hashlib.sha256(BODY).hexdigest()[:16].encode() + b'"'
PACKED_ETAG = ETAG[:-1] + b'-gz"'


def headers(etag: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the common header fields, followed by others."""
    return [(b"etag", etag), (b"cache-control", b"public, max-age=1"), (b"vary", b"accept-encoding"), *more]


JSON = (b"content-type", b"application/json")
PLAIN_HEADERS = headers(ETAG, JSON, (b"content-length", b"%d" % len(BODY)))
PACKED_HEADERS = headers(PACKED_ETAG, JSON, (b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(PACKED)))

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: object, send: Send) -> None:
    """Answer with the document, or with 304 if the ETag matches."""
    if scope["type"] != "http":
        return
    packed, condition = False, b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            packed = b"gzip" in value
        elif name == b"if-none-match":
            condition = value
    etag = PACKED_ETAG if packed else ETAG
    if condition == etag:
        await send({"type": "http.response.start", "status": 304, "headers": headers(etag)})
        await send({"type": "http.response.body", "body": b""})
        return
    chosen = PACKED_HEADERS if packed else PLAIN_HEADERS
    await send({"type": "http.response.start", "status": 200, "headers": chosen})
    await send({"type": "http.response.body", "body": PACKED if packed else BODY})
