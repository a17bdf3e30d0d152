"""The channel of a site with an access log."""

from twisted.web.server import Site

from livestate.web.http1.access_log import AccessLog, host_of
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.connections import Connections
from livestate.web.http1.response_memo import RememberedResponse
from livestate.web.responses.variant import Variant


class LoggedChannel(LiveChannel):
    """Serves one connection, and logs the responses of the fast path (twisted.web logs its own)."""

    def __init__(self, site: Site, connections: Connections, log: AccessLog) -> None:
        super().__init__(site, connections)
        self._access_log = log
        # The response memo is not used: its responses are sent without parsing the request.
        empty: dict[bytes, RememberedResponse] = {}
        self._get_response = empty.get

    def connectionMade(self) -> None:
        """Count the connection, and store its address for the log."""
        super().connectionMade()
        self._host = host_of(self.transport.getPeer())

    def _respond(self, variant: Variant, validator: bytes | None, data: bytes, last: bool = False) -> bool:
        responded = super()._respond(variant, validator, data, last)
        if responded:
            not_modified = variant.not_modified().get(validator) if validator is not None else None
            response = not_modified or variant.full()
            self._access_log.write_fast(self._host, data, response.status, len(response.body))
        return responded
