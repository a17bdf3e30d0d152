"""The responses of one document, made once and sent to every client with an equivalent request.

Theory of operation. The response to a GET depends only on the document's state, the content codings that the client
accepts, its origin (unless all origins may read), and its validators. A Variant stands for one combination of codings
and origin. There are few of them, however many clients there are. A Variant keeps its responses until the document
changes or the second is over (because of `Date` and the age). Then `renew` drops them, and they are made again when
next requested. Only the variants that have made a response are renewed (`livestate.web.responses.renewals`).

A client is sent the representation in the best of the available codings that it accepts. When a response is made, the
document is asked for the best coding, which a small document then has at once, and a large one soon. If the client's
If-None-Match names the entity tag of another available representation that it accepts, that one is selected and the
response is 304. So a client that was sent the plain bytes while they were being compressed is not sent the same
document twice.

A response is counted where it is sent, in its Variant or in the copy of it that was sent. `Responder.counts` sums up.
"""

from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import quote

from livestate.config.settings import events_path
from livestate.documents.document import Document
from livestate.documents.snapshot import Representation, Snapshot
from livestate.formats.negotiation import accepted_codings, allowed_origin
from livestate.web.responses.response import Fields, Response, problem
from livestate.web.responses.response_counts import ResponseCounts, WayCounts
from livestate.web.responses.variant import Variant

#: Shared caches may answer from memory for a second, and for one more second while they revalidate (RFC 5861), so a
#: client behind a cache gets a document that is at most two seconds old. While livestate is unreachable, a cache may
#: answer for five minutes.
CACHE_CONTROL = b"public, max-age=1, stale-while-revalidate=1, stale-if-error=300"

#: Seconds for which a browser may cache the response to a preflight. A day is the longest that any browser accepts
#: (Firefox).
PREFLIGHT_AGE = b"86400"

ALLOW = b"GET, HEAD, OPTIONS"


