"""Answers by the bytes of the whole request, for as long as they are right: a second at most.

Theory of operation. Many clients of one kind (a load generator, the caches in front) send the very same bytes,
validator included. A request that comes twice in a row is noted here with its answer, and from then on costs one
look-up, where the Memo has to cut the validator out first: `bench`'s row "not-modified" pays for it. Clients who differ
do not get in: of their requests no two in a row are alike.
"""

from collections.abc import Callable

from livestate.web.responses.responder import Variant

#: Entries at most. A second of a hundred thousand requests has few that come twice in a row.
MOST_ENTRIES = 4096


class RememberedResponse:
    """One request's answer."""

    __slots__ = ("given", "not_modified", "variant", "wire")

    def __init__(self, wire: bytes, variant: Variant, not_modified: bool) -> None:
        self.wire = wire
        self.variant = variant
        self.not_modified = not_modified
        #: How often it was given, not yet told to the variant.
        self.given = 0


class ResponseMemo:
    """The answers that were noted since the last `renew`.

    `get` is the look-up itself, bound to the dictionary once: None, or a Prepared.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, RememberedResponse] = {}
        self._last = 0
        self.get: Callable[[bytes], RememberedResponse | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, request: bytes, wire: bytes, variant: Variant, not_modified: bool) -> None:
        """Keep an answer just given to `request`, if that is also what was asked last."""
        mark = hash(request)
        if mark == self._last and len(self._entries) < MOST_ENTRIES:
            self._entries[request] = RememberedResponse(wire, variant, not_modified)
        self._last = mark

    def renew(self) -> None:
        """Hand the counts over and forget all: an answer has changed, or the second has."""
        for prepared in self._entries.values():
            variant = prepared.variant
            variant.repeated += prepared.given
            if prepared.not_modified:
                variant.given_not_modified += prepared.given
            else:
                variant.given += prepared.given
        self._entries.clear()
