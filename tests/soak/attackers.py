"""An honest reader's latency while others attack: slowloris, RST, requests nobody reads the answers to, half handshakes.

Honest readers (`tests.soak.honest`) ask first alone, then while each kind of attacker is at work, then while all are.
Their p99 must stay below five times what it usually is: the median of what it is alone before each. Attackers run at a
lower priority, in a process for each kind, since they share the machine with the server that they attack; what they may
do is:

- slowloris: 2,000 connections on which a byte of a request's head arrives each second, made anew when they are closed;
- resets: 500 connections a second that are reset, with nothing sent, half a request, a request, or half a handshake;
- floods: 50 connections that send requests as fast as they are taken, and of which half never read an answer, and half
  ask for what takes the long way (30 requests each 0.1 s);
- handshakes: 500 TLS connections that send half a ClientHello and wait, made anew when they are closed.

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
from tests.soak.script import beside, run

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
MISSING = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

#: An honest reader's p99 under attack, at most, as a multiple of what it is alone.
MOST = 5.0


def connected(port: int) -> socket.socket | None:
    """Give a connection that does not block, if there can be one."""
    sock = socket.socket()
    sock.settimeout(5)
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def kept(port: int, number: int, each: Callable[[socket.socket, int], None], pause: float) -> Iterator[None]:
    """Keep so many connections, and do something with each, again and again with a pause between."""
    socks: list[socket.socket | None] = [None] * number
    while True:
        began = time.monotonic()
        for index, sock in enumerate(socks):
            # Spread over the time, as those of many machines would be.
            time.sleep(max(0.0, began + pause * index / number - time.monotonic()))
            if sock is None:
                socks[index] = connected(port)
                continue
            try:
                each(sock, index)
            except BlockingIOError:
                pass
            except OSError:
                sock.close()
                socks[index] = None
        time.sleep(max(0.0, began + pause - time.monotonic()))
        yield


def slowloris(http: int, https: int) -> Iterator[None]:
    """Requests that arrive a byte a second."""
    return kept(http, 2000, lambda sock, _: sock.sendall(b"a"), 1.0)


def handshakes(http: int, https: int) -> Iterator[None]:
    """Handshakes that do not go on."""

    begun: set[int] = set()

    def begin(sock: socket.socket, _: int) -> None:
        if id(sock) not in begun:
            begun.add(id(sock))
            sock.sendall(HELLO)
        if sock.recv(4096) == b"":
            begun.discard(id(sock))
            raise ConnectionError

    return kept(https, 500, begin, 1.0)


def floods(http: int, https: int) -> Iterator[None]:
    """Requests of which the answers are not read, and requests that take the long way."""

    def flood(sock: socket.socket, index: int) -> None:
        if index % 2:
            sock.send(REQUEST * 1000)
        else:
            sock.send(MISSING * 30)
            while sock.recv(65536):
                pass
            raise ConnectionError

    return kept(http, 50, flood, 0.1)


def resets(http: int, https: int) -> Iterator[None]:
    """Connections that are reset."""
    while True:
        for port, sent in ((http, b""), (http, b"GET"), (http, REQUEST), (https, b""), (https, HELLO)):
            sock = connected(port)
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
        """Measure, print, and fail where the honest reader is kept waiting."""
        self.seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
        self.service = Livestate(self, "--source=demo:", https="")
        self.service.until_served()
        measure(self, self.service, "warming up", 3)
        alone: list[float] = []
        attacked: dict[str, float] = {}
        before, logged = memory(self.service.pid), len(self.service.log)
        for kinds in (*([kind] for kind in KINDS), list(KINDS)):
            alone.append(measure(self, self.service, "alone", self.seconds))
            attackers = [beside(self, self.service, __spec__.name, "attack", kind) for kind in kinds]
            time.sleep(3)
            attacked[" + ".join(kinds)] = measure(self, self.service, " + ".join(kinds), self.seconds)
            print(
                f"    {files(self.service.pid)} files, {(memory(self.service.pid) - before) / 1e6:+.1f} MB",
                flush=True,
            )
            for attacker in attackers:
                attacker.kill()
                attacker.wait()
            time.sleep(2)
        usual = statistics.median([*alone, measure(self, self.service, "alone", self.seconds)])
        print(f"{len(self.service.log) - logged} bytes were logged meanwhile; load average {os.getloadavg()[0]:.1f}")
        for name, p99 in attacked.items():
            print(f"{name}: p99 is {p99 / usual:.1f} times the usual {1e3 * usual:.2f} ms")
        self.assertLess(max(attacked.values()) / usual, MOST)
        self.service.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["attack"]:
        for _ in KINDS[sys.argv[2]](*map(int, sys.argv[3:5])):
            pass
    run(Attackers())