class Responder:
    """Makes the responses of one document."""

    __slots__ = ("_link", "_max_stale", "_now", "_origins", "_touched", "_variants", "_vary", "bytes_sent", "close",
                 "document", "made_response", "parsed_by", "tally")  # fmt: skip

    def __init__(
        self,
        document: Document,
        cors_origins: tuple[str, ...],
        max_stale: float | None,
        now: Callable[[], float],
        made_response: Callable[[Variant], object] = lambda variant: None,
        touched: Callable[[], object] = lambda: None,
    ) -> None:
        """Make responses for `document`.

        :param cors_origins: the origins whose pages may read the document, or `*`.
        :param max_stale: seconds since the last good fetch after which the document is not served; None: no limit.
        :param now: returns the seconds since 1970.
        :param made_response: called with each variant that has made a response, which is to be renewed within a second.
        :param touched: called when responses were counted.
        """
        self.document = document
        self._origins = tuple(origin.encode("ascii") for origin in cors_origins)
        self._max_stale = max_stale
        self._now = now
        self.made_response = made_response
        self._touched = touched
        #: What was sent until the last `settle` of each variant: see ResponseCounts.
        self.tally: Counter[str] = Counter()
        self.parsed_by = WayCounts()
        self.bytes_sent = 0
        self._variants: dict[tuple[tuple[str, ...], bytes | None], Variant] = {}
        target = quote(events_path(document.path), safe="/:@!$&'()*+,;=~")
        self._link = b'<%b>; rel="alternate"; type="text/event-stream"' % target.encode("ascii")
        self._vary = b"Accept-Encoding" if b"*" in self._origins else b"Accept-Encoding, Origin"
        #: Ends the subscription to the document, which is no longer served here.
        self.close = document.subscribe(lambda snapshot: self.renew())

    def variant(self, accept_encoding: bytes | None, origin: bytes | None) -> Variant:
        """Return the Variant for a request's Accept-Encoding and Origin fields.

        Their number is bounded: at most 65 orders of codings, times the number of allowed origins plus one.
        """
        key = accepted_codings(accept_encoding), allowed_origin(origin, self._origins)
        variant = self._variants.get(key)
        if variant is None:
            variant = self._variants[key] = Variant(self, *key)
        return variant

    def renew(self) -> None:
        """Drop all responses: the document has changed."""
        for variant in self._variants.values():
            variant.renew()

    def count_ways(self, responses: int, general: int, parsed: int, repeated: int) -> None:
        """Count responses by the way of their requests. The rest of the requests were remembered."""
        ways = self.parsed_by
        ways.general += general
        ways.parsed += parsed
        ways.repeated += repeated
        ways.remembered += responses - general - parsed - repeated
        self._touched()

    def counts(self) -> ResponseCounts:
        """Return what was sent until now."""
        for variant in self._variants.values():
            variant.settle()
        ways = {name: getattr(self.parsed_by, name) for name in WayCounts.__slots__} if self.tally else {}
        return ResponseCounts(dict(self.tally), ways, self.bytes_sent)

    def preflight(self, origin: bytes | None) -> Response:
        """Return the response to an OPTIONS request, which may be a CORS preflight (Fetch standard)."""
        fields = (
            (b"Allow", ALLOW),
            *self.cross_origin(origin),
            (b"Access-Control-Allow-Methods", ALLOW),
            (b"Access-Control-Allow-Headers", b"*"),
            (b"Access-Control-Max-Age", PREFLIGHT_AGE),
        )
        return Response(204, (self._date(), *fields))

    def cross_origin(self, origin: bytes | None) -> Fields:
        """Return the CORS fields for a request with this Origin; only Vary if its pages may not read the response."""
        fields = self._cors(allowed_origin(origin, self._origins))
        return fields if b"*" in self._origins else (*fields, (b"Vary", b"Origin"))

    def full(self, codings: tuple[str, ...], origin: bytes | None) -> Response:
        """Return a new response with the document, or with the reason why it cannot be served."""
        snapshot = self._snapshot_for(codings)
        if snapshot is None:
            return self._problem(503, self._why_not(), origin, (b"Retry-After", b"1"))
        representation = snapshot.best(codings)
        if representation is None and any(snapshot.can_gain(coding) for coding in codings):
            why = "The content codings that this client accepts are not ready yet."
            return self._problem(503, why, origin, (b"Retry-After", b"1"))
        if representation is None:
            available = ", ".join(snapshot.possible)
            return self._problem(406, f"The available content codings are: {available}.", origin)
        fields: list[tuple[bytes, bytes]] = [
            self._date(),
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % len(representation.body)),
            (b"Last-Modified", formatdate(snapshot.modified, usegmt=True).encode("ascii")),
        ]
        if representation.coding != "identity":
            fields.append((b"Content-Encoding", representation.coding.encode("ascii")))
        fields += [*self._shared_fields(representation, origin), (b"X-Content-Type-Options", b"nosniff")]
        return Response(200, tuple(fields), representation.body)

    def not_modified(self, codings: tuple[str, ...], origin: bytes | None) -> dict[bytes, Response]:
        """Return new 304 responses, by the entity tag that the client has.

        They carry the fields that a cache updates its stored response with (RFC 9110 section 15.4.5).
        """
        snapshot = self._snapshot_for(codings)
        if snapshot is None:
            return {}
        acceptable = [snapshot.representations[c] for c in codings if c in snapshot.representations]
        return {
            representation.etag: Response(304, (self._date(), *self._shared_fields(representation, origin)))
            for representation in acceptable
        }

    def servable(self) -> Snapshot | None:
        """Return the current snapshot, or None while there is no document or it is older than `max_stale`."""
        if self._max_stale is not None and self.document.age() > self._max_stale:
            return None
        return self.document.snapshot

    def _snapshot_for(self, codings: tuple[str, ...]) -> Snapshot | None:
        """Return the snapshot to serve, if there is one, with the best of `codings` made or being made."""
        return self.document.ask(codings) if self.servable() is not None else None

    def _why_not(self) -> str:
        if self.document.snapshot is None:
            return "There is no document yet; it is being fetched."
        return "The document is too old to be served; a newer one is being fetched."

    def _problem(self, status: int, detail: str, origin: bytes | None, *more: tuple[bytes, bytes]) -> Response:
        response = problem(status, detail, *more, *self._cors(origin), (b"Vary", self._vary))
        # Date comes first, where twisted.web puts it: `wire` must yield the same bytes.
        return Response(status, (self._date(), *response.fields), response.body)

    def _shared_fields(self, representation: Representation, origin: bytes | None) -> Fields:
        """Return the fields that a 200 and a 304 have in common."""
        return (
            (b"ETag", representation.etag),
            (b"Cache-Control", CACHE_CONTROL),
            (b"Vary", self._vary),
            (b"Link", self._link),
            # Not `Age`, the time that a response spent in caches: it counts towards max-age (RFC 9111 section 5.1).
            (b"Livestate-Age", b"%d" % self.document.age()),
            *self._cors(origin),
        )

    def _cors(self, origin: bytes | None) -> Fields:
        if origin is None:
            return ()
        return (
            (b"Access-Control-Allow-Origin", origin),
            (b"Access-Control-Expose-Headers", b"ETag, Link, Livestate-Age, Preference-Applied"),
        )

    def _date(self) -> tuple[bytes, bytes]:
        return b"Date", formatdate(self._now(), usegmt=True).encode("ascii")
