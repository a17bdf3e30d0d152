"""Clients that vanish, as when their machines lose power: livestate gets neither FIN nor RST.

For each kind of client, over HTTP and HTTPS, the script prints how long livestate keeps the connections open, according
to the kernel's table. All must be closed within BOUND, an honest client must get every response, and memory must not
grow in a second round.

    python -m tests.soak.vanished [CLIENTS OF EACH KIND [ROUNDS]]
"""

import socket
import ssl
import sys
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.load import Load
from tests.integration.processes import files, folder_for, memory
from tests.integration.servers import Livestate
from tests.integration.test_vanished import held, vanish
from tests.soak.script import run

#: Seconds. A long poll takes longest: it is held for up to a minute, and is then closed by the idle timeout like any other
#: connection (60 to 65 s), plus two checks until the unsent response is dropped.
BOUND = 60 + 65 + 10 + 5

#: For each kind, the request, and a part of the response's head that the client reads before it vanishes; if empty, it
#: vanishes at once. The large document is larger than the kernel's buffers for one connection.
KINDS: dict[str, tuple[str, bytes]] = {
    "between two requests": ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"Content-Length: "),
    "in the middle of a request": ("GET / HTTP/1.1\r\nHost: h\r\n", b""),
    "in the middle of a large answer": ("GET /large HTTP/1.1\r\nHost: h\r\n\r\n", b"Content-Length: 16"),
    "while it waits": ("GET /still HTTP/1.1\r\nHost: h\r\nPrefer: wait=60\r\nIf-None-Match: {etag}\r\n\r\n", b""),
    "events": ("GET /events HTTP/1.1\r\nHost: h\r\n\r\n", b"text/event-stream"),
    "events, none of which come": ("GET /still/events HTTP/1.1\r\nHost: h\r\n\r\n", b"text/event-stream"),
    "WebSocket": (
        "GET /events HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
        b"101 Switching Protocols",
    ),
}


class Vanished(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Run all rounds and print the results; fail if a connection is kept open for too long."""
        self.count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
        rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 2
        folder = folder_for(self)
        (folder / "large.json").write_text('{"large": "' + "0123456789abcdef" * 1_000_000 + '"}')
        (folder / "still.json").write_text('{"still": true}')
        self.service = Livestate(
            self,
            "--source=demo:",
            f"--source=/large=file:{folder}/large.json",
            f"--source=/still=file:{folder}/still.json",
            https="",
        )
        for path in ("/", "/large", "/still"):
            self.service.until_served(path)
        self.etag = self.service.get("/still")["ETag"]
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        honest = Load(self, self.service.https, connections=1, pause=0.1).start()
        sizes = []
        for _ in range(rounds):
            self.run_round()
            sizes.append(memory(self.service.pid) / 1e6)
        honest.stop()
        print(
            f"memory after each round, MB: {[round(size, 1) for size in sizes]}; {files(self.service.pid)} files open"
        )
        print(f"logged:\n{self.service.log}")
        self.assertEqual((honest.lost, honest.unaccepted, honest.refused, honest.wrong), ([], [], [], []))
        self.assertLess(sizes[-1] - sizes[0], 5.0)
        self.assertEqual(self.service.stop(), 0)

    def run_round(self) -> None:
        """Let clients of each kind vanish, and wait until all of their connections are closed."""
        vanished_at: dict[tuple[str, str], dict[int, float]] = {}
        socks: list[Any] = []
        for url in (self.service.http, self.service.https):
            port = int(url.rpartition(":")[2])
            for kind, (request, answer) in KINDS.items():
                waiting = vanished_at[url, kind] = {}
                for _ in range(self.count):
                    sock = self.vanished_client(port, url.startswith("https"), request.format(etag=self.etag), answer)
                    socks.append(sock)
                    waiting[sock.getsockname()[1]] = time.monotonic()
        durations: dict[tuple[str, str], list[float]] = {key: [] for key in vanished_at}
        while any(vanished_at.values()):
            time.sleep(0.5)
            now = time.monotonic()
            for (url, kind), waiting in vanished_at.items():
                open_ports = held(int(url.rpartition(":")[2])) if waiting else set()
                for port in [port for port in waiting if port not in open_ports]:
                    durations[url, kind].append(now - waiting.pop(port))
                if waiting:
                    self.assertLess(now - min(waiting.values()), BOUND, f"{url} {kind}: {len(waiting)} are open")
        for (url, kind), times in durations.items():
            print(f"{url.partition(':')[0]:<5} {kind}: closed after {min(times):.1f} to {max(times):.1f} s", flush=True)
        for sock in socks:
            sock.close()

    def vanished_client(self, port: int, tls: bool, request: str, answer: bytes) -> Any:
        """Return a connection whose client has vanished."""
        sock: Any = socket.create_connection(("127.0.0.1", port), 30)
        if tls:
            sock = self.context.wrap_socket(sock)
        sock.sendall(request.encode())
        if answer:
            self.assertIn(answer, sock.recv(4096))
        vanish(sock)
        return sock


if __name__ == "__main__":
    run(Vanished())
