"""The resource of a document: methods and fields of a request to one of the Responder's answers."""

from twisted.web.http import Request

from livestate.web.request import field
from livestate.web.resource import ResponseResource
from livestate.web.responder import ALLOW, Responder
from livestate.web.response import Response, problem


class DocumentResource(ResponseResource):
    """Answers GET, HEAD and OPTIONS for one document."""

    def __init__(self, responder: Responder) -> None:
        super().__init__()
        self.responder = responder

    def respond(self, request: Request) -> Response:
        """Answer by method."""
        method = request.method
        if method in (b"GET", b"HEAD"):
            variant = self.responder.variant(field(request, b"Accept-Encoding"), field(request, b"Origin"))
            return variant.answer(field(request, b"If-None-Match"))
        if method == b"OPTIONS":
            return self.responder.preflight(field(request, b"Origin"))
        return problem(405, "A document can be read: GET, HEAD and OPTIONS.", (b"Allow", ALLOW))
