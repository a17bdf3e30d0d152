"""Child processes. Each is known by its pid, bound to one core, and ended in a finally block, also on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class BenchError(Exception):
    """Something the reader of the terminal can act on; printed as one line."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit() -> int:
    """Thousands of connections need as many files; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def run(argv: Sequence[str], *, timeout: float = 120.0, env: Mapping[str, str] | None = None) -> str:
    """The output of a command that must succeed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{argv[0]}: {error}") from error
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


@dataclass
class Children:
    """The processes of one run, ended in the reverse order of their start."""

    logs: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        core: int,
        env: Mapping[str, str] | None = None,
        pipes: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start ARGV on CORE, in a session of its own: Ctrl-C reaches the bench alone, which then ends its children."""
        folder = self.logs / name
        folder.mkdir(exist_ok=True)
        with open(folder / "log", "ab") as log:
            child = subprocess.Popen(
                ["taskset", "-c", str(core), *argv],
                cwd=folder,
                env=dict(os.environ if env is None else env),
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(child)
        return child

    def log(self, name: str) -> str:
        """The last line that a child said, for an error message."""
        with contextlib.suppress(OSError, IndexError):
            return (self.logs / name / "log").read_text(errors="replace").strip().splitlines()[-1][-300:]
        return ""

    def stop(self, child: subprocess.Popen[bytes], timeout: float = 5.0) -> None:
        """End one child and what is left of its session."""
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(timeout)
        # Workers that outlived their master are in the session that was made for it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if child in self.started:
            self.started.remove(child)

    def stop_all(self) -> None:
        """End them all, the last started first."""
        for child in reversed(list(self.started)):
            self.stop(child)


@contextlib.contextmanager
def children(logs: Path) -> Iterator[Children]:
    """Children that do not outlive the block; SIGTERM is made to end it as Ctrl-C does."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    held = Children(logs)
    try:
        yield held
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            held.stop_all()
        finally:
            signal.signal(signal.SIGINT, interrupted)
            signal.signal(signal.SIGTERM, before)


def wait_until(what: str, ready: Callable[[], bool], timeout: float = 15.0) -> None:
    """Ask READY until it says yes; a BenchError when it has not by then."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not ready after {timeout:g} s")
        time.sleep(0.05)
