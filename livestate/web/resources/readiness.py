"""The public readiness check, `/_live/ready`: its body is one word."""

from collections.abc import Sequence
from typing import Protocol

from twisted.web.http import Request

from livestate.documents.document import Document
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Response, unstored


class ServedDocument(Protocol):
    """A document and what keeps it up to date: a Poller, or a worker's feed from another process."""

    @property
    def document(self) -> Document:
        """The document."""

    def is_fresh(self) -> bool:
        """Return whether the store has confirmed the document recently."""


class ReadyResource(ResponseResource):
    """Answers `ok` while every document is fresh, `ending` while this server is shutting down, and otherwise `stale`.

    The status is for load balancers, and answers a different question: it is 200 as long as every document can be
    served, fresh or not, and the server is not shutting down. When the store is down, all servers are stale; if load
    balancers took them all out, clients would get nothing.
    """

    def __init__(self, documents: Sequence[ServedDocument]) -> None:
        super().__init__()
        self._documents = documents
        #: Whether the server is shutting down. Only checks on persistent connections see it, since new ones are refused
        #: by then. A reload is not a shutdown: new connections are served.
        self.stopping = False

    def respond(self, request: Request) -> Response:
        """Check every document, and return the response."""
        if self.stopping:
            status, body = 503, b"ending\n"
        else:
            body = b"ok\n" if all(served.is_fresh() for served in self._documents) else b"stale\n"
            status = 200 if all(served.document.snapshot is not None for served in self._documents) else 503
        return unstored(status, body, b"text/plain; charset=utf-8")
