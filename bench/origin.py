"""The origin server behind the cache (Varnish). It serves the document, which changes every second.

It runs in the bench's own process on the load core. The cache requests it once a second, so that caching is measured.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench import document
from bench.store import Store


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Origin

    def do_GET(self) -> None:
        version = self.server.store.version if self.server.changing else 0
        etag = f'"{version:016x}"'
        body = b"" if self.headers.get("If-None-Match") == etag else document.render(version, 10**18)
        self.send_response(200 if body else 304)
        self.send_header("ETag", etag)
        self.send_header("Cache-Control", "public, max-age=1")
        if body:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests, like all other servers here."""


class Origin(ThreadingHTTPServer):
    """Listens while its `with` block runs."""

    daemon_threads = True

    def __init__(self, store: Store, changing: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.changing = changing
        self.port: int = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    def __enter__(self) -> Origin:
        self.thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join(timeout=5)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: a cache drops its connections when it is stopped."""
