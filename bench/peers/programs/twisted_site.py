"""The stock twisted.web peer: a Site with one Resource, on the reactor that Twisted chooses.

python twisted_site.py HTTP-ENDPOINT HTTPS-ENDPOINT DOCUMENT
"""

from __future__ import annotations

import hashlib
import sys

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.http import CACHED
from twisted.web.resource import Resource
from twisted.web.server import Request, Site


class State(Resource):
    """The document, with its ETag."""

    isLeaf = True

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body
        self.etag = b'"' + hashlib.sha256(body).hexdigest()[:16].encode() + b'"'

    def render_GET(self, request: Request) -> bytes:
        """Return the document, or an empty 304 response if the ETag matches."""
        request.setHeader(b"cache-control", b"public, max-age=1")
        if request.setETag(self.etag) is CACHED:
            return b""
        request.setHeader(b"content-type", b"application/json")
        return self.body


class QuietSite(Site):
    """A Site without an access log."""

    def log(self, request: object) -> None:
        """Do not log requests, like all other peers."""


def main() -> None:
    """Listen on both endpoints, and run the reactor."""
    *endpoints, document = sys.argv[1:]
    root = Resource()
    with open(document, "rb") as file:
        root.putChild(b"state.json", State(file.read()))
    for endpoint in endpoints:
        serverFromString(reactor, endpoint).listen(QuietSite(root, timeout=75))
    reactor.run()


if __name__ == "__main__":
    main()
