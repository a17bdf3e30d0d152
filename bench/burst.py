"""Throughput of two cores without a load generator: `python -m bench.burst [ROUNDS [CONNECTIONS]]`.

On a machine with two cores, a load generator takes CPU from the two workers that it measures. So here the client is
finished before the workers start: they are stopped (SIGSTOP), one request is sent on each connection and waits in the
kernel, the client goes to sleep, and the workers continue. Until all requests are answered, a worker only runs or waits
for a core. The kernel counts both in nanoseconds (/proc/PID/schedstat). Their sum is the time that the worker took, and
the time of the burst is that of the slowest worker. The responses wait in the client's sockets, and are read and
checked afterwards. A single process is measured in the same way, in turn.

Each worker is bound to a core. Otherwise the kernel puts two workers that continue at the same moment on one core, and
spreads them some milliseconds later (7 of the 40 of a burst, at the median). Under a steady load it does so only once,
not every second. If permitted (as root), the workers also get a higher priority. Other work on the machine makes bursts
longer, never shorter, so the medians and the shortest bursts are compared.
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

#: Seconds between two checks whether all requests are answered.
CHECK_INTERVAL = 0.05


def ran(pid: int) -> float:
    """Return the seconds that a process has run or waited for a core."""
    running, waiting, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return (int(running) + int(waiting)) / 1e9


def asleep(pid: int) -> bool:
    """Return whether a process is sleeping."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def servers(subject: Subject) -> list[int]:
    """Return the ids of the processes that serve."""
    return [worker["pid"] for worker in subject.status().get("workers", [])] or [subject.pid]


class Clients:
    """Open connections that have each received one response."""

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
        """Send one request on each connection."""
        for sock in self._sockets:
            sock.sendall(REQUEST)

    def read(self) -> None:
        """Read a response from each connection.

        :raises SystemExit: when a connection is closed before its response is complete.
        """
        for sock in self._sockets:
            data = b""
            while b"\r\n\r\n" not in data:
                data += _receive(sock)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += _receive(sock)

    def close(self) -> None:
        """Close all connections."""
        for sock in self._sockets:
            sock.close()


def _receive(sock: Any) -> bytes:
    data: bytes = sock.recv(65536)
    if not data:
        raise SystemExit("a connection was closed")
    return data


def burst(subject: Subject, clients: Clients) -> float:
    """Run one burst, and return its duration in seconds."""
    pids = servers(subject)
    cores = sorted(os.sched_getaffinity(0))
    for index, pid in enumerate(pids):
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, pid, -20)
        os.sched_setaffinity(pid, {cores[index % len(cores)]})
        os.kill(pid, signal.SIGSTOP)
    clients.send()
    before = [ran(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(CHECK_INTERVAL)
    while not all(asleep(pid) for pid in pids):
        time.sleep(CHECK_INTERVAL)
    longest = max(ran(pid) - start for pid, start in zip(pids, before, strict=True))
    clients.read()
    return longest


def main() -> None:
    """Measure one process and two workers, and print the comparison."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 9500
    raise_file_limit()
    print(f"load average {os.getloadavg()[0]:.2f}, {count} connections, one request each, {rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        subjects = [Subject(workers, Path(folder)) for workers in (1, 2)]
        try:
            for tls in (False, True):
                clients = [Clients(subject.https if tls else subject.http, count, tls) for subject in subjects]
                durations: list[list[float]] = [[], []]
                for _ in range(rounds):
                    for index, (subject, group) in enumerate(zip(subjects, clients, strict=True)):
                        durations[index].append(burst(subject, group))
                _show("HTTPS" if tls else "HTTP", count, *durations)
                for group in clients:
                    group.close()
        finally:
            for subject in subjects:
                subject.stop()


def _show(what: str, count: int, one: list[float], two: list[float]) -> None:
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    one_us, two_us = (
        [1e6 * seconds / count for seconds in (statistics.median(times), min(times))] for times in (one, two)
    )
    print(
        f"{what:<6} one process {one_us[0]:.2f} µs per request (median; minimum {one_us[1]:.2f}), two workers"
        f" {two_us[0]:.2f} ({two_us[1]:.2f}): throughput {one_us[0] / two_us[0]:.2f} times one's"
        f" ({one_us[1] / two_us[1]:.2f}), rounds {min(ratios):.2f} to {max(ratios):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
