"""The channel of a site with an access log."""

from typing import TYPE_CHECKING

from livestate.web.http1.access_log import host_of
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.response_memo import RememberedResponse
from livestate.web.responses.responder import Variant

if TYPE_CHECKING:
    from livestate.web.site import LiveSite


class LoggedChannel(LiveChannel):
    """Serves one connection, and has the answers of the short way logged (the others log themselves)."""

    def __init__(self, site: "LiveSite") -> None:
        super().__init__(site)
        # None is given without a look at its request.
        nothing: dict[bytes, RememberedResponse] = {}
        self._ready = nothing.get

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self._host = host_of(self.transport.getPeer())

    def _give(self, variant: Variant, validator: bytes | None, data: bytes, last: bool = False) -> bool:
        given = super()._give(variant, validator, data, last)
        if given:
            not_modified = variant.not_modified().get(validator) if validator is not None else None
            self.site.log_plain(self._host, data, not_modified or variant.full())
        return given
