"""Clients that send requests continuously and notice everything that goes wrong: strict HTTP/1.1 clients, and wrk."""

import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import Child, folder_for, program_of

#: Seconds that a response may take: longer than it takes to replace a worker that hangs.
TIMEOUT = 15.0

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Load:
    """Some connections that send requests from `start` to `stop`.

    A server may close a connection only after a response with `Connection: close`. A request without a complete response
    is in `lost`, a failed connection in `refused`, and a response other than 200 in `wrong`.

    :param pause: seconds between a response and the next request.
    :param most: the maximum number of requests on one connection.
    """

    def __init__(
        self, case: SynchronousTestCase, url: str, connections: int = 16, pause: float = 0.001, most: int = 50
    ) -> None:
        self.answers = 0
        self.lost: list[str] = []
        #: Connections that were reset before their first response. The kernel had accepted them, but livestate had not
        #: when the listening socket was closed. No server can avoid that, and clients try again.
        self.unaccepted: list[str] = []
        self.refused: list[str] = []
        self.wrong: list[bytes] = []
        self._address = urlsplit(url).hostname or "", urlsplit(url).port or 0
        self._context: ssl.SSLContext | None = None
        if url.startswith("https:"):
            self._context = ssl.create_default_context()
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._pause = pause
        self._most = most
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]
        case.addCleanup(self._stop.set)

    def start(self) -> "Load":
        """Start all connections."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Stop, after the responses to the requests under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 5)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                connection: socket.socket = socket.create_connection(self._address, TIMEOUT)
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_hostname="localhost")
            except OSError as error:
                self.refused.append(repr(error))
                self._stop.wait(0.05)
                continue
            with connection:
                for number in range(self._most):
                    try:
                        more = self._ask(connection)
                    except OSError as error:
                        reset = number == 0 and isinstance(error, ConnectionResetError)
                        (self.unaccepted if reset else self.lost).append(f"request {number + 1}: {error!r}")
                        break
                    if not more or self._stop.wait(self._pause):
                        break

    def _ask(self, connection: socket.socket) -> bool:
        """Send a request, and read its response. Return whether the connection stays open."""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: live.example\r\n\r\n")
        data = b""
        while b"\r\n\r\n" not in data:
            data += _some(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        found = _LENGTH.search(head + b"\r\n")
        length = int(found[1]) if found else 0
        while len(body) < length:
            body += _some(connection)
        self.answers += 1
        if not head.startswith(b"HTTP/1.1 200 "):
            self.wrong.append(head)
        return b"\r\nconnection: close" not in head.lower()


class Background:
    """Calls functions again and again, each in a thread of its own, until `stop`.

    :param pause: seconds between two calls.
    """

    def __init__(self, case: SynchronousTestCase, *steps: Callable[[], object], pause: float) -> None:
        self._stop = threading.Event()
        self._pause = pause
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(step,), daemon=True) for step in steps]
        case.addCleanup(self._stop.set)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until the calls under way are finished.

        :raises BaseException: what a function has raised, which also ended its thread.
        """
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 5)
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]

    def _run(self, step: Callable[[], object]) -> None:
        try:
            while not self._stop.is_set():
                step()
                self._stop.wait(self._pause)
        except BaseException as error:
            self._errors.append(error)


class Wrk:
    """One wrk, which sends requests as fast as it can and reconnects whenever a connection is closed.

    :param seconds: after which it stops by itself.
    :param script: a file in Lua that makes the requests.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        url: str,
        seconds: float = 120,
        connections: int = 16,
        script: Path | None = None,
    ) -> None:
        arguments = [program_of("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT:.0f}s"]
        arguments += ["-s", str(script)] if script else []
        self._child = Child(case, [*arguments, url], folder_for(case))
        self._seconds = seconds

    def stop(self) -> tuple[int, str]:
        """Stop it. Return the number of responses, and the lines that it prints about errors."""
        self._child.signal(signal.SIGINT)
        assert self._child.process.wait(TIMEOUT) == 0, self._child.output
        found = re.findall(r"^ *((?:Socket errors|Non-2xx).*)$", self._child.output, re.MULTILINE)
        return self._requests(), "\n".join(found)

    def result(self) -> dict[str, int]:
        """Wait until it stops by itself. Return the number of all requests, and of failed ones by the kind of error."""
        assert self._child.process.wait(self._seconds + 20) == 0, self._child.output
        output = self._child.output
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        errors = {kind: int(count) for kind, count in re.findall(r"(connect|read|write|timeout) (\d+)", output)}
        return {"requests": self._requests(), "refused": int(refused[1]) if refused else 0, **errors}

    def _requests(self) -> int:
        found = re.search(r"(\d+) requests in", self._child.output)
        assert found, self._child.output
        return int(found[1])


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed before the response was complete")
    return data
