"""A TCP proxy that does to the connections through it whatever can befall those to a store.

    proxy = Proxy(case, store.port)
    proxy.fault = silent              # what the store sends from now on is treated so, on all connections
    proxy.refuse()                    # nobody listens, and all connections are reset
    proxy.heal()                      # all is well again

A fault is called with a connection and what the store has just sent on it.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import free_port


class Cut(Exception):
    """The connection has been cut off by a fault."""


class Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: "Proxy", client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client

    def send(self, data: bytes) -> None:
        """Send to the client."""
        self._client.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait; cut the connection if the fault is over meanwhile: it would not be the same any more."""
        fault, deadline = self._proxy.fault, time.monotonic() + seconds
        while True:
            if self._proxy.refusing or self._proxy.fault is not fault:
                self.reset()
            rest = deadline - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(0.02, rest))

    def reset(self) -> None:
        """Have the client's kernel see a reset.

        :raises Cut: always.
        """
        # Lingering for no time: what closes the socket sends RST.
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Cut

    def serve(self) -> None:
        """Pass on until either side ends it."""
        try:
            with self._client, socket.create_connection(("127.0.0.1", self._proxy.target)) as store:
                while True:
                    for source in select.select([self._client, store], [], [], 0.1)[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        if source is store:
                            self._proxy.fault(self, data)
                        else:
                            store.sendall(data)
                    if self._proxy.refusing:
                        self.reset()
        except (OSError, Cut):
            pass


Fault = Callable[[Connection, bytes], None]


class Proxy:
    """One proxy, until the end of the test.

    :param target: the store's port on 127.0.0.1.
    """

    def __init__(self, case: SynchronousTestCase, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.fault: Fault = forward
        self.refusing = False
        #: How many connections there were.
        self.accepted = 0
        self._listener = self._listen()
        case.addCleanup(self.refuse)

    def refuse(self) -> None:
        """Refuse new connections, and reset those that are there within a tenth of a second."""
        if not self.refusing:
            self.refusing = True
            # To close it does not wake the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def heal(self) -> None:
        """Pass everything on again."""
        self.fault = forward
        if self.refusing:
            self.refusing = False
            self._listener = self._listen()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=Connection(self, client).serve, daemon=True).start()


def forward(connection: Connection, data: bytes) -> None:
    """Nothing is wrong."""
    connection.send(data)


def silent(_connection: Connection, _data: bytes) -> None:
    """The store is never heard of again."""


def reset_after(count: int) -> Fault:
    """Reset the connection in the middle of what the store sends."""

    def fault(connection: Connection, data: bytes) -> None:
        connection.send(data[:count])
        connection.pause(0.03)
        connection.reset()

    return fault


def slow(seconds: float = 1.0) -> Fault:
    """Pass one byte on each so many seconds."""

    def fault(connection: Connection, data: bytes) -> None:
        for position in range(len(data)):
            connection.send(data[position : position + 1])
            connection.pause(seconds)

    return fault


def instead(says: bytes) -> Fault:
    """Say something else than the store."""

    def fault(connection: Connection, _data: bytes) -> None:
        connection.send(says)

    return fault


def flood(begin: bytes, block: bytes) -> Fault:
    """Begin to say something, and go on with `block` as fast as the client takes it, without an end."""

    def fault(connection: Connection, _data: bytes) -> None:
        connection.send(begin)
        while True:
            connection.send(block)
            connection.pause(0)

    return fault
