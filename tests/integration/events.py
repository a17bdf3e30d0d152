"""Readers of event streams that parse HTTP themselves, so that nothing of livestate's own code is trusted."""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.merge_patch import apply
from tests.formats.test_event_stream import parsed
from tests.integration.fronts import Front
from tests.integration.processes import until
from tests.integration.servers import Livestate

#: Seconds that one read may take.
TIMEOUT = 20.0

_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]+)\r\n")


def document(version: int, size: int = 50) -> str:
    """Return a document of which a change is a small part."""
    return json.dumps({"version": version, "places": {f"place {n}": {"votes": n} for n in range(size)}})


class EventReader:
    """One connection that reads events.

    :param receive: the size of the receive buffer in bytes; with a small one a slow reader's lag shows at once.
    :param fields: fields of the request; underscores in their names stand for dashes.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        service: Livestate | Front,
        target: str = "/events",
        https: bool = False,
        receive: int = 0,
        version: str = "1.1",
        **fields: str,
    ) -> None:
        address = (service.https if https else service.http).rpartition(":")[2]
        raw = socket.socket()
        raw.settimeout(TIMEOUT)
        if receive:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        raw.connect(("127.0.0.1", int(address)))
        self.socket: socket.socket = raw
        if https:
            context = ssl.create_default_context(cafile=str(service.cafile))
            self.socket = context.wrap_socket(raw, server_hostname="127.0.0.1")
        case.addCleanup(self.socket.close)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self.socket.sendall(f"GET {target} HTTP/{version}\r\nHost: localhost\r\n{lines}\r\n".encode())
        self.received = b""
        self.ended = False
        # What has been done so far, so that a long stream is not parsed from its beginning at each read.
        self._taken = self._parsed = 0
        self._stream = b""
        self._events: list[tuple[str, str, str]] = []
        self._states: list[Any] = []

    def read(self, size: int = 65536) -> bool:
        """Read once. Return whether there was anything."""
        data = self.socket.recv(size)
        self.received += data
        self.ended = self.ended or not data
        return bool(data)

    @property
    def head(self) -> str:
        """The head of the response."""
        return self.received.partition(b"\r\n\r\n")[0].decode()

    @property
    def stream(self) -> bytes:
        """The body so far, without the framing of its chunks and without an incomplete chunk at its end."""
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return b""
        self._taken = max(self._taken, end + 4)
        if "chunked" not in self.head:
            self._stream += self.received[self._taken :]
            self._taken = len(self.received)
            return self._stream
        while match := _CHUNK_SIZE.match(self.received, self._taken):
            size, start = int(match[1], 16), match.end()
            if len(self.received) < start + size + 2 or not size:
                break
            self._stream += self.received[start : start + size]
            self._taken = start + size + 2
        return self._stream

    def events(self) -> list[tuple[str, str, str]]:
        """Return type, id and data of all events so far."""
        stream = self.stream
        end = stream.rfind(b"\n\n") + 2
        if end > self._parsed:
            last_id = self._events[-1][1] if self._events else ""
            self._events += parsed(f"id: {last_id}\n".encode() + stream[self._parsed : end])[0]
            self._parsed = end
        return list(self._events)

    def states(self) -> list[Any]:
        """Return the document after each event."""
        for kind, _, data in self.events()[len(self._states) :]:
            value = json.loads(data)
            self._states.append(apply(self._states[-1], value) if kind == "patch" else value)
        return list(self._states)

    def until_version(self, version: int) -> list[Any]:
        """Read until the document has at least this version. Return all states."""
        self.until(lambda: bool(self.states()) and self.states()[-1]["version"] >= version)
        return self.states()

    def until_end(self, end: bytes) -> None:
        """Read until what was received ends with `end`."""
        self.until(lambda: self.received.endswith(end))

    def until(self, condition: Callable[[], bool]) -> None:
        """Read until `condition` holds."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            # Heartbeats keep coming, so that no single read times out.
            assert time.monotonic() < deadline, f"not in time: {self.received[-200:]!r}"
            assert self.read(), f"the stream ended: {self.received[-200:]!r}"


class Subscriber(EventReader):
    """A subscriber over HTTP that reads in a thread, until the stream ends."""

    def __init__(self, case: SynchronousTestCase, service: Livestate | Front) -> None:
        super().__init__(case, service)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self.read():
                pass
        self.socket.close()

    @property
    def complete(self) -> bool:
        """Whether the stream has ended as a chunked body does."""
        return self.ended and self.received.endswith(b"\r\n0\r\n\r\n")

    def until_started(self) -> None:
        """Wait for the first event."""
        until(lambda: b"\ndata:" in self.received, "an event")

    def wait(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
