"""A peer: a server that may be missing, has a version, and can be started in the bench's environment."""

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
    """Everything that the peers of one scenario share: certificate, document, folders, core, store and origin."""

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
        """Whether the bench runs as root. A server that drops root privileges could not read a temporary folder."""
        return os.geteuid() == 0

    def home(self, name: str) -> Path:
        """Return the folder for a peer's processes and configuration."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return home


@dataclass(frozen=True)
class Server:
    """A running peer: its root processes and its ports. A port is None if it has no such listener.

    `events` is the path of its event stream, or None if it has none. `push` sends it a document; it is None if the
    server reads the store.
    """

    peer: str
    roots: tuple[subprocess.Popen[bytes], ...]
    http: int | None
    https: int | None
    events: str | None = None
    push: Callable[[bytes], None] | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of the root processes. Their process trees are measured."""
        return tuple(root.pid for root in self.roots)

    def port(self, tls: bool) -> int | None:
        """Return the port for HTTPS or HTTP."""
        return self.https if tls else self.http

    def has_exited(self) -> bool:
        """Return whether one of its root processes has exited."""
        return any(root.poll() is not None for root in self.roots)

    def exit_statuses(self) -> str:
        """Return how its processes exited, for an error message."""
        return ", ".join(f"exit status {root.returncode}" for root in self.roots if root.poll() is not None)


@dataclass(frozen=True)
class Peer:
    """One server of the comparison, and how it is set up."""

    name: str
    title: str
    setup: str
    start: Callable[[Environment], Server]
    version: Callable[[Environment], str]
    missing: Callable[[Environment], str | None]
    hub: bool = False  # only for event streams, so not used in other scenarios


@dataclass
class Launch:
    """Starts the processes of one peer."""

    environment: Environment
    name: str
    roots: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> None:
        """Start one process on the server's core."""
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
        """Return the running server."""
        return Server(self.name, tuple(self.roots), http, https, events, push)


def ports() -> tuple[int, int]:
    """Return two free ports, for HTTP and HTTPS."""
    return free_port(), free_port()


def post(port: int, path: str, **headers: str) -> Callable[[bytes], None]:
    """Return a function that POSTs a document to a server, each on a new connection."""

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
    """Return the path of the first of NAMES that is installed, searching also the folders for system programs."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/local/go/bin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def needs(*names: str) -> Callable[[Environment], str | None]:
    """Return a function that says which of these programs are missing."""

    def missing(environment: Environment) -> str | None:
        absent = [name for name in names if program(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    return missing


def needs_modules(*names: str) -> Callable[[Environment], str | None]:
    """Return a function that says whether the peers' Python cannot import these modules."""

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
    """Return the first line of text that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "?")


def version_of(*argv: str) -> Callable[[Environment], str]:
    """Return a function that returns the version that a program prints on stdout or stderr."""

    def version(environment: Environment) -> str:
        command = [program(argv[0]) or argv[0], *argv[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return first_line(done.stdout or done.stderr)

    return version


def modules_version(*names: str) -> Callable[[Environment], str]:
    """Return a function that returns the versions of distributions in the peers' Python."""
    code = (
        "import importlib.metadata as m, platform, sys\n"
        "print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]) + f', Python {platform.python_version()}')"
    )

    def version(environment: Environment) -> str:
        return first_line(run([environment.peer_python, "-c", code, *names], timeout=30))

    return version
