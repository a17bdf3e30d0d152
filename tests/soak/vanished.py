"""Readers that vanish: their machines are switched off, and nothing tells livestate so, no FIN and no RST.

For each kind of reader, over HTTP and HTTPS, it is printed how long livestate goes on holding the connections, by the
kernel's table of them. All must be let go within BOUND, the honest reader beside them must be answered each time, and the
memory must not grow when all is done once more.

    python -m tests.soak.vanished [READERS OF EACH KIND [ROUNDS]]
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

#: Seconds. The longest is a request that waits for a change as long as it may, a minute, and then as long as any other
#: that is quiet: 60 to 65, and two looks for what was still to be sent.
BOUND = 60 + 65 + 10 + 5

#: A request for each kind, and what its answer begins with and has in its head, which is read before the client vanishes;
#: nothing: it vanishes at once. The large document is more than the kernel takes for a reader.
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
        """Do it, print, and fail where one is held for too long."""
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
            self.once()
            sizes.append(memory(self.service.pid) / 1e6)
        honest.stop()
        print(
            f"memory after each round, MB: {[round(size, 1) for size in sizes]}; {files(self.service.pid)} files open"
        )
        print(f"logged:\n{self.service.log}")
        self.assertEqual((honest.lost, honest.unaccepted, honest.refused, honest.wrong), ([], [], [], []))
        self.assertLess(sizes[-1] - sizes[0], 5.0)
        self.assertEqual(self.service.stop(), 0)

    def once(self) -> None:
        """Have some of each kind vanish, and see all of them let go."""
        went: dict[tuple[str, str], dict[int, float]] = {}
        socks: list[Any] = []
        for url in (self.service.http, self.service.https):
            port = int(url.rpartition(":")[2])
            for kind, (request, answer) in KINDS.items():
                these = went[url, kind] = {}
                for _ in range(self.count):
                    sock = self.connected(port, url.startswith("https"), request.format(etag=self.etag), answer)
                    socks.append(sock)
                    these[sock.getsockname()[1]] = time.monotonic()
        stayed: dict[tuple[str, str], list[float]] = {key: [] for key in went}
        while any(went.values()):
            time.sleep(0.5)
            now = time.monotonic()
            for (url, kind), these in went.items():
                there = held(int(url.rpartition(":")[2])) if these else set()
                for port in [port for port in these if port not in there]:
                    stayed[url, kind].append(now - these.pop(port))
                if these:
                    self.assertLess(now - min(these.values()), BOUND, f"{url} {kind}: {len(these)} are held")
        for (url, kind), times in stayed.items():
            print(f"{url.partition(':')[0]:<5} {kind}: let go after {min(times):.1f} to {max(times):.1f} s", flush=True)
        for sock in socks:
            sock.close()

    def connected(self, port: int, tls: bool, request: str, answer: bytes) -> Any:
        """Give a connection whose client has vanished."""
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
