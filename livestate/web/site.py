"""The public site: which path is what, and what every answer has in common."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from livestate.logs import LogFile
from livestate.web.response import Response, problem


class LiveRequest(Request):
    """A request whose body is read past, and whose answer does not name the software."""

    def gotLength(self, length: int | None) -> None:
        """Make no room for a body: none is asked for here, and a large one must cost no memory."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Let go of a piece of the body."""

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a field of the answer; but not Server, which twisted.web fills with its version."""
        if name != b"Server":
            super().setHeader(name, value)


class Fixed(Resource):
    """A resource that always gives the same answer."""

    isLeaf = True

    def __init__(self, response: Response) -> None:
        super().__init__()
        self._response = response

    def render(self, request: HTTPRequest) -> int:
        """Answer."""
        self._response.write_to(request)
        return NOT_DONE_YET


class LiveSite(Site):
    """A site of a few known paths."""

    requestFactory = LiveRequest
    #: Whether Twisted logs that it starts and stops this factory.
    noisy = False
    #: Lines of the access log go here, in the combined format, where one is wanted.
    access_log: LogFile | None = None

    def __init__(self, resources: Mapping[bytes, IResource], reactor: Any) -> None:
        """:param resources: what is served, by exact path."""
        # 60 s of silence end a connection: twice the second that readers usually wait is far too little for those
        # who poll slowly, and each idle connection costs 3 KB.
        super().__init__(Resource(), reactor=reactor, timeout=60, parsePOSTFormSubmission=False)
        self._resources = resources

    def getResourceFor(self, request: HTTPRequest) -> IResource:
        """Find what answers `request`.

        An HTTP/1.1 request without exactly one Host field is refused (RFC 9112 section 3.2).
        """
        hosts = request.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) != 1 and (hosts or request.clientproto == b"HTTP/1.1"):
            return Fixed(problem(400, "A request has one Host field."))
        resource = self._resources.get(path_of(request.uri))
        if resource is None:
            return Fixed(problem(404, "There is nothing at this path."))
        return resource

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 only in TLS: twisted.web's HTTP/2 costs four times as much CPU a request (540 µs)."""
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """Write one line to the access log, if there is one."""
        if self.access_log is not None:
            self.access_log.write(self._logFormatter(self._logDateTime, request) + "\n")


def path_of(target: bytes) -> bytes:
    """Give the path of a request target, without query, percent-decoded; also of one in absolute form.

    A server accepts `GET http://host/path` too (RFC 9112 section 3.2.2).
    """
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        target = b"/" + rest.partition(b"/")[2] if b"/" in rest.partition(b"?")[0] else b"/"
    return unquote_to_bytes(target.partition(b"?")[0])
