"""Readers that vanish: their machine is switched off, or its network is gone, and no FIN and no RST tells of it."""

import ctypes
import socket
import struct
import time
from pathlib import Path
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import until
from tests.integration.servers import Livestate

#: A filter of one instruction: accept no byte (BPF_RET | BPF_K, linux/filter.h).
DROP = struct.pack("HBBI", 0x06, 0, 0, 0)

#: From asm-generic/socket.h; Python does not name it.
SO_ATTACH_FILTER = 26


def vanish(sock: socket.socket) -> None:
    """Have the kernel drop all that comes for it."""
    kept = ctypes.create_string_buffer(DROP)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(kept)))


def held(port: int) -> set[int]:
    """Give the ports of those whose connection to `port` a process still holds, which shows in its inode."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        if int(local.rpartition(":")[2], 16) == port and inode != "0":
            found.add(int(remote.rpartition(":")[2], 16))
    return found


class VanishedTests(SynchronousTestCase):
    def test_events(self):
        """One who reads events is let go when nothing was acknowledged for 30 s; those beside him are not."""
        service = Livestate(self, "--source=demo:")
        service.until_served()
        port = urlsplit(service.http).port or 0
        readers = []
        for _ in range(4):
            sock = socket.create_connection(("127.0.0.1", port), 10)
            self.addCleanup(sock.close)
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertIn(b"text/event-stream", sock.recv(4096))
            readers.append(sock)
        gone = {sock.getsockname()[1] for sock in readers[:2]}
        there = {sock.getsockname()[1] for sock in readers[2:]}
        for sock in readers[:2]:
            vanish(sock)
        began = time.monotonic()

        def let_go() -> bool:
            for sock in readers[2:]:
                self.assertTrue(sock.recv(1 << 20))
            return not held(port) & gone

        until(let_go, "the vanished are let go", 40)
        self.assertGreater(time.monotonic() - began, 25)
        self.assertLessEqual(there, held(port))
