"""A document that another server gives: `http://…`, `https://…`.

Asked with If-None-Match, so that an unchanged document costs the other server a 304. Certificates are verified
against the system's roots (or the file that SSL_CERT_FILE names). Redirects are not followed: a redirect would let
the other server point livestate at anything it can reach, and would cost a round trip each second; the error names
the new address instead.
"""

import re
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import treq
from treq.client import HTTPClient
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from livestate.errors import DocumentMissing, SettingsError, SourceError
from livestate.interfaces import ISource
from livestate.redaction import redacted
from livestate.sources import ATTEMPT_DELAY, port_of
from livestate.tls import client_options, tls_trouble


class _TooLarge(Exception):
    pass


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Connects as Twisted's Agent does, but without its long pause before a host's next address."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint = HostnameEndpoint(self._reactor, host, uri.port, attemptDelay=ATTEMPT_DELAY)
        return wrapClientTLS(client_options(host, None), endpoint) if uri.scheme == b"https" else endpoint


@implementer(ISource)
class HTTPSource:
    """Gets one URL."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Understand `url`; a user and password in it are sent as Basic authentication.

        :raises SettingsError: it names no host.
        """
        parts = urlsplit(url)
        port = port_of(parts)
        if not parts.hostname:
            raise SettingsError("it names no host")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        netloc = host if port is None else f"{host}:{port}"
        self._url = urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
        self._auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username is not None else None
        self._max_size = max_size
        self._name = redacted(url)
        self._pool = HTTPConnectionPool(reactor)
        # A kept connection that the other server has just closed is tried once more by the pool itself.
        self._client = HTTPClient(Agent.usingEndpointFactory(reactor, _Endpoints(reactor), self._pool))
        self._etag: bytes | None = None
        self._body = b""

    def __str__(self) -> str:
        return self._name

    async def fetch(self) -> bytes:
        """GET the URL."""
        headers = Headers({b"Accept": [b"application/json"], b"User-Agent": [b"livestate"]})
        if self._etag is not None:
            headers.setRawHeaders(b"If-None-Match", [self._etag])
        try:
            response = await self._client.get(
                self._url, headers=headers, auth=self._auth, allow_redirects=False, unbuffered=True
            )
            if response.code == 304 and self._etag is not None:
                return self._body
            body = await self._collect(response)
        except _TooLarge:
            raise SourceError(f"it has more than {self._max_size:,} bytes (--max-size)") from None
        except (ConnectError, ConnectionLost, DNSLookupError, ResponseFailed, ResponseNeverReceived) as error:
            raise SourceError(_reason(error)) from None
        if response.code in (404, 410):
            raise DocumentMissing(f"answered {response.code}")
        if response.code != 200:
            moved = response.headers.getRawHeaders(b"Location", [b""])[0]
            hint = f"; redirects are not followed, it points to {_shown(moved)}" if moved else ""
            raise SourceError(f"answered {response.code}{hint}")
        self._etag = response.headers.getRawHeaders(b"ETag", [None])[0]
        self._body = body
        return body

    def close(self) -> None:
        """Let go of kept connections."""
        self._pool.closeCachedConnections()

    async def _collect(self, response: Any) -> bytes:
        chunks: list[bytes] = []
        size = 0

        def take(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            if size > self._max_size:
                raise _TooLarge
            chunks.append(chunk)

        await treq.collect(response, take)
        return b"".join(chunks)


def _shown(location: bytes) -> str:
    """Give what the other server says as it can stand in a line of the log, whatever it says.

    Without its query: one that asks for a login likes to repeat there what it was asked, secrets included.
    """
    text = re.split(rb"[?#]", location[:500])[0].decode("utf-8", "replace")
    return redacted("".join(sign if sign.isprintable() else "\ufffd" for sign in text))


def _reason(error: Exception) -> str:
    """Give the first reason inside a failure, as one line."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _reason(reasons[0].value)
    return tls_trouble(error)
