"""The resource that serves a document."""

from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET

from livestate.web.http1.request import field
from livestate.web.resources.long_poll import LongPolls, seconds_to_wait, with_preference_applied
from livestate.web.resources.resource import ResponseResource
from livestate.web.responses.responder import ALLOW, Responder
from livestate.web.responses.response import Response, problem
from livestate.web.responses.variant import Variant


class DocumentResource(ResponseResource):
    """Answers GET, HEAD and OPTIONS for one document, and holds each GET that asks to wait for a change."""

    def __init__(self, responder: Responder, polls: LongPolls | None = None) -> None:
        """:param polls: where requests are held; None: all are answered at once."""
        super().__init__()
        self.responder = responder
        self._polls = polls

    def render(self, request: Request) -> int:
        """Answer at once, or hold the request."""
        seconds = seconds_to_wait(request) if self._polls is not None else None
        if seconds is None or self._polls is None:
            return super().render(request)
        if_none_match = field(request, b"If-None-Match") or b""
        variant = self._variant(request)
        if seconds and variant.is_current(if_none_match):
            self._polls.hold(request, variant, if_none_match, seconds)
        else:
            with_preference_applied(variant.respond(if_none_match), seconds).write_to(request)
        return NOT_DONE_YET

    def respond(self, request: Request) -> Response:
        """Return the response to a request of any method."""
        method = request.method
        if method in (b"GET", b"HEAD"):
            return self._variant(request).respond(field(request, b"If-None-Match"), method == b"HEAD")
        if method == b"OPTIONS":
            return self.responder.preflight(field(request, b"Origin"))
        return problem(405, "A document allows GET, HEAD and OPTIONS.", (b"Allow", ALLOW))

    def _variant(self, request: Request) -> Variant:
        return self.responder.variant(field(request, b"Accept-Encoding"), field(request, b"Origin"))
