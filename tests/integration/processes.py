"""Child processes that end with the test, waiting with a limit, and ports and folders of one's own."""

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

#: Seconds: longer than anything here takes on a busy machine. Only a failing test waits so long.
LIMIT = 20.0

#: The exit code of a livestate that SIGTERM has ended in an orderly way.
TERMINATED = 0

#: Ports are taken from blocks of so many, each used by one process only: test runs side by side never clash. All are
#: below the range that the kernel assigns to outgoing connections (from 32768), so that none of these takes one of ours.
_BLOCK = 600
_BLOCKS = range(20000, 32000, _BLOCK)


@cache
def _ports() -> "itertools.cycle[int]":
    """Claim a block of ports. A Unix socket with its name, which the kernel closes with the process, is the claim."""
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
    """Return a TCP port of 127.0.0.1 that is not in use, a different one in each of some hundred calls."""
    for port in itertools.islice(_ports(), _BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("there is no free port")


def until(condition: Callable[[], T], what: str, seconds: float = LIMIT) -> T:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def folder_for(case: SynchronousTestCase) -> Path:
    """Give an empty folder that is removed after the test; its name is short enough for a Unix socket in it."""
    folder = Path(tempfile.mkdtemp(prefix="livestate-"))
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def program(name: str) -> str:
    """Give the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def program_of(name: str) -> str:
    """Return the path of a program of the system, also of those for administrators; a missing one is a failure."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is not installed: apt-get install varnish nginx haproxy hitch wrk slowhttptest"
    return found


def twistd_arguments() -> list[str]:
    """Give the beginning of a twistd command: livestate's own reactor, or the one that the environment names."""
    reactor = os.environ.get("LIVESTATE_TEST_REACTOR", "")
    return [program("twistd"), *([f"--reactor={reactor}"] if reactor else [])]


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    timeout: float = LIMIT,
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    ran = subprocess.run(
        [*map(str, arguments)],
        cwd=cwd, input=stdin, env=env, capture_output=True, timeout=timeout, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


class Child:
    """One child process, killed after the test if it still runs; its output goes to a file."""

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
        """All that it has written so far."""
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, answering: Callable[[], bool], what: str) -> None:
        """Wait until the child answers; fail at once if it ends first."""

        def answers_or_ended() -> bool:
            assert self.process.poll() is None, f"{what} ended with {self.process.returncode}: {self.output}"
            return answering()

        until(answers_or_ended, what)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and give its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self.process.wait(LIMIT)


def ended(pid: int) -> bool:
    """Tell whether the process `pid`, which is not our child, is gone (or would be, had it a parent that waits)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def children(pid: int) -> list[int]:
    """Give all processes below `pid`."""
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [below for child in own for below in children(child)]


def memory(pid: int) -> int:
    """Give the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def files(pid: int) -> int:
    """Give the open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
