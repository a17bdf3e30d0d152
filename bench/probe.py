"""Checks of a peer before it is measured: whether it does the work that is compared, and if not, why."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from bench.peers.peer import PATH, Server
from bench.process import BenchError, Children, wait_until

# The three values of Accept-Encoding that browsers send, as in browser.lua.
ACCEPTS = ("gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate")


@dataclass(frozen=True)
class Answer:
    """A response, with header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(port: int, *, tls: bool = False, path: str = PATH, timeout: float = 5.0, **headers: str) -> Answer:
    """Send one request on a new connection. The argument `If_None_Match` is sent as `If-None-Match`."""
    connection: http.client.HTTPConnection
    if tls:
        # The certificate was created for this run, so there is nothing to verify it against.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        body = b"" if found.get("content-type", "").startswith("text/event-stream") else response.read()
        return Answer(response.status, found, body)
    finally:
        connection.close()


def wait_for(server: Server, children: Children) -> None:
    """Wait until each listener of the server answers with 200."""

    def ready(port: int, tls: bool) -> bool:
        if server.has_exited():
            raise BenchError(f"{server.peer} exited unexpectedly: {children.log(server.peer)}")
        try:
            answer = ask(port, tls=tls)
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200

    listening = [(port, tls) for tls in (False, True) if (port := server.port(tls)) is not None]
    wait_until(server.peer, lambda: all(ready(port, tls) for port, tls in listening), 20)


def document(server: Server, tls: bool) -> Answer:
    """Fetch the document, and check that it is JSON of the expected size, with a Content-Length."""
    port = server.port(tls)
    assert port is not None
    answer = ask(port, tls=tls)
    if answer.status != 200 or "content-length" not in answer.headers:
        raise BenchError(f"{server.peer}: status {answer.status}, headers {dict(answer.headers)}")
    if not 4000 < len(answer.body) < 5000 or "districts" not in json.loads(answer.body):
        raise BenchError(f"{server.peer}: {len(answer.body)} bytes that are not the document")
    return answer


def not_modified(server: Server, tls: bool) -> str | None:
    """Return the ETag for which this peer answers 304, or None if it never does."""
    port = server.port(tls)
    etag = document(server, tls).headers.get("etag")
    if etag is None or port is None or ask(port, tls=tls, If_None_Match=etag).status != 304:
        return None
    return etag


def codings(server: Server) -> tuple[str, ...]:
    """Return the content coding that this peer chooses for each browser's Accept-Encoding."""
    assert server.http is not None
    return tuple(
        ask(server.http, Accept_Encoding=accept).headers.get("content-encoding", "identity") for accept in ACCEPTS
    )
