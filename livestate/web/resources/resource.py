"""A twisted.web resource that answers with a Response."""

from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from livestate.web.responses.response import Response


class ResponseResource(Resource):
    """A resource that answers every request at once, with the Response that `respond` returns."""

    isLeaf = True

    def respond(self, request: Request) -> Response:
        """Return the response to `request`, whatever its method."""
        raise NotImplementedError

    def render(self, request: Request) -> int:
        """Write the response."""
        self.respond(request).write_to(request)
        return NOT_DONE_YET
