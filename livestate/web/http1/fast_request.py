"""Recognising fast requests: a GET of a document, complete in one piece, with nothing unusual about it.

Theory of operation. twisted.web takes about 100 µs to parse a request, and most of what it finds has no bearing on the
response. Here a request is recognised by a strict grammar, a subset of RFC 9112's and of what twisted.web accepts, and
the few fields that matter are picked out of it in a tenth of that time. A request that does not fit yields None, and
goes to twisted.web. So no request is understood differently by the two; some are just not understood here
(`tests/web/http1/test_channel.py` compares them). This is for `bench`'s row "browser".

The RequestMemo in front of it keeps what was parsed, by the request's own bytes: the same bytes always mean the same. A
polling client's validator changes with the document, so a request is looked up without its If-None-Match line, which is
cut out first. This is for `bench`'s rows "http" and "not-modified".

What an attacker can do to the memo: a request is remembered when the same connection has sent it twice in a row, so
random bytes are not, and neither is a client that comes once. An attacker that sends each random request twice fills
it; then it is emptied, and each honest client's next two requests are parsed by the grammar, some 8 µs longer.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from livestate.web.responses.responder import Responder, Variant

#: Bytes of the longest request that is parsed here. Browsers send 500 to 1,500 with a few cookies.
MAX_LENGTH = 4096

#: Fields of the longest: one less than twisted.web accepts (HTTPChannel.maxHeaders), for a validator put in later.
MAX_FIELDS = 499

#: Bounds of the RequestMemo: entries, and bytes of the requests in it. 32 MiB hold fifty thousand browsers' requests.
MAX_ENTRIES = 65_536
MAX_BYTES = 32 * 1024 * 1024

#: A request head without anything unusual in it. Not matched, and so left to twisted.web: control characters (also
#: NUL, bare CR and bare LF), a continued line (obs-fold), space before a colon, other methods and versions, a target
#: that is not in origin form or has percent-encoding in its path.
_HEAD = re.compile(
    rb"GET (/[!$&'()*+,\-./0-9:;=@A-Z_a-z~]*)(?:\?[!-\x7e]*)? HTTP/1\.1"
    rb"((?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*)+)\r\n\r\n"
)

#: The fields that have a bearing on the response, or on where the request ends and what follows it.
_FIELD = re.compile(
    rb"\r\n(host|accept-encoding|origin|if-none-match|connection|content-length|transfer-encoding|expect|upgrade|prefer)"
    rb":[ \t]*([^\r]*)",
    re.IGNORECASE,
)

#: One entity tag, and nothing that makes it match in more than one way.
SINGLE_ETAG = re.compile(rb'"[\x21\x23-\x7e\x80-\xff]*"')

#: Fields with which a request is not fast, whatever their value.
_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"prefer"})


class FastRequest(NamedTuple):
    """What a fast request asks for."""

    variant: Variant
    #: The one entity tag of its If-None-Match.
    validator: bytes | None
    #: Whether the connection is to be closed after the response.
    last: bool


def parse_fast(responders: Mapping[bytes, Responder], data: bytes) -> FastRequest | None:
    """Parse a fast request.

    :param responders: the documents by path.
    :param data: what arrived, starting where a request starts.
    :returns: None where the request is not fast, is incomplete, or is followed by more data.
    """
    head = _HEAD.fullmatch(data)
    responder = responders.get(head[1]) if head is not None else None
    if head is None or responder is None or head[2].count(b"\r\n") > MAX_FIELDS:
        return None
    fields: dict[bytes, bytes] = {}
    for written, value in _FIELD.findall(head[2]):
        name = written.lower()
        # A repeated field: twisted.web joins some of them, and refuses others.
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
    """Fast requests by their bytes, within bounds.

    `get` is the look-up itself, bound to the dictionary once; it returns None, or the Variant that answers.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, Variant] = {}
        self._bytes = 0
        self.get: Callable[[bytes], Variant | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of the requests in it."""
        return self._bytes

    def remember(self, data: bytes, variant: Variant) -> None:
        """Add a request; if it does not fit any more, drop all others first."""
        if len(self._entries) >= MAX_ENTRIES or self._bytes + len(data) > MAX_BYTES:
            self._entries.clear()
            self._bytes = 0
        self._entries[data] = variant
        self._bytes += len(data)
