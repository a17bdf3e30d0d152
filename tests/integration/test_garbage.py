"""Connections leave no reference cycles, which is why the garbage collector may run so rarely."""

import re
import signal
import socket
import ssl
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import Child, folder_for, free_port, until

#: twistd that collects garbage on SIGUSR1, and from the first signal on only then. It prints how many objects were
#: unreachable, and how many are excluded from collection.
PROGRAM = """
import gc, signal, sys
from twisted.scripts.twistd import run
signal.signal(signal.SIGUSR1, lambda *_: print("found", gc.collect(), gc.disable(), gc.get_freeze_count(), flush=True))
run()
"""

ROUNDS = 50


class GarbageTests(SynchronousTestCase):
    """A running server, whose unreachable objects are counted."""

    def setUp(self) -> None:
        folder = folder_for(self)
        self.http, self.https = free_port(), free_port()
        self.child = Child(
            self,
            [
                *(sys.executable, "-c", PROGRAM, "-n", "--pidfile=", "livestate", "--source=demo:", "--admin="),
                *(f"--http=tcp:{self.http}:interface=127.0.0.1", f"--https=ssl:{self.https}:interface=127.0.0.1"),
            ],
            folder,
        )
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.child.wait_for(lambda: "(TLS) starting" in self.child.output, "livestate")

    def collect(self) -> tuple[int, int]:
        """Return how many objects were garbage, and how many are excluded from collection."""
        before = self.child.output.count("found ")
        self.child.signal(signal.SIGUSR1)
        until(lambda: self.child.output.count("found ") > before, "an answer to the signal")
        found = re.findall(r"found (\d+) None (\d+)", self.child.output)[-1]
        return int(found[0]), int(found[1])

    def visit(self, request: bytes, tls: bool) -> None:
        """Connect, send a request, read a part of the response, and disconnect."""
        with socket.create_connection(("127.0.0.1", self.https if tls else self.http), 10) as plain:
            connection = self.context.wrap_socket(plain) if tls else plain
            connection.sendall(request + b"Host: a\r\n\r\n")
            self.assertTrue(connection.recv(65536))
            connection.close()

    def test_connections(self) -> None:
        """A closed connection of any kind leaves no garbage; objects of the start-up are excluded from collection."""
        # The first round creates whatever is created once, at the first connection of each kind.
        for name, count in (("before", 1), ("after", ROUNDS)):
            for tls in (False, True):
                for request in (
                    b"GET / HTTP/1.1\r\n",
                    b"GET / HTTP/1.1\r\nConnection: close\r\n",
                    b"HEAD / HTTP/1.1\r\n",
                    b"GET /events HTTP/1.1\r\n",
                ):
                    for _ in range(count):
                        self.visit(request, tls)
            # The server must notice that the last ones are closed, in a later iteration of its loop.
            self.visit(b"GET / HTTP/1.1\r\n", False)
            garbage, frozen = self.collect()
            self.assertGreater(frozen, 10_000)
            if name == "after":
                self.assertLess(garbage, ROUNDS, "each connection of some kind leaves a cycle")
