"""twisted.web's request, which ignores bodies and whose responses reveal neither the software nor internal errors."""

from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from livestate.web.responses.response import problem


class LiveRequest(Request):
    """A request that twisted.web parsed because it is not on the fast path."""

    log = Logger()

    channel: Any

    def gotLength(self, length: int | None) -> None:
        """Allocate nothing for the body: none is expected, and a large one must cost no memory."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Discard a piece of the body."""

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a field of the response, except Server, which twisted.web sets to its version."""
        if name != b"Server":
            super().setHeader(name, value)

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500 after an internal error. The error is logged, but not revealed to the client."""
        self.log.failure("could not answer a request; answering 500", reason)
        if self.startedWriting or self.finished:
            # A partial response must not look complete.
            self.channel.abortConnection()
        else:
            date = self.responseHeaders.getRawHeaders(b"Date", [])
            self.responseHeaders = Headers({b"Date": date})
            problem(500, "The server encountered an internal error.").write_to(self)
        return reason


def wants_patches(request: HTTPRequest) -> bool:
    """Return whether a subscriber accepts merge patches: `?delta=merge`."""
    return request.args is not None and request.args.get(b"delta") == [b"merge"]


def field(request: HTTPRequest, name: bytes) -> bytes | None:
    """Return the value of a request's field, with repeated lines joined (RFC 9110 section 5.3), or None."""
    lines = request.requestHeaders.getRawHeaders(name)
    return None if lines is None else b", ".join(lines)
