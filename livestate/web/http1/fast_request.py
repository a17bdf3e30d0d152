"""Recognising fast requests: a GET of a document, complete in one piece, with nothing unusual about it.

Theory of operation. twisted.web takes about 100 µs to parse a request, and most of the result does not affect the
response. Here a request is recognised by a strict grammar, a subset of RFC 9112's and of what twisted.web accepts, and
the few relevant fields are extracted in a tenth of that time. A request that does not match is left to twisted.web. So
the two never parse a request differently; some requests are just not parsed here (`tests/web/http1/test_channel.py`
compares them). This is for `bench`'s row "browser".

The RequestMemo in front of the grammar maps the bytes of requests to what was parsed. A polling client's validator
changes with the document, so the If-None-Match line is cut out before the look-up. This is for `bench`'s rows "http"
and "not-modified".

Attacks on the memo. A request is remembered once the same connection has sent it twice in a row, so random bytes and
clients with only one request are not remembered. An attacker that sends each random request twice can fill the memo.
Then it is emptied, and the next two requests of each honest client are parsed by the grammar, which takes some 8 µs
more.
"""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from livestate.web.responses.responder import Responder
from livestate.web.responses.variant import Variant

#: Maximum bytes of a request that is parsed here. Browsers send 500 to 1,500 with a few cookies.
MAX_LENGTH = 4096

#: Maximum fields: one less than twisted.web accepts (HTTPChannel.maxHeaders), to leave room for a validator.
MAX_FIELDS = 499

#: Limits of the RequestMemo: entries, and bytes of the requests. 32 MiB hold the requests of fifty thousand browsers.
MAX_ENTRIES = 65_536
MAX_BYTES = 32 * 1024 * 1024

#: A request head without anything unusual. It does not match control characters (including NUL, bare CR and bare LF),
#: continued lines (obs-fold), space before a colon, other methods and versions, and targets that are not in origin form
#: or have percent-encoding in the path.
_HEAD = re.compile(
    rb"GET (/[!$&'()*+,\-./0-9:;=@A-Z_a-z~]*)(?:\?[!-\x7e]*)? HTTP/1\.1"
    rb"((?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*)+)\r\n\r\n"
)

#: The fields that affect the response, the end of the request, or what follows it.
_FIELD = re.compile(
    rb"\r\n(host|accept-encoding|origin|if-none-match|connection|content-length|transfer-encoding|expect|upgrade|prefer)"
    rb":[ \t]*([^\r]*)",
    re.IGNORECASE,
)

#: A single strong entity tag.
SINGLE_ETAG = re.compile(rb'"[\x21\x23-\x7e\x80-\xff]*"')

#: A request with one of these fields is not fast, whatever its value.
_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"prefer"})


class Responders(Protocol):
    """The documents that are served on the fast path, by path: a mapping, or something that makes what is asked for."""

    def get(self, path: bytes, /) -> Responder | None:
        """Return the responder of the document at `path`, or None if there is none."""


class FastRequest(NamedTuple):
    """A parsed fast request."""

    variant: Variant
    #: The entity tag of its If-None-Match, if it has one.
    validator: bytes | None
    #: Whether the connection is to be closed after the response.
    last: bool


def parse_fast(responders: Responders, data: bytes) -> FastRequest | None:
    """Parse a fast request.

    :param responders: the documents by path.
    :param data: data that starts where a request starts.
    :returns: None if the request is not fast, is incomplete, or is followed by more data.
    """
    head = _HEAD.fullmatch(data)
    responder = responders.get(head[1]) if head is not None else None
    if head is None or responder is None or head[2].count(b"\r\n") > MAX_FIELDS:
        return None
    fields: dict[bytes, bytes] = {}
    for spelling, value in _FIELD.findall(head[2]):
        name = spelling.lower()
        # twisted.web joins some repeated fields, and refuses others.
        if name in fields or name in _UNUSUAL:
            return None
        fields[name] = value.rstrip(b" \t")
    connection = fields.get(b"connection", b"keep-alive").lower()
    if b"host" not in fields or connection not in (b"keep-alive", b"close"):
        return None
    validator = fields.get(b"if-none-match")
    if validator is not None and not SINGLE_ETAG.fullmatch(validator):
        return None
    variant = responder.variant(fields.get(b"accept-encoding"), fields.get(b"origin"))
    return FastRequest(variant, validator, connection == b"close")


class RequestMemo:
    """The Variants of fast requests by the requests' bytes, within limits.

    `get` is the look-up itself, bound to the dictionary once; it returns the Variant of a request, or None.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, Variant] = {}
        self._bytes = 0
        self.get: Callable[[bytes], Variant | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The bytes of all requests in the memo."""
        return self._bytes

    def remember(self, data: bytes, variant: Variant) -> None:
        """Add a request. If the memo is full, drop all others first."""
        if len(self._entries) >= MAX_ENTRIES or self._bytes + len(data) > MAX_BYTES:
            self._entries.clear()
            self._bytes = 0
        self._entries[data] = variant
        self._bytes += len(data)
