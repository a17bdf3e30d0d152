"""An HTTP client for tests, from the standard library, so that it shares no code with livestate."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.codings import DECODERS

#: Seconds that a response may take, also one that waits for a server to start on a busy machine.
TIMEOUT = 20.0


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    #: In the order received.
    fields: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        return ", ".join(value for field, value in self.fields if field.lower() == name.lower())

    @property
    def document(self) -> bytes:
        """The body without its content coding."""
        document: bytes = DECODERS[self["Content-Encoding"] or "identity"](self.body)
        return document

    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return json.loads(self.document)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


class Client:
    """One persistent connection, which is made again after the server has closed it."""

    def __init__(self, url: str, cafile: Path | None = None, source: str = "") -> None:
        """Connect at the first request.

        :param url: `http://host:port`, `https://host:port` or `unix:/path`.
        :param source: the address to connect from.
        """
        parts = urlsplit(url)
        address = (source, 0) if source else None
        self._connection: http.client.HTTPConnection
        if parts.scheme == "unix":
            self._connection = _UnixConnection(parts.path)
        elif parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(cafile))
            self._connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=TIMEOUT, source_address=address, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=TIMEOUT, source_address=address
            )

    def get(self, path: str = "/", method: str = "GET", **fields: str) -> Answer:
        """Send a request, and return the response. Underscores in the names of fields stand for dashes."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        # Without it, http.client sends `Accept-Encoding: identity` of its own.
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        response = self._connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def get(url: str, path: str = "/", method: str = "GET", **fields: str) -> Answer:
    """Send a request on a new connection, and return the response."""
    client = Client(url)
    try:
        return client.get(path, method, **fields)
    finally:
        client.close()


def resumptions(port: int, context: ssl.SSLContext, times: int) -> list[bool]:
    """Send requests on new TLS connections, each with the session of the previous one. Return which were resumed."""
    session, resumed = None, []
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as raw:
            with context.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                while connection.recv(65536):
                    pass
                resumed.append(bool(connection.session_reused))
                session = connection.session
    return resumed
