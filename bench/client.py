"""The bench's own client (client/*.go): new connections, idle connections, polling clients, and subscribers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import cpu
from bench.peers.peer import PATH, Server, program
from bench.process import BenchError, Children, run
from bench.wrk import Round

SOURCE = Path(__file__).with_name("client")
WORKERS = 32
# Streams per process. A process may open 20,000 files; several processes are closer to many separate clients.
STREAMS = 5_000


def build(folder: Path) -> Path | None:
    """Compile the client, and return its path, or None if Go is not installed."""
    compiler = program("go")
    if compiler is None:
        return None
    binary = folder / "client"
    run([compiler, "build", "-C", str(SOURCE), "-o", str(binary), "."], timeout=300)
    return binary


def _line(child: subprocess.Popen[bytes], timeout: float) -> dict[str, Any]:
    """Return the line of JSON that the client prints."""
    assert child.stdout is not None
    deadline = time.monotonic() + timeout
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(child.stdout.fileno(), 1 << 20) if ready else b""
        if not chunk:
            raise BenchError(f"the client printed no result within {timeout:g} s")
        text += chunk
    result: dict[str, Any] = json.loads(text)
    return result


def _argv(binary: Path, mode: str, server: Server, tls: bool) -> list[str]:
    port = server.port(tls)
    return [str(binary), mode, "-address", f"127.0.0.1:{port}", "-path", PATH, *(["-tls"] if tls else [])]


def connect(
    children: Children, binary: Path, server: Server, *, tls: bool, resume: bool, core: int, seconds: float
) -> Round:
    """Measure one round of new connections, over the client's whole run: it has no set-up to leave out."""
    argv = [*_argv(binary, "connect", server, tls), "-seconds", f"{seconds}", "-workers", str(WORKERS)]
    if resume:
        argv.append("-resume")
    before = cpu.seconds(cpu.tree(server.pids))
    child = children.start("client", argv, core=core, pipes=True)
    try:
        result = _line(child, seconds + 60)
    finally:
        children.stop(child)
    used = cpu.seconds(cpu.tree(server.pids)) - before
    count = int(result["connections"])
    if not count or server.has_exited():
        raise BenchError(f"{server.peer} accepted no connection: {result['first_error']} {children.log(server.peer)}")
    return Round(
        cpu_us=1e6 * used / count,
        rate=count / result["seconds"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        count=count,
        busy=used / result["seconds"],
        errors={result["first_error"][:80]: result["errors"]} if result["errors"] else {},
        resumed=result["resumed"] / count if tls else None,
    )


@contextmanager
def idle(children: Children, binary: Path, server: Server, *, tls: bool, connections: int, core: int) -> Iterator[int]:
    """Hold idle connections that have each sent one request, at most 15,000 per process. Yields their number."""
    processes: list[subprocess.Popen[bytes]] = []
    opened = 0
    try:
        while opened < connections:
            part = min(15_000, connections - opened)
            argv = [*_argv(binary, "idle", server, tls), "-connections", str(part)]
            processes.append(child := children.start("client", argv, core=core, pipes=True))
            result = _line(child, 60 + part / 50)
            if result["errors"]:
                raise BenchError(f"{server.peer}: {result['errors']} connections failed: {result['first_error']}")
            opened += part
        yield opened
    finally:
        for child in processes:
            children.stop(child)


def poll(
    children: Children,
    binary: Path,
    server: Server,
    *,
    tls: bool = False,
    readers: int,
    every: float,
    seconds: float,
    mode: str,
    core: int,
) -> subprocess.Popen[bytes]:
    """Start polling clients. `poll_result` waits for their result."""
    argv = [*_argv(binary, "poll", server, tls), "-readers", str(readers), "-every", f"{every}s"]
    argv += ["-seconds", f"{seconds}", "-mode", mode, "-events", f"{PATH}/events"]
    return children.start("client", argv, core=core, pipes=True)


def poll_result(children: Children, child: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    """Return the result of polling clients."""
    try:
        return _line(child, seconds + 60)
    finally:
        children.stop(child)


def streams(
    children: Children, binary: Path, server: Server, *, tls: bool, readers: int, length: int, core: int
) -> list[subprocess.Popen[bytes]]:
    """Open READERS event streams in several processes. `close_streams` ends a process and returns its result."""
    if server.events is None:
        raise BenchError("has no event stream")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for opened in range(0, readers, STREAMS):
            part = min(STREAMS, readers - opened)
            argv = [*_argv(binary, "events", server, tls), "-readers", str(part)]
            argv += ["-events", server.events, "-length", str(length)]
            processes.append(child := children.start("client", argv, core=core, pipes=True))
            result = _line(child, 60 + part / 50)
            if result["errors"]:
                raise BenchError(f"{result['errors']} of {part} streams failed: {result['first_error']}")
    except BaseException:
        for child in processes:
            children.stop(child)
        raise
    return processes


def close_streams(children: Children, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Close the streams of one process, and return what its subscribers received."""
    assert child.stdin is not None
    try:
        child.stdin.close()
        return _line(child, 60)
    finally:
        children.stop(child)
