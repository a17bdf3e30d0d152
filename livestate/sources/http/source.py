"""A document from another HTTP server: `http://…`, `https://…`.

Requests carry If-None-Match, so that an unchanged document costs the other server only a 304. Certificates are verified
against the system's roots, or the file that SSL_CERT_FILE names. Redirects are not followed: a redirect would let the
other server point livestate at anything that livestate can reach, and would cost a round trip every second. The error
message names the new address instead.
"""

import base64
import re
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from hyperlink import URL
from twisted.web.http_headers import Headers
from zope.interface import implementer

from livestate.config.redaction import redacted
from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.sources.api import ISource
from livestate.sources.http.connection import HTTPConnections
from livestate.sources.url import port_of


@implementer(ISource)
class HTTPSource:
    """Fetches one URL."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Parse `url`. A user and password in it are sent as Basic authentication.

        :raises SettingsError: when it has no host.
        """
        parts = urlsplit(url)
        port = port_of(parts)
        if not parts.hostname:
            raise SettingsError("the URL has no host")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        netloc = host if port is None else f"{host}:{port}"
        self._url = _encoded(urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")))
        self._fields = {b"Accept": [b"application/json"], b"User-Agent": [b"livestate"]}
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._fields[b"Authorization"] = [b"Basic " + base64.b64encode(credentials)]
        self._name = redacted(url)
        self._connections = HTTPConnections(reactor, max_size)
        self._etag: bytes | None = None
        self._body = b""

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """GET the URL."""
        headers = Headers(self._fields)
        if self._etag is not None:
            headers.setRawHeaders(b"If-None-Match", [self._etag])
        response, body = await self._connections.get(self._url, headers)
        if response.code == 304 and self._etag is not None:
            return self._body
        if response.code in (404, 410):
            raise DocumentMissing(f"answered {response.code}")
        if response.code != 200:
            location = response.headers.getRawHeaders(b"Location", [b""])[0]
            hint = f"; redirects are not followed (Location: {_displayable(location)})" if location else ""
            raise SourceError(f"answered {response.code}{hint}")
        self._etag = response.headers.getRawHeaders(b"ETag", [None])[0]
        self._body = body
        return body

    def close(self) -> None:
        """Close the persistent connections."""
        self._connections.close()


def _displayable(location: bytes) -> str:
    """Return a Location in a form that is safe to log, whatever it contains.

    The query is left out: a server that asks for a login often repeats the requested URL there, secrets included.
    """
    text = re.split(rb"[?#]", location[:500])[0].decode("utf-8", "replace")
    return redacted("".join(char if char.isprintable() else "\ufffd" for char in text))


def _encoded(url: str) -> bytes:
    """Return `url` with all non-ASCII characters encoded.

    :raises SettingsError: when the host name or the URL is not valid.
    """
    try:
        return URL.from_text(url).to_uri().to_text().encode("ascii")
    except ValueError:
        raise SettingsError("invalid host name or URL") from None
