"""An HTTP server, from the standard library, that documents are read from."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from twisted.trial.unittest import SynchronousTestCase


class _Handler(BaseHTTPRequestHandler):
    """Serves its server's `body` with an entity tag, and responds to conditional requests with 304."""

    protocol_version = "HTTP/1.1"
    server: "Upstream"

    def do_GET(self) -> None:
        upstream = self.server
        tag = f'"{hash(upstream.body)}"'
        unchanged = self.headers["If-None-Match"] == tag and upstream.status == 200
        upstream.statuses.append(304 if unchanged else upstream.status)
        body = b"" if unchanged else upstream.body
        upstream.hold.wait(10)
        self.send_response(upstream.statuses[-1])
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        for name, value in upstream.more.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Upstream(ThreadingHTTPServer):
    """The server. Its attributes say how it responds, and record how it has responded."""

    daemon_threads = True

    def __init__(self, case: SynchronousTestCase) -> None:
        """Start serving, until the end of the test."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = b'{"n":1}'
        self.status = 200
        self.more: dict[str, str] = {}
        self.statuses: list[int] = []
        #: While this is cleared, it accepts connections and does not respond.
        self.hold = threading.Event()
        self.hold.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        case.addCleanup(self.server_close)
        case.addCleanup(self.shutdown)

    def handle_error(self, *_: object) -> None:
        """Ignore clients that have closed the connection."""
