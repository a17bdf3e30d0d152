"""Requests to upgrade to WebSocket (RFC 9110 section 7.8, RFC 6455 section 4)."""

from collections.abc import Container

from twisted.web.http import Request

from livestate.formats.negotiation import may_connect
from livestate.web.http1.request import field
from livestate.web.responses.response import Response, problem

#: The only supported version of the protocol: RFC 6455's.
VERSION = b"13"

#: The response where Autobahn is not installed. Not the event stream: a WebSocket client could not use it.
NOT_INSTALLED = "WebSocket is not installed on this server: pip install 'livestate[websocket]'."


def wants_websocket(request: Request) -> bool:
    """Return whether a GET asks to upgrade to WebSocket; in HTTP/1.0 an Upgrade is ignored (RFC 9110 section 7.8)."""
    upgrade = field(request, b"Upgrade") if request.clientproto == b"HTTP/1.1" else None
    return upgrade is not None and b"websocket" in (name.strip(b" \t").lower() for name in upgrade.split(b","))


def refusal(request: Request, origins: Container[bytes]) -> Response | None:
    """Return the response to a handshake of another version or of a page that may not connect; None for any other.

    Browsers do not apply CORS to WebSocket, so the server has to check the origin (RFC 6455 section 10.2).
    """
    if field(request, b"Sec-WebSocket-Version") != VERSION:
        # RFC 6455 section 4.2.2: an error response names the supported versions.
        supported = (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", VERSION)
        return problem(426, "The supported version of WebSocket is 13.", *supported)
    if not may_connect(field(request, b"Origin"), field(request, b"Host") or b"", origins):
        return problem(403, "Pages of this origin may not read the document.")
    return None
