"""A TCP proxy that injects faults into connections to a store.

    proxy = Proxy(case, store.port)
    proxy.fault = silent              # from now on, all connections behave like this
    proxy.refuse()                    # new connections are refused, and open ones are reset
    proxy.heal()                      # everything works again

A fault is a function that is called with a connection and the data that the store has just sent on it.
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
    """A fault has cut the connection."""


class Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: "Proxy", client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client

    def send(self, data: bytes) -> None:
        """Send to the client."""
        self._client.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait. If the fault ends meanwhile, cut the connection, because its data is no longer complete."""
        fault, deadline = self._proxy.fault, time.monotonic() + seconds
        while True:
            if self._proxy.refusing or self._proxy.fault is not fault:
                self.reset()
            rest = deadline - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(0.02, rest))

    def reset(self) -> None:
        """Reset the connection to the client.

        :raises Cut: always.
        """
        # With SO_LINGER and a time of 0, close() sends RST.
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Cut

    def serve(self) -> None:
        """Pass data in both directions until either side closes."""
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
        #: The number of connections so far.
        self.accepted = 0
        self._listener = self._listen()
        case.addCleanup(self.refuse)

    def refuse(self) -> None:
        """Refuse new connections, and reset the open ones within a tenth of a second."""
        if not self.refusing:
            self.refusing = True
            # Closing alone does not wake the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def heal(self) -> None:
        """Accept connections and pass on all data again."""
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
    """Pass the data on."""
    connection.send(data)


def silent(_connection: Connection, _data: bytes) -> None:
    """Drop all data."""


def reset_after(count: int) -> Fault:
    """Return a fault that passes `count` bytes on and resets the connection."""

    def fault(connection: Connection, data: bytes) -> None:
        connection.send(data[:count])
        connection.pause(0.03)
        connection.reset()

    return fault


def slow(seconds: float = 1.0) -> Fault:
    """Return a fault that passes on one byte, and waits `seconds` before the next."""

    def fault(connection: Connection, data: bytes) -> None:
        for position in range(len(data)):
            connection.send(data[position : position + 1])
            connection.pause(seconds)

    return fault


def instead(says: bytes) -> Fault:
    """Return a fault that sends `says` in place of the data."""

    def fault(connection: Connection, _data: bytes) -> None:
        connection.send(says)

    return fault


def flood(begin: bytes, block: bytes) -> Fault:
    """Return a fault that sends `begin`, and then `block` again and again, as fast as the client reads."""

    def fault(connection: Connection, _data: bytes) -> None:
        connection.send(begin)
        while True:
            connection.send(block)
            connection.pause(0)

    return fault
