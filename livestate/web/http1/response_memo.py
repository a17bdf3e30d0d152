"""Responses by the bytes of the whole request, kept as long as they are current: at most a second.

Theory of operation. Clients of one kind (a load generator, the caches in front) send exactly the same bytes, including
the validator. A request that comes twice in a row is stored here with its response, and from then on costs one look-up,
whereas the RequestMemo has to cut the validator out first. This is for `bench`'s row "not-modified". Requests of
clients that differ are not stored, since no two in a row are equal.
"""

from collections.abc import Callable

from livestate.web.responses.variant import Variant

#: Maximum number of entries. Of a hundred thousand requests per second, few come twice in a row.
MAX_ENTRIES = 4096


class RememberedResponse:
    """The response to one request: a copy of one of its variant's."""

    __slots__ = ("_entries", "_request", "not_modified", "sent", "variant", "wire")

    def __init__(
        self, entries: "dict[bytes, RememberedResponse]", request: bytes, wire: bytes, variant: Variant,
        not_modified: bool,
    ) -> None:  # fmt: skip
        """:param entries: where it is stored, under `request`."""
        self._entries = entries
        self._request = request
        self.wire = wire
        self.variant = variant
        self.not_modified = not_modified
        #: How often it was sent since it was last counted in the variant.
        self.sent = 0

    def settle(self) -> None:
        """Add the count to the variant's."""
        sent, self.sent = self.sent, 0
        self.variant.repeated += sent
        if self.not_modified:
            self.variant.sent_not_modified += sent
        else:
            self.variant.sent += sent

    def drop(self) -> None:
        """Remove it from the memo: the variant's responses have changed, or the second is over."""
        del self._entries[self._request]


class ResponseMemo:
    """The responses to requests that came twice in a row, until their variants are renewed.

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
        if request_hash == self._last_hash and request not in self._entries and len(self._entries) < MAX_ENTRIES:
            remembered = RememberedResponse(self._entries, request, wire, variant, not_modified)
            self._entries[request] = remembered
            variant.copies.append(remembered)
        self._last_hash = request_hash
