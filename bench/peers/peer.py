"""What a peer is: a server that can be missing, has a version, and can be started on the bench's environment."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import BenchError, Children, free_port, run

PATH = "/state.json"
PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """What the peers of one scenario share: certificate, document, folders, cores, the store and the origin."""

    folder: Path
    children: Children
    core: int
    certificate: Path
    key: Path
    pem: Path
    document: Path
    store_url: str
    origin_port: int
    python: str
    peer_python: str

    @property
    def root(self) -> bool:
        """Servers that drop root would lose the right to read a temporary folder."""
        return os.geteuid() == 0

    def home(self, name: str) -> Path:
        """The folder a peer's child runs in and keeps its configuration in."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return home


@dataclass(frozen=True)
class Server:
    """A running peer: its root processes and where it answers. A port is None where it has no such listener.

    `events` is the path of its event stream, None where it has none; `push` gives it a document, None where it reads
    the store by itself.
    """

    peer: str
    roots: tuple[subprocess.Popen[bytes], ...]
    http: int | None
    https: int | None
    events: str | None = None
    push: Callable[[bytes], None] | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """The root processes, whose trees are what the server uses."""
        return tuple(root.pid for root in self.roots)

    def port(self, tls: bool) -> int | None:
        """Where it speaks TLS, or plain HTTP."""
        return self.https if tls else self.http

    def has_exited(self) -> bool:
        """Has one of its processes ended by itself?"""
        return any(root.poll() is not None for root in self.roots)

    def exit_statuses(self) -> str:
        """How its processes ended, for an error message."""
        return ", ".join(f"exit status {root.returncode}" for root in self.roots if root.poll() is not None)


@dataclass(frozen=True)
class Peer:
    """One server of the comparison, and why it is set up as it is."""

    name: str
    title: str
    setup: str
    start: Callable[[Environment], Server]
    version: Callable[[Environment], str]
    missing: Callable[[Environment], str | None]
    hub: bool = False  # made for event streams: nothing else is asked of it


@dataclass
class Launch:
    """Collects the processes of one peer while it starts."""

    environment: Environment
    name: str
    roots: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> None:
        """Start one process of the peer, on the server's core."""
        variables = {**os.environ, **(env or {})}
        self.roots.append(self.environment.children.start(self.name, argv, core=self.environment.core, env=variables))

    def done(
        self,
        http: int | None,
        https: int | None,
        *,
        events: str | None = None,
        push: Callable[[bytes], None] | None = None,
    ) -> Server:
        """The peer, as it was started."""
        return Server(self.name, tuple(self.roots), http, https, events, push)


def ports() -> tuple[int, int]:
    """Two free ports: for HTTP and for HTTPS."""
    return free_port(), free_port()


def post(port: int, path: str, **headers: str) -> Callable[[bytes], None]:
    """What gives a server a document: a POST of its bytes, on a connection of its own as every writer's here."""

    def push(body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise BenchError(f"POST {path}: status {response.status}")

    return push


def program(*names: str) -> str | None:
    """The first of NAMES that is installed, also where Debian keeps servers that root starts."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/local/go/bin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def needs(*names: str) -> Callable[[Environment], str | None]:
    """A peer is missing when one of these programs is."""

    def missing(environment: Environment) -> str | None:
        absent = [name for name in names if program(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    return missing


def needs_modules(*names: str) -> Callable[[Environment], str | None]:
    """A peer is missing when the peers' Python cannot import one of these."""

    def missing(environment: Environment) -> str | None:
        try:
            run([environment.peer_python, "-c", f"import {', '.join(names)}"], timeout=30)
        except BenchError:
            return (
                f"not importable by {Path(environment.peer_python).name}: {', '.join(names)} (bench/requirements.txt)"
            )
        return None

    return missing


def first_line(text: str) -> str:
    """The first line of what a program says of its version."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "?")


def version_of(*argv: str) -> Callable[[Environment], str]:
    """The version as the program itself says it, on stdout or stderr."""

    def version(environment: Environment) -> str:
        command = [program(argv[0]) or argv[0], *argv[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return first_line(done.stdout or done.stderr)

    return version


def modules_version(*names: str) -> Callable[[Environment], str]:
    """The versions of distributions in the peers' Python."""
    code = (
        "import importlib.metadata as m, platform, sys\n"
        "print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]) + f', Python {platform.python_version()}')"
    )

    def version(environment: Environment) -> str:
        return first_line(run([environment.peer_python, "-c", code, *names], timeout=30))

    return version
