"""twisted.web's request, without its body, and with responses that reveal neither the software nor its faults."""

from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from livestate.web.responses.response import problem


class LiveRequest(Request):
    """What twisted.web's parser makes of a request that is not on the fast path."""

    log = Logger()

    channel: Any

    def gotLength(self, length: int | None) -> None:
        """Reserve nothing for a body: none is expected here, and a large one must cost no memory."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Discard a piece of the body."""

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a field of the response; but not Server, which twisted.web fills with its version."""
        if name != b"Server":
            super().setHeader(name, value)

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500 where livestate itself is at fault: the reason is logged, and not revealed to the client."""
        self.log.failure("could not answer a request; answering 500", reason)
        if self.startedWriting or self.finished:
            # What was sent already must not look like a whole response.
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
    """Return the value of a request's field, its lines joined as one (RFC 9110 section 5.3); None: no such field."""
    lines = request.requestHeaders.getRawHeaders(name)
    return None if lines is None else b", ".join(lines)
