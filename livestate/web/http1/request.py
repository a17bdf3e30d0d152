"""A request of twisted.web's, whose body is read past and whose answer names neither the software nor its faults."""

from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from livestate.web.responses.response import problem


class LiveRequest(Request):
    """What twisted.web's parser makes of a request that the fast path left to it."""

    log = Logger()

    channel: Any

    def gotLength(self, length: int | None) -> None:
        """Make no room for a body: none is asked for here, and a large one must cost no memory."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Let go of a piece of the body."""

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a field of the answer; but not Server, which twisted.web fills with its version."""
        if name != b"Server":
            super().setHeader(name, value)

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500 where livestate itself is at fault: the log is told why, and the client is not."""
        self.log.failure("a request could not be answered", reason)
        if self.startedWriting or self.finished:
            # What was sent already must not look like a whole answer.
            self.channel.abortConnection()
        else:
            date = self.responseHeaders.getRawHeaders(b"Date", [])
            self.responseHeaders = Headers({b"Date": date})
            problem(500, "The server met a fault of its own.").write_to(self)
        return reason


def wants_patches(request: HTTPRequest) -> bool:
    """Tell whether a reader of changes takes merge patches: `?delta=merge`."""
    return request.args is not None and request.args.get(b"delta") == [b"merge"]


def field(request: HTTPRequest, name: bytes) -> bytes | None:
    """Give a request's field, its lines joined as one (RFC 9110 section 5.3), or None where there is none."""
    lines = request.requestHeaders.getRawHeaders(name)
    return None if lines is None else b", ".join(lines)
