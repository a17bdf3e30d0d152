"""Responses by the bytes of the whole request, for as long as they are current: a second at most.

Theory of operation. Many clients of one kind (a load generator, the caches in front) send the very same bytes,
validator included. A request that comes twice in a row is noted here with its response, and from then on costs one
look-up, where the RequestMemo has to cut the validator out first. This is for `bench`'s row "not-modified". Clients
that differ do not get in: no two of their requests in a row are alike.
"""

from collections.abc import Callable

from livestate.web.responses.responder import Variant

#: Entries at most. Of a hundred thousand requests per second, few come twice in a row.
MAX_ENTRIES = 4096


class RememberedResponse:
    """One request's response."""

    __slots__ = ("given", "not_modified", "variant", "wire")

    def __init__(self, wire: bytes, variant: Variant, not_modified: bool) -> None:
        self.wire = wire
        self.variant = variant
        self.not_modified = not_modified
        #: How often it was sent since the variant's counts were last updated.
        self.given = 0


class ResponseMemo:
    """The responses that were noted since the last `renew`.

    `get` is the look-up itself, bound to the dictionary once; it returns None, or a RememberedResponse.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, RememberedResponse] = {}
        self._last = 0
        self.get: Callable[[bytes], RememberedResponse | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, request: bytes, wire: bytes, variant: Variant, not_modified: bool) -> None:
        """Keep the response just sent to `request`, if the previous request was the same."""
        mark = hash(request)
        if mark == self._last and len(self._entries) < MAX_ENTRIES:
            self._entries[request] = RememberedResponse(wire, variant, not_modified)
        self._last = mark

    def renew(self) -> None:
        """Update the variants' counts and drop everything: a response has changed, or the second has."""
        for remembered in self._entries.values():
            variant = remembered.variant
            variant.repeated += remembered.given
            if remembered.not_modified:
                variant.given_not_modified += remembered.given
            else:
                variant.given += remembered.given
        self._entries.clear()
