"""A request of twisted.web's, whose body is read past and whose answer does not name the software."""

from io import BytesIO
from typing import Any

from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request


class LiveRequest(Request):
    """What twisted.web's parser makes of a request that the fast path left to it."""

    def gotLength(self, length: int | None) -> None:
        """Make no room for a body: none is asked for here, and a large one must cost no memory."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Let go of a piece of the body."""

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a field of the answer; but not Server, which twisted.web fills with its version."""
        if name != b"Server":
            super().setHeader(name, value)


def wants_patches(request: HTTPRequest) -> bool:
    """Tell whether a reader of changes takes merge patches: `?delta=merge`."""
    return request.args is not None and request.args.get(b"delta") == [b"merge"]


def field(request: HTTPRequest, name: bytes) -> bytes | None:
    """Give a request's field, its lines joined as one (RFC 9110 section 5.3), or None where there is none."""
    lines = request.requestHeaders.getRawHeaders(name)
    return None if lines is None else b", ".join(lines)
