"""A response as a value: status, fields and body. It can be written by twisted.web or sent as one bytes object."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.web.http import RESPONSES
from twisted.web.http import Request as HTTPRequest

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response.

    The names in `fields` are spelled as twisted.web spells them (`ETag`, `Content-Type`), so that `write_to` and `wire`
    yield the same bytes.
    """

    status: int
    fields: Fields
    body: bytes = b""

    @property
    def label(self) -> str:
        """The name under which it is counted: the content coding of a 200, else the status."""
        if self.status != 200:
            return str(self.status)
        return next((value.decode() for name, value in self.fields if name == b"Content-Encoding"), "identity")

    def write_to(self, request: HTTPRequest) -> None:
        """Write this response to a twisted.web request, without the body for a HEAD, and finish the request."""
        request.setResponseCode(self.status, _phrase(self.status))
        for name, value in self.fields:
            request.responseHeaders.setRawHeaders(name, [value])
        # HEAD: the same fields as for GET, and no body (RFC 9110 section 9.3.2). An empty write sends the head.
        request.write(b"" if request.method == b"HEAD" else self.body)
        request.finish()

    def wire(self) -> bytes:
        """Return the bytes of the whole response, in HTTP/1.1 on a persistent connection."""
        head = b"".join(b"%b: %b\r\n" % field for field in self.fields)
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (self.status, _phrase(self.status), head, self.body)


def _phrase(status: int) -> bytes:
    # Twisted's phrases first, which the rest of twisted.web writes. It has none for 426.
    return RESPONSES.get(status) or HTTPStatus(status).phrase.encode("ascii")


def with_connection_close(wire: bytes) -> bytes:
    """Return a response's bytes with `Connection: close` added as the first field, where twisted.web puts it."""
    status_line, _, rest = wire.partition(b"\r\n")
    return b"%b\r\nConnection: close\r\n%b" % (status_line, rest)


def problem(status: int, detail: str, *more: tuple[bytes, bytes]) -> Response:
    """Return an error response: a problem document (RFC 9457) of type `about:blank`, whose title is the status phrase.

    :param more: additional fields.
    """
    content: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return unstored(status, msgspec.json.encode(content), b"application/problem+json", *more)


def unstored(status: int, body: bytes, content_type: bytes, *more: tuple[bytes, bytes]) -> Response:
    """Return a response that caches must not store.

    :param more: additional fields.
    """
    return Response(
        status,
        (
            (b"Content-Type", content_type),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
            *more,
        ),
        body,
    )
