"""The public site: which path is what, and what all its connections share."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from livestate.system.logs import LogFile
from livestate.web.admission import Admission
from livestate.web.http1.access_log import Entry, entry_of, line_of_plain, line_of_request
from livestate.web.http1.channel import LiveChannel
from livestate.web.http1.fair_scheduler import FairScheduler
from livestate.web.http1.fast_request import RequestMemo
from livestate.web.http1.logged_channel import LoggedChannel
from livestate.web.http1.response_memo import ResponseMemo
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.responder import Responder
from livestate.web.responses.response import Response, problem


class FixedResource(ResponseResource):
    """A resource that always gives the same answer."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self._response = response

    def respond(self, request: HTTPRequest) -> Response:
        """Give it."""
        return self._response


class LiveSite(Site):
    """A site of a few known paths."""

    #: Whether Twisted logs that it starts and stops this factory.
    noisy = False
    #: What it is called in the log.
    name = "documents"
    #: Lines of the access log go here, where one is wanted.
    access_log: LogFile | None = None
    #: Says who may connect, where that is not everyone.
    admission: Admission | None = None

    def __init__(
        self, resources: Mapping[bytes, IResource], reactor: Any, responders: Mapping[bytes, Responder] | None = None
    ) -> None:
        """Make a site.

        :param resources: what is served, by exact path.
        :param responders: the documents among them, by path, to be answered the short way; none: all goes through
            twisted.web.
        """
        super().__init__(Resource(), reactor=reactor, timeout=None, parsePOSTFormSubmission=False)
        self._resources = resources
        self.responders = responders or {}
        self.memo = RequestMemo()
        self.prepared = ResponseMemo()
        self.turns = FairScheduler(reactor)
        for responder in self.responders.values():
            responder.before_renewal = self.prepared.renew
        #: Whether each connection's next answer is its last.
        self.draining = False
        #: The open connections.
        self.channels: set[LiveChannel] = set()
        #: How many connections there were, and how many TLS handshakes; of these, how many took up an earlier session.
        self.accepted = 0
        self.handshakes = 0
        self.resumptions = 0

    def logPrefix(self) -> str:
        """Name it in Twisted's lines of what starts and stops."""
        return self.name

    def limit(self, admission: Admission) -> None:
        """Let only those connect whom `admission` admits; before there are any connections."""
        self.admission = admission
        self.channels = admission.channels

    def buildProtocol(self, addr: Any) -> Any:
        """Give a new connection its channel; None where it is to be closed at once."""
        if self.admission is not None and not self.admission.admits(addr):
            return self.admission.refusal()
        return LiveChannel(self) if self.access_log is None else LoggedChannel(self)

    def drain(self) -> None:
        """Have each connection's next answer be its last."""
        self.draining = True
        for channel in self.channels:
            channel.drain()

    def getResourceFor(self, request: HTTPRequest) -> IResource:
        """Find what answers `request`.

        An HTTP/1.1 request without exactly one Host field is refused (RFC 9112 section 3.2), and nothing is answered
        behind it.
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
        """Offer HTTP/1.1 only in TLS: twisted.web's HTTP/2 costs four times as much CPU a request (540 µs)."""
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """Write one line to the access log, if there is one."""
        if self.access_log is not None:
            self.access_log.write(line_of_request(request, self._logDateTime or "-"))

    def entry(self, request: HTTPRequest) -> Entry | None:
        """Give what is to be logged of a request in the end, for `log_entry`; None where nothing is logged."""
        return entry_of(request) if self.access_log is not None else None

    def log_entry(self, entry: Entry | None, status: int, length: int) -> None:
        """Write one line to the access log for what `entry` gave, if there is a log."""
        if entry is not None and self.access_log is not None:
            self.access_log.write(entry.line(self._logDateTime or "-", status, length))

    def log_plain(self, host: str, data: bytes, response: Response) -> None:
        """Write one line to the access log for the plain request `data`, answered the short way."""
        if self.access_log is not None:
            when = self._logDateTime or "-"
            self.access_log.write(line_of_plain(host, when, data, response.status, len(response.body)))


def path_of(target: bytes) -> bytes:
    """Give the path of a request target, without query, percent-decoded; also of one in absolute form.

    A server accepts `GET http://host/path` too (RFC 9112 section 3.2.2).
    """
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        target = b"/" + rest.partition(b"/")[2] if b"/" in rest.partition(b"?")[0] else b"/"
    return unquote_to_bytes(target.partition(b"?")[0])
