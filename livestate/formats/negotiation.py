"""Content negotiation and conditional requests: the parts of RFC 9110 that choose a response.

These are pure functions from field values to choices. Field values are bytes as received; several lines of one field
are joined by ", " (RFC 9110 section 5.3). Malformed members are ignored and are never an error: a client that sends
nonsense gets the same response as a client that sends nothing.
"""

import re
from collections.abc import Container
from functools import lru_cache

#: The content codings that livestate offers, in its order of preference if the client has none. Smallest results come
#: first (4.3 KB of JSON became 1,468, 1,533 and 1,606 bytes), and the uncompressed document last.
CODINGS = ("br", "zstd", "gzip", "identity")

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_WEIGHTED = re.compile(rb"[ \t]*(" + _TOKEN + rb")[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?")
_RANGE = re.compile(
    rb"[ \t]*(" + _TOKEN + rb"/" + _TOKEN + rb")[ \t]*"
    rb"(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)
_ETAG = re.compile(rb'[ \t]*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*')


@lru_cache(maxsize=1024)  # all browsers together send a few dozen different values
def accepted_codings(accept_encoding: bytes | None) -> tuple[str, ...]:
    """Return the content codings that a client accepts, best first (RFC 9110 section 12.5.3).

    :param accept_encoding: the Accept-Encoding field, or None if the request has none. Then only "identity" is
        returned, since a client that does not name a coding often cannot decode it.
    :returns: a selection of `CODINGS`, without "identity" if the client ruled it out, and possibly empty.
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
    # If not named, "identity" is still acceptable, but after all that are named, unless "*;q=0" rules it out.
    chosen["identity"] = weights.get("identity", 0.0005 if weights.get("*") != 0 else 0.0)
    ranked = sorted((name for name in CODINGS if chosen[name] > 0), key=lambda name: -chosen[name])
    return tuple(ranked)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Return whether an If-None-Match field names `etag`, by weak comparison (RFC 9110 sections 8.8.3.2, 13.1.2).

    :param if_none_match: a list of entity tags, or `*`, which matches any.
    :param etag: a strong entity tag, quotes included.
    """
    if if_none_match.strip(b" \t") == b"*":
        return True
    position = 0
    # An entity tag may contain a comma, so the list cannot be split at commas.
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
    """Return the value of Access-Control-Allow-Origin for a request, or None to omit the field.

    :param origin: the request's Origin field, or None.
    :param allowed: the origins that may read. If `*` is among them, all may (the Fetch standard, "CORS protocol and
        HTTP caches": a constant `*` needs no Vary).
    """
    if b"*" in allowed:
        return b"*"
    return origin if origin is not None and origin in allowed else None


def may_connect(origin: bytes | None, host: bytes, allowed: Container[bytes]) -> bool:
    """Return whether a client may open a WebSocket.

    A page may if its origin is allowed or is the server's own. A client that is not a browser always may.

    :param origin: the request's Origin field. Only browsers send one (RFC 6455 section 10.2).
    :param host: the request's Host field. The scheme is not compared, because it differs behind a TLS proxy.
    """
    if origin is None or b"*" in allowed or origin in allowed:
        return True
    own = origin.partition(b"://")[2]
    return own != b"" and own.lower() == host.lower()


def media_weight(media_type: bytes, accept: bytes | None) -> float:
    """Return the weight that a client gives a media type, from 0 (not acceptable) to 1 (RFC 9110 section 12.5.1).

    :param media_type: the type in lower case, such as `text/html`.
    :param accept: the Accept field, or None if the request has none, which accepts everything. A range with parameters
        other than its weight is ignored, because it is unknown whether the document matches them.
    """
    if accept is None:
        return 1.0
    weights: dict[bytes, float] = {}
    for member in accept.split(b","):
        match = _RANGE.fullmatch(member)
        if match:
            weights.setdefault(match[1].lower(), float(match[2] or 1))
    for media_range in (media_type, media_type.partition(b"/")[0] + b"/*", b"*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0


# Quoted strings (an unterminated one extends to the end of the field), separators, and the text between them. No two of
# these begin with the same character, so matching takes linear time.
_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[,;]|[^,;"]+', re.DOTALL)


def wait_preference(prefer: bytes | None) -> int | None:
    """Return how many seconds a client is willing to wait: `wait` in its Prefer field (RFC 7240 section 4.3).

    :param prefer: the Prefer field: a list of preferences, each with optional parameters. If a preference is repeated,
        the first one counts (section 2).
    :returns: None if there is no such preference, or it is not a number of seconds.
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
    # A quoted value means the same as an unquoted one (RFC 7240 section 2).
    if len(word) > 1 and word[:1] == word[-1:] == b'"':
        word = re.sub(rb"\\(.)", rb"\1", word[1:-1], flags=re.DOTALL)
    return int(word) if word.isdigit() and len(word) < 10 else None
