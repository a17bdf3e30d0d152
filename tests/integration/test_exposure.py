"""What is seen of livestate from outside, and by others on its machine: the documents, and nothing behind them."""

import contextlib
import itertools
import os
import socket
import ssl
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import livestate
import twisted
from tests.integration.http import Client
from tests.integration.processes import children, folder_for, free_port, until
from tests.integration.servers import Livestate

#: Bytes that a client may send: well-formed and not, for what is there and what is not.
REQUESTS = (
    *(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % pair for pair in itertools.product(
        (b"GET", b"HEAD", b"POST", b"OPTIONS", b"TRACE", b"CONNECT", b"BREW"),
        (b"/", b"/a.json", b"/down", b"/down/events", b"/a.json/events", b"/_live", b"/_live/", b"/_live/ready", b"*", b"//",
         b"/_live/nothing", b"/status", b"/metrics", b"/health", b"http://other/", b"/%ff%00"))),
    b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /a.json HTTP/1.0\r\n\r\n",
    b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 600 + b"\r\n", b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 20_000),
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\nx",
    b"GET /a.json HTTP/1.1\r\nHost: a\r\nIf-None-Match: ,\xff\r\nAccept-Encoding: \xff;q=x\r\nPrefer: wait=x\r\n\r\n",
    b"GET /a.json HTTP/1.1\r\nHost: a\r\nAccept-Encoding: identity;q=0, x\r\n\r\n",
    *(b"GET /a.json/events HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n%b\r\n" % fields for fields in
      (b"", b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n", b"Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: x\r\n",
       b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: x\r\n")),
)  # fmt: skip

#: Paths that lead out of a folder, were there one.
CLIMBERS = (
    "/../secret.json", "/a.json/../secret.json", "/%2e%2e/secret.json", "/..%2fsecret.json", "/a.json%00.html", "/secret.json",
    "/_live/../secret.json", "/_live/..%2f..%2fserver.pem", "/_live/%2e%2e/%2e%2e/live.toml", "/_live/../site.py", "/./a.json",
    "//a.json", "/a.json/", "/file:secret.json", "/a.json?path=secret.json&file=secret.json&key=secret", "/_live/index.html/../../x",
    "/_live/__init__.py", "/static/viewer.js", "/server.pem", "/live.toml", "/twistd.pid", "/state/%2F.saved", "/..;/secret.json",
    "/\\..\\secret.json",
)  # fmt: skip


class ExposureTests(SynchronousTestCase):
    """Two workers that serve a file, and documents from stores that are not there, whose passwords they know."""

    def setUp(self):
        self.folder = folder_for(self)
        (self.folder / "a.json").write_text('{"open": true}')
        (self.folder / "secret.json").write_text('{"concealed": true}')
        self.store = free_port()
        sources = {
            "/": f"redis://me:hush@127.0.0.1:{self.store}/0?key=results",
            "/down": f"http://me:hush@127.0.0.1:{self.store}/r.json?token=hush",
            "/mongo": f"mongodb://me:hush@127.0.0.1:{self.store}/db?collection=c",
            "/a.json": "file:a.json",
        }
        tables = (f'[[document]]\npath = "{path}"\nsource = "{url}"\n' for path, url in sources.items())
        config = self.folder / "live.toml"
        config.write_text("".join(tables))
        config.chmod(0o644)
        umask = os.umask(0)
        try:
            self.service = Livestate(
                self, "--config=live.toml", "--workers=2", "--state-dir=state", "--access-log=access.log",
                https="", folder=self.folder,
            )  # fmt: skip
        finally:
            os.umask(umask)
        self.service.until_body(b'{"open": true}', "/a.json")
        for path in ("/", "/down", "/mongo"):
            self.service.until_status(path, trouble=lambda text: text is not None)

    def said_to(self, data: bytes, secure: bool) -> bytes:
        """Send bytes, and give what comes back until the answer is there."""
        port = int((self.service.https if secure else self.service.http).rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            if secure:
                context = ssl.create_default_context(cafile=str(self.service.cafile))
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname="localhost"))
            # An end that is announced is an end that need not be waited for.
            connection.sendall(data.replace(b"\r\nHost: a", b"\r\nHost: a\r\nConnection: close", 1))
            connection.settimeout(5)
            said = b""
            with contextlib.suppress(OSError):
                while some := connection.recv(65536):
                    said += some
                    if b"text/event-stream" in said or b"101 Switching" in said:
                        break
            return said

    def test_public(self):
        """No answer of the public listeners names a version, a program, a folder, a store, its address or a password."""
        words = ("hush", "twisted", "python", "traceback", "openssl", "redis", "mongo:", "concealed", ".py", "server:",
                 "127.0.0.1", str(self.store), str(self.folder), livestate.__version__, twisted.__version__)  # fmt: skip
        answers = 0
        for secure in (False, True):
            for data in REQUESTS if not secure else REQUESTS[::7]:
                said = self.said_to(data, secure)
                answers += said.startswith(b"HTTP/1.")
                text = said.decode("latin-1").lower()
                for word in words:
                    self.assertNotIn(word.lower(), text, data)
        self.assertGreater(answers, len(REQUESTS))
        client = Client(self.service.http)
        for path in CLIMBERS:
            answer = client.get(path)
            self.assertEqual((answer.status, b"concealed" in answer.body), (200 if "?" in path else 404, False), path)
        self.assertEqual(client.get("/a.json").body, b'{"open": true}')
        self.assertNotIn("Traceback", self.service.log)

    def test_secrets(self):
        """No password is in the log, the status, the metrics, what is saved, or in what `ps` shows of any process, and
        no file that livestate makes is open to other users.
        """
        said = [
            Client(self.service.admin).get(path).body.decode() for path in ("/status", "/metrics", "/ready", "/health")
        ]
        page = Client(self.service.admin).get("/status", Accept="text/html").body.decode()
        self.assertIn("redis://me:***@", said[0])
        self.assertIn("redis://me:***@", page)
        until(lambda: list((self.folder / "state").glob("*.saved")), "a saved document")
        # Not the temporary files, which disappear at any moment; their content is that of the others.
        files = [self.folder / "access.log", *(self.folder / "state").glob("*.saved")]
        pids = [self.service.pid, *children(self.service.pid)]
        self.assertGreaterEqual(len(pids), 4)
        for pid in pids:
            said += [
                Path(f"/proc/{pid}/{name}").read_bytes().decode("latin-1") for name in ("cmdline", "comm", "environ")
            ]
        said += [page, self.service.log, *(file.read_text() for file in files)]
        for text in said:
            self.assertNotIn("hush", text)
        self.assertIn("live.toml contains a password, and every user of this machine can read it", self.service.log)
        # Whatever the umask is, others on this machine read neither the key, nor a log, nor what is saved.
        for name, mode in (("server.pem", 0o600), ("state", 0o700), ("access.log", 0o640)):
            self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), mode, name)
        for file in (self.folder / "state").glob("*.saved"):
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
