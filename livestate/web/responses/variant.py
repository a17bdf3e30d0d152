"""The responses of one document for all clients with equivalent requests, kept until they change.

See `livestate.web.responses.responder` for what makes requests equivalent.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from livestate.documents.document import Document
from livestate.formats.negotiation import matches
from livestate.web.responses.response import Response


class ResponseCopy(Protocol):
    """A response of a Variant that is kept somewhere else too, and counted there when it is sent."""

    def settle(self) -> None:
        """Add the count to the Variant's."""

    def drop(self) -> None:
        """Forget the response."""


class ResponseMaker(Protocol):
    """What a Variant needs of the responder of its document."""

    document: Document
    #: Called with each variant that has made a response, which is to be renewed within a second.
    made_response: Callable[["Variant"], object]
    #: What was sent until the last `settle` of each variant: see ResponseCounts.
    tally: Counter[str]
    bytes_sent: int

    def full(self, codings: tuple[str, ...], origin: bytes | None) -> Response:
        """Return a new response with the document, or with the reason why it cannot be served."""

    def not_modified(self, codings: tuple[str, ...], origin: bytes | None) -> dict[bytes, Response]:
        """Return new 304 responses, by the entity tag that the client has."""

    def count_ways(self, responses: int, general: int, parsed: int, repeated: int) -> None:
        """Count responses by the way of their requests."""


class Variant:
    """A document as served to all clients that accept the same codings and come from the same origin."""

    __slots__ = (
        "_codings",
        "_full",
        "_not_modified",
        "_origin",
        "_responder",
        "bodiless",
        "copies",
        "general",
        "parsed",
        "repeated",
        "sent",
        "sent_not_modified",
        "wire",
        "wires_not_modified",
    )

    def __init__(self, responder: ResponseMaker, codings: tuple[str, ...], origin: bytes | None) -> None:
        self._responder = responder
        self._codings = codings
        self._origin = origin
        self._full: Response | None = None
        self._not_modified: dict[bytes, Response] | None = None
        #: The responses as bytes to send, the 304s by entity tag; None and empty until they are made.
        self.wire: bytes | None = None
        self.wires_not_modified: dict[bytes, bytes] = {}
        #: What keeps a response of this variant too, until the next `renew`.
        self.copies: list[ResponseCopy] = []
        #: How often each kind was sent since the last `settle`.
        self.sent = 0
        self.sent_not_modified = 0
        #: How many of them answered requests that twisted.web parsed ("general"), that the grammar of fast requests
        #: parsed, and that were repeated byte for byte. `bodiless` counts those that had no body (HEAD).
        self.general = 0
        self.parsed = 0
        self.repeated = 0
        self.bodiless = 0

    def respond(self, if_none_match: bytes | None = None, head: bool = False) -> Response:
        """Return the response to a GET or a HEAD, and count it. For a HEAD, the caller omits the body."""
        self.general += 1
        if if_none_match is not None:
            for etag, response in self.not_modified().items():
                if matches(if_none_match, etag):
                    self.sent_not_modified += 1
                    return response
        response = self.full()
        self.sent += 1
        self.bodiless += head
        return response

    def is_current(self, if_none_match: bytes) -> bool:
        """Return whether an If-None-Match field names a current representation that these clients accept."""
        return any(matches(if_none_match, etag) for etag in self.not_modified())

    def full(self) -> Response:
        """Return the response for a client that does not have the current version."""
        if self._full is None:
            # If a coding is made for it, all responses of the document are dropped meanwhile.
            self._full = self._responder.full(self._codings, self._origin)
            self._responder.made_response(self)
        return self._full

    def not_modified(self) -> dict[bytes, Response]:
        """Return the 304 responses by entity tag, one for each acceptable representation, the preferred one first."""
        if self._not_modified is None:
            self._not_modified = self._responder.not_modified(self._codings, self._origin)
            self._responder.made_response(self)
        return self._not_modified

    def waits_for_coding(self) -> bool:
        """Return whether the content coding that these clients prefer is still being made."""
        return self._responder.document.making(self._codings)

    def prepare(self) -> bytes:
        """Set `wire`, and return it."""
        self.wire = self.full().wire()
        return self.wire

    def prepare_not_modified(self) -> dict[bytes, bytes]:
        """Set `wires_not_modified`, and return it."""
        self.wires_not_modified = {etag: response.wire() for etag, response in self.not_modified().items()}
        return self.wires_not_modified

    def renew(self) -> None:
        """Drop the responses, and add the counts to the responder's."""
        self.settle()
        copies, self.copies = self.copies, []
        for copy in copies:
            copy.drop()
        self._full = None
        self._not_modified = None
        self.wire = None
        self.wires_not_modified = {}

    def settle(self) -> None:
        """Add the counts to the responder's."""
        for copy in self.copies:
            copy.settle()
        sent, not_modified = self.sent, self.sent_not_modified
        if not sent and not not_modified:
            return
        responder = self._responder
        responder.count_ways(sent + not_modified, self.general, self.parsed, self.repeated)
        self.general = self.parsed = self.repeated = 0
        if self._full is not None and sent:
            responder.tally[self._full.label] += sent
            length = len(self.wire or self._full.wire())
            responder.bytes_sent += sent * length - self.bodiless * len(self._full.body)
            self.sent = self.bodiless = 0
        if not_modified:
            responder.tally["304"] += not_modified
            responder.bytes_sent += not_modified * self._length_of_not_modified()
            self.sent_not_modified = 0

    def _length_of_not_modified(self) -> int:
        wires = list(self.wires_not_modified.values()) or [r.wire() for r in self.not_modified().values()]
        return len(wires[0]) if wires else 0
