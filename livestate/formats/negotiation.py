"""What a client accepts and what it has: the parts of RFC 9110 that choose an answer.

Pure functions from field values to choices. Field values are bytes as they came, several lines of one field
joined by ", " (RFC 9110 section 5.3). Malformed members are ignored, never an error: a client that sends
nonsense is given what a client that sends nothing gets.
"""

import re
from collections.abc import Container
from functools import lru_cache

#: The content codings livestate makes, in the order it prefers them where the client has no preference
#: (smallest first on JSON: 4.3 KB of it became 1,468, 1,533 and 1,606 bytes), and last the plain bytes.
CODINGS = ("br", "zstd", "gzip", "identity")

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_WEIGHTED = re.compile(rb"[ \t]*(" + _TOKEN + rb")[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?")
_RANGE = re.compile(
    rb"[ \t]*(" + _TOKEN + rb"/" + _TOKEN + rb")[ \t]*"
    rb"(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)
_ETAG = re.compile(rb'[ \t]*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*')


@lru_cache(maxsize=1024)  # all browsers in the world send some dozens
def accepted_codings(accept_encoding: bytes | None) -> tuple[str, ...]:
    """Give the content codings that a client accepts, best first (RFC 9110 section 12.5.3).

    :param accept_encoding: the Accept-Encoding field, or None where there is none: only the plain bytes are
        given then, since a client that does not name a coding often cannot undo it.
    :returns: some of `CODINGS`; without "identity" where the client ruled that out; perhaps none at all.
    """
    if accept_encoding is None:
        return ("identity",)
    weights: dict[str, float] = {}
    for member in accept_encoding.split(b","):
        match = _WEIGHTED.fullmatch(member)
        if match:
            name = match[1].decode("ascii").lower()
            # "x-gzip" is an alias of "gzip" (RFC 9110 section 8.4.1.3).
            weights.setdefault("gzip" if name == "x-gzip" else name, float(match[2] or 1))
    others = weights.get("*", 0.0)
    chosen = {name: weights.get(name, others) for name in CODINGS[:-1]}
    # Not named, "identity" is still acceptable, but after all that is named, unless "*;q=0" rules it out.
    chosen["identity"] = weights.get("identity", 0.0005 if weights.get("*") != 0 else 0.0)
    ranked = sorted((name for name in CODINGS if chosen[name] > 0), key=lambda name: -chosen[name])
    return tuple(ranked)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Tell whether an If-None-Match field names `etag`, by weak comparison (RFC 9110 sections 8.8.3.2, 13.1.2).

    :param if_none_match: `*`, which matches whatever there is, or a list of entity tags.
    :param etag: a strong entity tag, quotes included.
    """
    if if_none_match.strip(b" \t") == b"*":
        return True
    position = 0
    # A comma may be part of an entity tag, so the list cannot be split at commas.
    while position < len(if_none_match):
        match = _ETAG.match(if_none_match, position)
        if match is None:
            next_comma = if_none_match.find(b",", position)
            if next_comma < 0:
                return False
            position = next_comma + 1
            continue
        if match[1] == etag:
            return True
        position = match.end()
        if position < len(if_none_match) and if_none_match[position] != ord(","):
            return False
        position += 1
    return False


def allowed_origin(origin: bytes | None, allowed: Container[bytes]) -> bytes | None:
    """Give the value of Access-Control-Allow-Origin for a request, None where the field is left out.

    :param origin: the request's Origin field.
    :param allowed: the origins that may read; `*` among them opens the document to all (the Fetch standard,
        "CORS protocol and HTTP caches": a fixed `*` needs no Vary).
    """
    if b"*" in allowed:
        return b"*"
    return origin if origin is not None and origin in allowed else None


def may_connect(origin: bytes | None, host: bytes, allowed: Container[bytes]) -> bool:
    """Tell whether a WebSocket may be opened: by a page of an allowed origin or of the server's own, or by no page.

    :param origin: the request's Origin field; only browsers send one (RFC 6455 section 10.2).
    :param host: the request's Host field. The scheme is not compared: behind a proxy that does TLS it is another.
    """
    if origin is None or b"*" in allowed or origin in allowed:
        return True
    own = origin.partition(b"://")[2]
    return own != b"" and own.lower() == host.lower()


def media_weight(media_type: bytes, accept: bytes | None) -> float:
    """Give how much a client wants a media type, from 0, not at all, to 1 (RFC 9110 section 12.5.1).

    :param media_type: such as `text/html`, in lower case.
    :param accept: the Accept field, or None where there is none: anything is welcome then. Of a range with parameters
        other than its weight it is not known whether it is met: it is ignored.
    """
    if accept is None:
        return 1.0
    weights: dict[bytes, float] = {}
    for member in accept.split(b","):
        match = _RANGE.fullmatch(member)
        if match:
            weights.setdefault(match[1].lower(), float(match[2] or 1))
    for matching in (media_type, media_type.partition(b"/")[0] + b"/*", b"*/*"):
        if matching in weights:
            return weights[matching]
    return 0.0


# Quoted strings, the rest of the field where one does not end, separators, and what is between them. No two of these
# begin alike, so that the time taken is linear.
_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[,;]|[^,;"]+', re.DOTALL)


def wait_preference(prefer: bytes | None) -> int | None:
    """Give the seconds that a client would wait for an answer: `wait` in its Prefer field (RFC 7240 section 4.3).

    :param prefer: a list of preferences, each with parameters perhaps; of one named twice the first counts (section 2).
    :returns: None where there is no such preference, or it is no number of seconds.
    """
    preference, in_parameters = b"", False
    for piece in [*_PIECE.findall(prefer or b""), b","]:
        if piece == b",":
            name, _, value = preference.partition(b"=")
            if name.strip(b" \t").lower() == b"wait":
                return _seconds(value.strip(b" \t"))
            preference, in_parameters = b"", False
        elif piece == b";":
            in_parameters = True
        elif not in_parameters:
            preference += piece
    return None


def _seconds(word: bytes) -> int | None:
    # Quoted or not is the same (RFC 7240 section 2).
    if len(word) > 1 and word[:1] == word[-1:] == b'"':
        word = re.sub(rb"\\(.)", rb"\1", word[1:-1], flags=re.DOTALL)
    return int(word) if word.isdigit() and len(word) < 10 else None
