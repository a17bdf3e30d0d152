"""What is said in public of how livestate does: `/_live/ready`, one word."""

from collections.abc import Sequence

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from livestate.poller import Poller
from livestate.web.response import Response


class ReadyResource(Resource):
    """Says `ok` while every document is fresh, and else `stale`.

    The status is for load balancers and so answers another question: 200 as long as every document can be served, old
    or not. Where the store is away all servers are stale, and taking them all out would leave readers nothing.
    """

    isLeaf = True

    def __init__(self, pollers: Sequence[Poller]) -> None:
        super().__init__()
        self._pollers = pollers

    def render(self, request: Request) -> int:
        """Answer."""
        body = b"ok\n" if all(poller.fresh() for poller in self._pollers) else b"stale\n"
        status = 200 if all(poller.document.snapshot is not None for poller in self._pollers) else 503
        plain(status, body).write_to(request)
        return NOT_DONE_YET


def plain(status: int, body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> Response:
    """Give an answer that nobody keeps."""
    return Response(
        status,
        (
            (b"Content-Type", content_type),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
        ),
        body,
    )
