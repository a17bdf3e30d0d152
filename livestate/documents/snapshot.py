"""One version of a document, in the content codings that were asked for.

A Snapshot is immutable. Everything sent to clients is derived from it once per change, not once per client: the bytes
in each content coding, each with its own strong entity tag. RFC 9110 section 8.8.3.3 requires that: a strong tag
identifies the bytes that are sent, so two codings of one state have two tags. A tag is a hash of those bytes alone, so
equal bytes have equal tags on all servers, and before and after a restart.

A new snapshot has the plain bytes only. `livestate.documents.codings` replaces it by one with another coding when a
client asks for that.
"""

import base64
import codecs
import gzip
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import brotli
import msgspec
import zstandard

from livestate.errors import DocumentRefused

#: Bytes below which no content coding is tried. Every response has a head of about 300 bytes anyway, and below about a
#: hundred bytes gzip's own overhead of 18 bytes leaves nothing to gain.
MIN_CODED_SIZE = 128

#: Bytes from which a document counts as large. Checking and compressing it takes more than about a millisecond
#: (64 KiB: gzip 2.1 ms, brotli 1.2 ms, zstd 0.2 ms), so that is done in a thread, and at faster compression levels.
LARGE = 64 * 1024

#: Bytes decoded at once. This takes 0.2 ms with the interpreter lock held; 5 MB with a few characters beyond Latin-1
#: take 7 ms.
UTF8_CHUNK = 128 * 1024


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

    #: Increases with every change, also across restarts: the time of the change in milliseconds since 1970, or the
    #: previous version plus one if that is more.
    version: int
    #: Seconds since 1970 when these bytes were first seen.
    modified: float
    #: By content coding: "identity", which is always present, and the codings that were made so far.
    representations: Mapping[str, Representation]
    #: The codings that do not make it smaller, as far as that is known.
    useless: frozenset[str] = frozenset()

    @property
    def plain(self) -> Representation:
        """The document as it came from the store."""
        return self.representations["identity"]

    @property
    def body(self) -> bytes:
        """The document's bytes as they came from the store."""
        return self.plain.body

    @property
    def tag(self) -> bytes:
        """The entity tag of the body, without quotes: equal for equal bytes, on every server and in every version."""
        return self.plain.etag[1:-1]

    def best(self, codings: Iterable[str]) -> Representation | None:
        """Return the representation in the first of `codings` that is there, or None if there is none."""
        return next((self.representations[coding] for coding in codings if coding in self.representations), None)

    @property
    def possible(self) -> list[str]:
        """The codings that it has or can gain."""
        return ["identity", *(coding for coding in ENCODERS if coding not in self.useless)]

    def can_gain(self, coding: str) -> bool:
        """Return whether a coding is missing, and may make the document smaller."""
        return coding in ENCODERS and coding not in self.representations and coding not in self.useless


def check(data: bytes, max_size: int) -> None:
    """Ensure that `data` can be served: JSON (RFC 8259) in UTF-8, at most `max_size` bytes.

    The JSON is validated without creating objects: 7 ms for 5.6 MB, where parsing takes 49 ms (orjson) or 94 ms (json).

    :raises DocumentRefused: when it cannot; the text says what is wrong and at which byte.
    """
    if len(data) > max_size:
        raise DocumentRefused(f"the document has {len(data):,} bytes; --max-size is {max_size:,}")
    if not data.strip(b" \t\r\n"):
        raise DocumentRefused("the document is empty")
    _check_utf8(data)
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise DocumentRefused(str(error)) from None
    except RecursionError:
        raise DocumentRefused("the document is nested too deeply") from None


def _check_utf8(data: bytes) -> None:
    """Ensure that `data` is UTF-8. Between two chunks, other threads (the reactor's among them) can run."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), UTF8_CHUNK):
        # The first bytes of a character that the last chunk ended within.
        pending, _ = decoder.getstate()
        try:
            decoder.decode(data[start : start + UTF8_CHUNK], final=start + UTF8_CHUNK >= len(data))
        except UnicodeDecodeError as error:
            raise DocumentRefused(f"the document is not UTF-8 (byte {start - len(pending) + error.start})") from None


def new_snapshot(data: bytes, modified: float, previous_version: int = 0) -> Snapshot:
    """Return a Snapshot of checked bytes, without content codings yet."""
    return plain_snapshot(max(previous_version + 1, int(modified * 1000)), modified, _representation("identity", data))


def plain_snapshot(version: int, modified: float, plain: Representation) -> Snapshot:
    """Return a Snapshot with one representation, the plain bytes."""
    useless = _ALL if len(plain.body) < MIN_CODED_SIZE else _NONE
    return Snapshot(version, modified, MappingProxyType({"identity": plain}), useless)


def encoded(data: bytes, coding: str) -> Representation | None:
    """Return `data` in a content coding, or None if the coding does not make it smaller."""
    body = ENCODERS[coding](data)
    return _representation(coding, body) if len(body) < len(data) else None


def with_representation(snapshot: Snapshot, coding: str, representation: Representation | None) -> Snapshot:
    """Return `snapshot` with what `encoded` returned for `coding`."""
    if representation is None:
        return replace(snapshot, useless=snapshot.useless | {coding})
    return replace(snapshot, representations=MappingProxyType({**snapshot.representations, coding: representation}))


def with_coding(snapshot: Snapshot, coding: str) -> Snapshot:
    """Return `snapshot` with a content coding added, unless the coding does not make it smaller."""
    if not snapshot.can_gain(coding):
        return snapshot
    return with_representation(snapshot, coding, encoded(snapshot.body, coding))


def _gzip(data: bytes) -> bytes:
    # mtime=0 makes equal documents equal bytes, and so gives them equal entity tags.
    return gzip.compress(data, 4 if len(data) >= LARGE else 6, mtime=0)


def _brotli(data: bytes) -> bytes:
    encoded: bytes = brotli.compress(data, quality=4 if len(data) >= LARGE else 5)
    return encoded


def _zstd(data: bytes) -> bytes:
    # At these levels a frame's window is at most 8 MiB, the limit of RFC 9659 for HTTP.
    return zstandard.ZstdCompressor(level=1 if len(data) >= LARGE else 3).compress(data)


#: The function for each content coding, the fastest first.
ENCODERS: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType({"zstd": _zstd, "gzip": _gzip, "br": _brotli})

_ALL, _NONE = frozenset(ENCODERS), frozenset[str]()


def _representation(coding: str, body: bytes) -> Representation:
    # 96 bits: the chance that any two of a billion versions share a tag is about 1 in 10**11.
    digest = hashlib.blake2b(body, digest_size=12).digest()
    return Representation(coding, body, b'"' + base64.urlsafe_b64encode(digest) + b'"')
