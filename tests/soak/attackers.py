"""The latency of honest clients under attack: slowloris, RST, floods of requests, incomplete handshakes.

Honest clients (`tests.soak.honest`) poll alone first, then during each kind of attack, and then during all of them.
Their p99 must stay below five times the baseline, which is the median of the p99 without attacks, measured before each
attack. Each kind of attacker runs in its own process at a lower priority, since it shares the machine with the server:

- slowloris: 2,000 connections that send one byte of a request's head per second, and reconnect when closed;
- resets: 500 connections per second that are reset after nothing, half a request, a request, or half a handshake;
- floods: 50 connections that send requests as fast as possible; half of them never read a response, and the others send
  requests that take twisted.web's path (30 requests every 0.1 s);
- handshakes: 500 TLS connections that send half a ClientHello and wait, and reconnect when closed.

    python -m tests.soak.attackers [SECONDS]
"""

import contextlib
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import files, memory
from tests.integration.servers import Livestate
from tests.soak.honest import measure
from tests.soak.script import run, start_process

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
MISSING = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

#: The maximum p99 of honest clients under attack, as a multiple of the baseline.
MAX_RATIO = 5.0


def connect(port: int) -> socket.socket | None:
    """Return a non-blocking connection, or None if connecting failed."""
    sock = socket.socket()
    sock.settimeout(5)
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def keep_open(port: int, number: int, action: Callable[[socket.socket, int], None], pause: float) -> Iterator[None]:
    """Keep `number` connections open, and call `action` on each of them every `pause` seconds."""
    socks: list[socket.socket | None] = [None] * number
    while True:
        start = time.monotonic()
        for index, sock in enumerate(socks):
            # Spread over the interval, as with many machines.
            time.sleep(max(0.0, start + pause * index / number - time.monotonic()))
            if sock is None:
                socks[index] = connect(port)
                continue
            try:
                action(sock, index)
            except BlockingIOError:
                pass
            except OSError:
                sock.close()
                socks[index] = None
        time.sleep(max(0.0, start + pause - time.monotonic()))
        yield


def slowloris(http: int, https: int) -> Iterator[None]:
    """Send requests at one byte per second."""
    return keep_open(http, 2000, lambda sock, _: sock.sendall(b"a"), 1.0)


def handshakes(http: int, https: int) -> Iterator[None]:
    """Start TLS handshakes and never finish them."""

    started: set[int] = set()

    def handshake(sock: socket.socket, _: int) -> None:
        if id(sock) not in started:
            started.add(id(sock))
            sock.sendall(HELLO)
        if sock.recv(4096) == b"":
            started.discard(id(sock))
            raise ConnectionError

    return keep_open(https, 500, handshake, 1.0)


def floods(http: int, https: int) -> Iterator[None]:
    """Send requests without reading the responses, and requests that take twisted.web's path."""

    def flood(sock: socket.socket, index: int) -> None:
        if index % 2:
            sock.send(REQUEST * 1000)
        else:
            sock.send(MISSING * 30)
            while sock.recv(65536):
                pass
            raise ConnectionError

    return keep_open(http, 50, flood, 0.1)


def resets(http: int, https: int) -> Iterator[None]:
    """Reset connections."""
    while True:
        for port, sent in ((http, b""), (http, b"GET"), (http, REQUEST), (https, b""), (https, HELLO)):
            sock = connect(port)
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.sendall(sent)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
        time.sleep(0.01)
        yield


KINDS = {attack.__name__: attack for attack in (slowloris, resets, floods, handshakes)}


class Attackers(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Measure and print; fail if honest clients have to wait too long."""
        self.seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
        self.service = Livestate(self, "--source=demo:", https="")
        self.service.until_served()
        measure(self, self.service, "warming up", 3)
        alone: list[float] = []
        attacked: dict[str, float] = {}
        memory_before, log_size = memory(self.service.pid), len(self.service.log)
        for kinds in (*([kind] for kind in KINDS), list(KINDS)):
            alone.append(measure(self, self.service, "alone", self.seconds))
            attackers = [start_process(self, self.service, __spec__.name, "attack", kind) for kind in kinds]
            time.sleep(3)
            attacked[" + ".join(kinds)] = measure(self, self.service, " + ".join(kinds), self.seconds)
            print(
                f"    {files(self.service.pid)} files, {(memory(self.service.pid) - memory_before) / 1e6:+.1f} MB",
                flush=True,
            )
            for attacker in attackers:
                attacker.kill()
                attacker.wait()
            time.sleep(2)
        baseline = statistics.median([*alone, measure(self, self.service, "alone", self.seconds)])
        print(f"{len(self.service.log) - log_size} bytes were logged meanwhile; load average {os.getloadavg()[0]:.1f}")
        for name, p99 in attacked.items():
            print(f"{name}: p99 is {p99 / baseline:.1f} times the baseline of {1e3 * baseline:.2f} ms")
        self.assertLess(max(attacked.values()) / baseline, MAX_RATIO)
        self.service.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["attack"]:
        for _ in KINDS[sys.argv[2]](*map(int, sys.argv[3:5])):
            pass
    run(Attackers())
