"""One version of a document, in every form in which it is sent.

A Snapshot is immutable. All that a client can be sent is derived from it once a change, not once a client: the
bytes in each content coding, each with a strong entity tag of its own (RFC 9110 section 8.8.3.3: the tag names
the bytes that are sent, so two codings of one state have two tags). A tag is a hash of just those bytes:
several servers, and one server before and after a restart, give equal bytes equal tags.
"""

import base64
import codecs
import gzip
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import brotli
import msgspec
import zstandard

from livestate.errors import DocumentRefused

#: Bytes below which no content coding is tried: a head of 300 bytes is sent with it, and below about a hundred
#: bytes gzip's own 18 leave nothing to win.
SMALLEST_CODED = 128

#: Bytes from which a document counts as large: checking and coding it takes more than about a millisecond
#: (64 KiB: gzip 2.1 ms, brotli 1.2 ms, zstd 0.2 ms), so it is done away from the reactor, and more cheaply.
LARGE = 64 * 1024

#: Bytes that are decoded at once: 0.2 ms with the interpreter's lock held, where 5 MB with a few signs beyond Latin-1
#: in it take 7.
UTF8_PIECE = 128 * 1024


@dataclass(frozen=True, slots=True)
class Representation:
    """A document's bytes in one content coding."""

    coding: str
    body: bytes
    #: Strong entity tag, quotes included.
    etag: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a document."""

    #: Goes up with each change, also over restarts: milliseconds since 1970 of the change, or one more than the
    #: version before it where that is more.
    version: int
    #: Seconds since 1970 when these bytes were first seen.
    modified: float
    #: By coding; "identity" is always there.
    representations: Mapping[str, Representation]
    #: Whether all codings that are worth having are there. A large document is first published without.
    complete: bool

    @property
    def body(self) -> bytes:
        """The document's bytes as they came from the store."""
        return self.representations["identity"].body

    @property
    def tag(self) -> bytes:
        """What names those bytes, on whatever server and in whatever version: their entity tag without its quotes."""
        return self.representations["identity"].etag[1:-1]


def check(data: bytes, max_size: int) -> None:
    """See that `data` is a document to serve: JSON (RFC 8259) in UTF-8 of at most `max_size` bytes.

    It is read without making objects of it: 5.6 MB took 7 ms, where parsing took 49 (orjson) and 94 (json).

    :raises DocumentRefused: it is not; the text says what is wrong and at which byte.
    """
    if len(data) > max_size:
        raise DocumentRefused(f"it has {len(data):,} bytes, and --max-size is {max_size:,}")
    if not data.strip(b" \t\r\n"):
        raise DocumentRefused("it is empty")
    _check_utf8(data)
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise DocumentRefused(str(error)) from None
    except RecursionError:
        raise DocumentRefused("its arrays and objects are nested too deeply") from None


def _check_utf8(data: bytes) -> None:
    """See that `data` is UTF-8, in pieces: between two of them other threads, and so the reactor, get their turn."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), UTF8_PIECE):
        # The first bytes of a sign that was cut in two.
        held, _ = decoder.getstate()
        try:
            decoder.decode(data[start : start + UTF8_PIECE], final=start + UTF8_PIECE >= len(data))
        except UnicodeDecodeError as error:
            raise DocumentRefused(f"it is not UTF-8 (byte {start - len(held) + error.start})") from None


def new_snapshot(data: bytes, modified: float, previous_version: int = 0) -> Snapshot:
    """Make the Snapshot of checked bytes, without content codings yet."""
    plain = _representation("identity", data)
    return Snapshot(
        version=max(previous_version + 1, int(modified * 1000)),
        modified=modified,
        representations=MappingProxyType({"identity": plain}),
        complete=len(data) < SMALLEST_CODED,
    )


def with_coding(snapshot: Snapshot, coding: str) -> Snapshot:
    """Give `snapshot` with one more content coding, if that makes it smaller, and else as it is."""
    data = snapshot.body
    coded = ENCODERS[coding](data)
    if len(coded) >= len(data):
        return snapshot
    there = MappingProxyType({**snapshot.representations, coding: _representation(coding, coded)})
    return replace(snapshot, representations=there)


def completed(snapshot: Snapshot) -> Snapshot:
    """Give `snapshot` marked as having all codings that it will have."""
    return replace(snapshot, complete=True)


def with_all_codings(snapshot: Snapshot) -> Snapshot:
    """Give `snapshot` with every content coding that makes it smaller, complete."""
    if not snapshot.complete:
        for coding in ENCODERS:
            snapshot = with_coding(snapshot, coding)
    return completed(snapshot)


def _gzip(data: bytes) -> bytes:
    # mtime=0: equal documents give equal bytes, and so equal entity tags.
    return gzip.compress(data, 4 if len(data) >= LARGE else 6, mtime=0)


def _brotli(data: bytes) -> bytes:
    coded: bytes = brotli.compress(data, quality=4 if len(data) >= LARGE else 5)
    return coded


def _zstd(data: bytes) -> bytes:
    # A frame's window is at most 8 MiB at these levels, as RFC 9659 asks of content sent over HTTP.
    return zstandard.ZstdCompressor(level=1 if len(data) >= LARGE else 3).compress(data)


#: How each content coding is made, the quickest first: that is the order in which a large document gets them.
ENCODERS: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType({"zstd": _zstd, "gzip": _gzip, "br": _brotli})


def _representation(coding: str, body: bytes) -> Representation:
    # 96 bits: any two of a billion versions share a tag with a chance of about 1 in 10**11.
    digest = hashlib.blake2b(body, digest_size=12).digest()
    return Representation(coding, body, b'"' + base64.urlsafe_b64encode(digest) + b'"')
