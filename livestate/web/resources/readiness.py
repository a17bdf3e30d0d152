"""What is said in public of how livestate does: `/_live/ready`, one word."""

from collections.abc import Sequence
from typing import Protocol

from twisted.web.http import Request

from livestate.documents.document import Document
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Response, unstored


class ServedDocument(Protocol):
    """What keeps a document up to date: a Poller, or what stands for one in another process."""

    @property
    def document(self) -> Document:
        """The document."""

    def is_fresh(self) -> bool:
        """Tell whether the store has confirmed the document of late."""


class ReadyResource(ResponseResource):
    """Says `ok` while every document is fresh, `ending` when this server is about to end, and else `stale`.

    The status is for load balancers and so answers another question: 200 as long as every document can be served, old
    or not, and this server stays. Where the store is away all servers are stale, and taking them all out would leave
    readers nothing.
    """

    def __init__(self, supplies: Sequence[ServedDocument]) -> None:
        super().__init__()
        self._supplies = supplies
        #: Whether the server is about to end. Who asks on a new connection finds none any more; this is for those who
        #: keep theirs. A reload is no end: whoever comes anew is served.
        self.ending = False

    def respond(self, request: Request) -> Response:
        """Look at every document."""
        if self.ending:
            status, body = 503, b"ending\n"
        else:
            body = b"ok\n" if all(supply.is_fresh() for supply in self._supplies) else b"stale\n"
            status = 200 if all(supply.document.snapshot is not None for supply in self._supplies) else 503
        return unstored(status, body, b"text/plain; charset=utf-8")
