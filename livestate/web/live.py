"""What is said in public of how livestate does: `/_live/ready`, one word."""

from collections.abc import Sequence

from twisted.web.http import Request

from livestate.poller import Poller
from livestate.web.resource import ResponseResource
from livestate.web.response import Response, unstored


class ReadyResource(ResponseResource):
    """Says `ok` while every document is fresh, and else `stale`.

    The status is for load balancers and so answers another question: 200 as long as every document can be served, old
    or not. Where the store is away all servers are stale, and taking them all out would leave readers nothing.
    """

    def __init__(self, pollers: Sequence[Poller]) -> None:
        super().__init__()
        self._pollers = pollers

    def respond(self, request: Request) -> Response:
        """Look at every document."""
        body = b"ok\n" if all(poller.fresh() for poller in self._pollers) else b"stale\n"
        status = 200 if all(poller.document.snapshot is not None for poller in self._pollers) else 503
        return unstored(status, body, b"text/plain; charset=utf-8")
