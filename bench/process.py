"""Child processes. Each is bound to one core, and stopped by its process id in a finally block, also on Ctrl-C."""

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
    """An error that the user can act on; printed as one line."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_file_limit() -> int:
    """Raise the limit of open files to its maximum, and return it. Child processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def run(argv: Sequence[str], *, timeout: float = 120.0, env: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its output.

    :raises BenchError: when it fails.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{argv[0]}: {error}") from error
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


@dataclass
class Children:
    """The processes of one run, stopped in the reverse order of their start."""

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
        """Start ARGV on CORE in a new session, so that Ctrl-C reaches only the bench, which then stops its children."""
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
        """Return the last line of a child's log, for an error message."""
        with contextlib.suppress(OSError, IndexError):
            return (self.logs / name / "log").read_text(errors="replace").strip().splitlines()[-1][-300:]
        return ""

    def stop(self, child: subprocess.Popen[bytes], timeout: float = 5.0) -> None:
        """Stop one child, and kill what remains of its session."""
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(timeout)
        # Workers that outlive their master are still in its session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if child in self.started:
            self.started.remove(child)

    def stop_all(self) -> None:
        """Stop all children, the last started first."""
        for child in reversed(list(self.started)):
            self.stop(child)


@contextlib.contextmanager
def children(logs: Path) -> Iterator[Children]:
    """Yield children that do not outlive the block. SIGTERM ends it like Ctrl-C."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    started = Children(logs)
    try:
        yield started
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            started.stop_all()
        finally:
            signal.signal(signal.SIGINT, interrupted)
            signal.signal(signal.SIGTERM, before)


def wait_until(what: str, ready: Callable[[], bool], timeout: float = 15.0) -> None:
    """Wait until READY returns true.

    :raises BenchError: when it does not within TIMEOUT seconds.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not ready after {timeout:g} s")
        time.sleep(0.05)
