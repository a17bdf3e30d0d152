"""A resource that answers with a Response."""

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from livestate.web.responses.response import Response


class ResponseResource(Resource):
    """Answers every request at once, with what `respond` gives."""

    isLeaf = True

    def respond(self, request: Request) -> Response:
        """Give the answer to `request`, whatever its method."""
        raise NotImplementedError

    def render(self, request: Request) -> int:
        """Answer."""
        self.respond(request).write_to(request)
        return NOT_DONE_YET
