"""Child processes that end with the test, waiting with a limit, and ports and folders that no one else uses."""

import itertools
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

T = TypeVar("T")

#: Seconds. Nothing takes longer, even on a busy machine, so that only a failing test waits so long.
LIMIT = 20.0

#: The exit code of livestate after SIGTERM.
TERMINATED = 0

#: Ports come in blocks of this size. Each block is used by one process only, so that parallel test runs never clash.
#: All ports are below those that the kernel assigns to outgoing connections, from 32768.
_BLOCK = 600
_BLOCKS = range(20000, 32000, _BLOCK)


@cache
def _ports() -> "itertools.cycle[int]":
    """Claim a block of ports by binding a Unix socket of its name, which the kernel closes with the process."""
    for first in random.sample(_BLOCKS, len(_BLOCKS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0livestate-tests-{first}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return itertools.cycle(random.sample(range(first, first + _BLOCK), _BLOCK))
    raise AssertionError(f"{len(_BLOCKS)} test runs are using all ports")


_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is not in use. It comes back only after some hundred calls."""
    for port in itertools.islice(_ports(), _BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("there is no free port")


def until(condition: Callable[[], T], what: str, seconds: float = LIMIT) -> T:
    """Wait until `condition` returns something true, and return that.

    :raises AssertionError: when it takes longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def folder_for(case: SynchronousTestCase) -> Path:
    """Return a new folder that is removed after the test. Its name is short enough for a Unix socket in it."""
    folder = Path(tempfile.mkdtemp(prefix="livestate-"))
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def program(name: str) -> str:
    """Return the path of a command that is installed next to this Python."""
    return str(Path(sys.executable).parent / name)


def program_of(name: str) -> str:
    """Return the path of a program of the system, which may be one for administrators.

    :raises AssertionError: when it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is not installed: apt-get install varnish nginx haproxy hitch wrk slowhttptest"
    return found


def twistd_arguments() -> list[str]:
    """Return the first arguments of a twistd command, with the reactor that the environment names."""
    reactor = os.environ.get("LIVESTATE_TEST_REACTOR", "")
    return [program("twistd"), *([f"--reactor={reactor}"] if reactor else [])]


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    timeout: float = LIMIT,
) -> subprocess.CompletedProcess[str]:
    """Run a command that exits by itself, and return its exit code and output."""
    ran = subprocess.run(
        [*map(str, arguments)],
        cwd=cwd, input=stdin, env=env, capture_output=True, timeout=timeout, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


class Child:
    """One child process, killed after the test if it still runs. Its output goes to a file."""

    def __init__(
        self,
        case: SynchronousTestCase,
        arguments: Iterable[str | Path],
        folder: Path,
        env: dict[str, str] | None = None,
        pass_fds: Collection[int] = (),
    ) -> None:
        self._output = folder / f"output-{time.monotonic_ns()}"
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                [*map(str, arguments)],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, pass_fds=pass_fds,
            )  # fmt: skip
        case.addCleanup(self.kill)

    @property
    def output(self) -> str:
        """The output so far."""
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, answering: Callable[[], bool], what: str) -> None:
        """Wait until the child responds. Fail at once if it exits first."""

        def answers_or_ended() -> bool:
            assert self.process.poll() is None, f"{what} ended with {self.process.returncode}: {self.output}"
            return answering()

        until(answers_or_ended, what)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process is gone."""
        self.process.kill()
        self.process.wait(LIMIT)


def ended(pid: int) -> bool:
    """Return whether the process `pid`, which is not our child, has exited. A zombie has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def children(pid: int) -> list[int]:
    """Return all descendants of the process `pid`."""
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [below for child in own for below in children(child)]


def memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def files(pid: int) -> int:
    """Return the number of open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
