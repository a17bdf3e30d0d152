"""The public site: which resource is at which path."""

from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from livestate.system.logs import LogFile
from livestate.web.admission import Admission
from livestate.web.http1.access_log import AccessLog
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.connections import Connections
from livestate.web.http1.fast_request import Responders
from livestate.web.http1.logged_channel import LoggedChannel
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.response import Response, problem


class Resources(Protocol):
    """The resources of a site, by path: a mapping, or something that makes what is asked for."""

    def get(self, path: bytes, /) -> IResource | None:
        """Return the resource at `path`, or None if there is none."""


class FixedResource(ResponseResource):
    """A resource whose response is always the same."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self._response = response

    def respond(self, request: HTTPRequest) -> Response:
        """Return the fixed response."""
        return self._response


class LiveSite(Site):
    """A site whose resources are looked up by exact path."""

    #: Whether Twisted logs that this factory starts and stops.
    noisy = False
    #: The name of the site in the log.
    name = "documents"

    def __init__(self, resources: Resources, reactor: Any, responders: Responders | None = None) -> None:
        """Create a site.

        :param resources: the resources, by exact path.
        :param responders: the documents among them that are served on the fast path, by path; None: twisted.web parses
            every request.
        """
        super().__init__(Resource(), reactor=reactor, timeout=None, parsePOSTFormSubmission=False)
        self._resources = resources
        self.connections = Connections(reactor, {} if responders is None else responders)
        self._admission: Admission | None = None

    def logPrefix(self) -> str:
        """Return the name of the site in Twisted's log lines about starting and stopping."""
        return self.name

    def limit(self, admission: Admission) -> None:
        """Accept only the connections that `admission` admits; to be called before there are connections."""
        self._admission = admission
        self.connections.open = admission.open

    def log_to(self, file: LogFile) -> None:
        """Write an access log to `file`; to be called before there are connections."""
        self.connections.access_log = AccessLog(file, lambda: self._logDateTime or "-")

    def buildProtocol(self, addr: Any) -> Any:
        """Return a channel for a new connection, or None if the connection is to be closed at once."""
        if self._admission is not None and not self._admission.admits(addr):
            return self._admission.refusal()
        log = self.connections.access_log
        return LiveChannel(self, self.connections) if log is None else LoggedChannel(self, self.connections, log)

    def has_room(self, waiting: int) -> bool:
        """Return whether another connection can be accepted, in addition to `waiting` that are not open yet.

        If not, the refusal is counted.
        """
        return self._admission is None or self._admission.has_room(waiting)

    def getResourceFor(self, request: HTTPRequest) -> IResource:
        """Return the resource that answers `request`.

        An HTTP/1.1 request without exactly one Host field is refused (RFC 9112 section 3.2), and requests behind it are
        not answered.
        """
        hosts = request.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) != 1 and (hosts or request.clientproto == b"HTTP/1.1"):
            request.channel.persistent = False
            return FixedResource(problem(400, "A request has one Host field.", (b"Connection", b"close")))
        resource = self._resources.get(path_of(request.uri))
        if resource is None:
            return FixedResource(problem(404, "There is nothing at this path."))
        return resource

    def acceptableProtocols(self) -> list[bytes]:
        """Offer only HTTP/1.1 over TLS: twisted.web's HTTP/2 costs four times as much CPU per request (540 µs)."""
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """Log a request that twisted.web has answered, if there is an access log."""
        if self.connections.access_log is not None:
            self.connections.access_log.write(request)


def path_of(target: bytes) -> bytes:
    """Return the path of a request target, percent-decoded and without the query.

    The target may be in absolute form: a server accepts `GET http://host/path` too (RFC 9112 section 3.2.2).
    """
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        target = b"/" + rest.partition(b"/")[2] if b"/" in rest.partition(b"?")[0] else b"/"
    return unquote_to_bytes(target.partition(b"?")[0])
