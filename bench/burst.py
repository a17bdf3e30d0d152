"""The throughput of two cores without a load generator beside it: `python -m bench.burst [ROUNDS [CONNECTIONS]]`.

On a machine with two cores, a client that asks while two workers answer takes CPU from them. So the client is done
before they begin: the workers are stopped (SIGSTOP), one request is sent on each connection, which the kernel keeps,
and when the client sleeps the workers go on. Until all is answered each of them only runs or waits for a core, and the
kernel counts both in nanoseconds (/proc/PID/schedstat): their sum is the time that it took, and the longest worker's is
that of the burst. The answers wait in the client's sockets, and are read and counted afterwards. One process is
measured in the same way, in turn.

Each worker is bound to a core. Two that go on at the same moment are else put on one by the kernel, until it spreads
them some milliseconds later (7 of a burst's 40, at the median), which it does once and not each second where a load is
steady. Where this may (as root) they are given precedence too. What else runs on the machine makes bursts longer, never
shorter: medians are compared, and the shortest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.process import raise_file_limit
from bench.workers import Subject

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: br\r\n\r\n"

#: Seconds between two looks at whether all is answered.
CHECK_INTERVAL = 0.05


def ran(pid: int) -> float:
    """Give the seconds that a process has run or waited for a core."""
    running, waiting, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return (int(running) + int(waiting)) / 1e9


def asleep(pid: int) -> bool:
    """Tell whether a process waits for something to do."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def servers(subject: Subject) -> list[int]:
    """Give the processes that serve."""
    return [worker["pid"] for worker in subject.status().get("workers", [])] or [subject.pid]


class Clients:
    """Connections that have each been answered once."""

    def __init__(self, port: int, count: int, tls: bool) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._sockets: list[Any] = []
        for _ in range(count):
            sock: Any = socket.create_connection(("127.0.0.1", port), 30)
            if tls:
                sock = context.wrap_socket(sock)
            self._sockets.append(sock)
            sock.sendall(REQUEST)
        self.read()

    def send(self) -> None:
        """Ask once on each."""
        for sock in self._sockets:
            sock.sendall(REQUEST)

    def read(self) -> None:
        """Read an answer from each; one that is not whole raises an error."""
        for sock in self._sockets:
            data = b""
            while b"\r\n\r\n" not in data:
                data += _some(sock)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += _some(sock)

    def close(self) -> None:
        """Let go."""
        for sock in self._sockets:
            sock.close()


def _some(sock: Any) -> bytes:
    data: bytes = sock.recv(65536)
    if not data:
        raise SystemExit("a connection was closed")
    return data


def burst(subject: Subject, clients: Clients) -> float:
    """Give the seconds of one."""
    pids = servers(subject)
    cores = sorted(os.sched_getaffinity(0))
    for place, pid in enumerate(pids):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, pid, -20)
        os.sched_setaffinity(pid, {cores[place % len(cores)]})
        os.kill(pid, signal.SIGSTOP)
    clients.send()
    before = [ran(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(CHECK_INTERVAL)
    while not all(asleep(pid) for pid in pids):
        time.sleep(CHECK_INTERVAL)
    longest = max(ran(pid) - was for pid, was in zip(pids, before, strict=True))
    clients.read()
    return longest


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 9500
    raise_file_limit()
    print(f"load average {os.getloadavg()[0]:.2f}, {count} connections, one request on each, {rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        subjects = [Subject(workers, Path(folder)) for workers in (1, 2)]
        try:
            for tls in (False, True):
                clients = [Clients(subject.https if tls else subject.http, count, tls) for subject in subjects]
                taken: list[list[float]] = [[], []]
                for _ in range(rounds):
                    for place, (subject, group) in enumerate(zip(subjects, clients, strict=True)):
                        taken[place].append(burst(subject, group))
                _show("HTTPS" if tls else "HTTP", count, *taken)
                for group in clients:
                    group.close()
        finally:
            for subject in subjects:
                subject.stop()


def _show(what: str, count: int, one: list[float], two: list[float]) -> None:
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    one_us, two_us = (
        [1e6 * seconds / count for seconds in (statistics.median(taken), min(taken))] for taken in (one, two)
    )
    print(
        f"{what:<6} one process {one_us[0]:.2f} µs a request (median; at best {one_us[1]:.2f}), two workers"
        f" {two_us[0]:.2f} ({two_us[1]:.2f}): throughput {one_us[0] / two_us[0]:.2f} times one's"
        f" ({one_us[1] / two_us[1]:.2f}), rounds {min(ratios):.2f} to {max(ratios):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
