"""No two parties disagree on where a request ends: nginx and HAProxy, which keep connections to livestate, and it."""

import re
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import get
from tests.integration.processes import Child, folder_for, free_port, program_of, until
from tests.integration.servers import Livestate
from tests.web.http1.test_smuggling import AMBIGUOUS, BEHIND, VALID

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
events {{ }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format sent '$upstream_status "$request"';
    access_log {folder}/sent.log sent;
    upstream livestate {{ server 127.0.0.1:{livestate}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        client_header_timeout 2s; client_body_timeout 2s;
        location / {{
            proxy_pass http://livestate; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_next_upstream off;
        }}
    }}
}}
"""

HAPROXY = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format '%ST/%s "%HM %HU %HV"'
    timeout client 2s
    timeout connect 2s
    timeout server 10s
    http-reuse always
    retries 0
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server livestate 127.0.0.1:{livestate}
"""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d\d\d) ")

#: A document, so that an answer to an honest reader's request is known by it.
DOCUMENT = b'{"honest": true}'


class SmugglingFrontsTests(SynchronousTestCase):
    """Everything that may be taken for two requests, sent through a proxy that honest readers use too."""

    def nginx(self, folder: Path, port: int, livestate: int) -> Callable[[], list[tuple[str, str]]]:
        """Start nginx; give what tells which requests it sent on, with the status of each answer."""
        config = folder / "nginx.conf"
        text = NGINX.format(folder=folder, port=port, livestate=livestate)
        config.write_text(text)
        self.start(folder, port, "nginx", "-e", folder / "error.log", "-c", config)
        # An upstream of which nothing was asked has no status.
        return lambda: re.findall(r'^(\d\d\d) "([^"]*)"', (folder / "sent.log").read_text(), re.MULTILINE)

    def haproxy(self, folder: Path, port: int, livestate: int) -> Callable[[], list[tuple[str, str]]]:
        """Start HAProxy; the same."""
        config = folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=port, livestate=livestate))
        child = self.start(folder, port, "haproxy", "-db", "-f", config)
        return lambda: re.findall(r'^(\d\d\d|-1)/livestate "([^"]*)"', child.output, re.MULTILINE)

    def start(self, folder: Path, port: int, name: str, *arguments: str | Path) -> Child:
        """Start a front and wait for it."""
        child = Child(self, [program_of(name), *arguments], folder)
        self.addCleanup(child.stop)

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
            return True

        child.wait_for(listens, name)
        return child

    def attack(self, port: int, number: int, stream: bytes) -> list[bytes]:
        """Send a stream, and what may be smuggled behind it; give the answers' statuses."""
        data = b""
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            try:
                sock.sendall(stream + BEHIND.replace(b"/behind", b"/smuggled/%d" % number))
                sock.settimeout(2)
                while piece := sock.recv(65536):
                    data += piece
                    # Two are all that there can be; one that closes ends by itself.
                    if len([status for status in _STATUS.findall(data) if status != b"100"]) >= 2:
                        sock.settimeout(0.05)
            except OSError:
                pass
        return [status for status in _STATUS.findall(data) if status != b"100"]

    def probe(self, port: int) -> None:
        """Be an honest reader, whose request goes over the same connection to livestate."""
        answer = get(f"http://127.0.0.1:{port}", "/honest")
        self.assertEqual(answer.status, 404)
        answer = get(f"http://127.0.0.1:{port}", "/")
        self.assertEqual((answer.status, answer.body), (200, DOCUMENT))

    def through(self, start: Callable[[Path, int, int], Callable[[], list[tuple[str, str]]]]) -> None:
        """Send all through one front, and compare what it sent on with what livestate answered."""
        folder, port = folder_for(self), free_port()
        folder.chmod(0o755)
        log = folder / "access.log"
        (folder / "document.json").write_bytes(DOCUMENT)
        service = Livestate(self, f"--source=file:{folder}/document.json", f"--access-log={log}")
        service.until_served()
        sent = start(folder, port, int(service.http.rpartition(":")[2]))
        answers = 0
        for number, stream in enumerate([*AMBIGUOUS.values(), *VALID.values()]):
            answers += len(self.attack(port, number, stream))
            self.probe(port)
        marker = "GET /last HTTP/1.1"
        get(f"http://127.0.0.1:{port}", "/last")
        until(lambda: marker in log.read_text(), "livestate has logged all")
        until(lambda: any(request == marker for _, request in sent()), "the front has logged all")
        seen = Counter(self.path(request) for request in re.findall(r'\] "([^"]*)" \d', log.read_text()))
        believed, answered = Counter[str](), Counter[str]()
        for status, request in sent():
            believed[self.path(request)] += 1
            # What twisted.web refuses while it parses is not logged. A target in absolute form is sent on in another.
            if status not in ("400", "-1") and self.path(request).startswith("/"):
                answered[self.path(request)] += 1
        # Two requests of each probe are the honest reader's, and the last is ours. Others the front answered itself.
        self.assertGreaterEqual(answers, sum(believed.values()) - 2 * believed["/honest"] - 1)
        # We asked for the document ourselves.
        del seen["/"], answered["/"]
        self.assertEqual(seen - believed, {}, "livestate took for a request what the front did not")
        self.assertEqual(answered - seen, {}, "the front had an answer that livestate gave to something else")
        # It was worth it: many went through.
        self.assertGreater(len(answered), 20)

    @staticmethod
    def path(request: str) -> str:
        """Give a logged request's path."""
        return request.split(" ")[1] if request.count(" ") else request

    def test_both(self):
        """Whatever is sent, livestate answers the requests that the proxy sent on, each in its place, and no other."""
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(self.through, (self.nginx, self.haproxy)):
                pass
