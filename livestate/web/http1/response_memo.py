"""Responses by the bytes of the whole request, kept as long as they are current: at most a second.

Theory of operation. Clients of one kind (a load generator, the caches in front) send exactly the same bytes, including
the validator. A request that comes twice in a row is stored here with its response, and from then on costs one look-up,
whereas the RequestMemo has to cut the validator out first. This is for `bench`'s row "not-modified". Requests of
clients that differ are not stored, since no two in a row are equal.
"""

from collections.abc import Callable

from livestate.web.responses.responder import Variant

#: Maximum number of entries. Of a hundred thousand requests per second, few come twice in a row.
MAX_ENTRIES = 4096


class RememberedResponse:
    """The response to one request."""

    __slots__ = ("not_modified", "sent", "variant", "wire")

    def __init__(self, wire: bytes, variant: Variant, not_modified: bool) -> None:
        self.wire = wire
        self.variant = variant
        self.not_modified = not_modified
        #: How often it was sent since the variant's counts were last updated.
        self.sent = 0


class ResponseMemo:
    """The responses that were stored since the last `renew`.

    `get` is the look-up itself, bound to the dictionary once; it returns None, or a RememberedResponse.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, RememberedResponse] = {}
        self._last_hash = 0
        self.get: Callable[[bytes], RememberedResponse | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: bytes, wire: bytes, variant: Variant, not_modified: bool) -> None:
        """Store the response just sent to `request`, if the previous request was the same."""
        request_hash = hash(request)
        if request_hash == self._last_hash and len(self._entries) < MAX_ENTRIES:
            self._entries[request] = RememberedResponse(wire, variant, not_modified)
        self._last_hash = request_hash

    def renew(self) -> None:
        """Update the variants' counts and drop all entries: a response changed, or the second is over."""
        for remembered in self._entries.values():
            variant = remembered.variant
            variant.repeated += remembered.sent
            if remembered.not_modified:
                variant.sent_not_modified += remembered.sent
            else:
                variant.sent += remembered.sent
        self._entries.clear()
