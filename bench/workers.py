"""The cost of several workers: `python -m bench.workers [ROUNDS [SECONDS]]`.

The same load goes to one process and to two workers, in turn. The CPU time of the server's whole process tree (with the
supervisor and the zygote) is divided by the number of requests. wrk and the two workers share two cores, so the request
rate says little. The throughput of two cores without wrk follows from two figures:

    throughput on two cores / on one = (CPU per request of one process / of two workers) / larger share

The larger share is that of the worker that has more of the connections: it reaches its limit first.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from bench import cpu
from bench.process import free_port, wait_until

CONNECTIONS = 1000


class Round(NamedTuple):
    """The result of one run of wrk."""

    cpu_us: float
    wrk_us: float
    rate: float
    larger_share: float


class Subject:
    """A livestate that serves the demo source."""

    def __init__(self, workers: int, folder: Path) -> None:
        self.workers = workers
        self.http, self.https, self.admin = free_port(), free_port(), free_port()
        local = "interface=127.0.0.1"
        self._process = subprocess.Popen(
            [
                *(Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "livestate", "--source=demo:"),
                *(f"--workers={workers}", f"--http=tcp:{self.http}:{local}", f"--https=ssl:{self.https}:{local}"),
                f"--admin=tcp:{self.admin}:{local}",
            ],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until("livestate", self._up, 20)

    @property
    def pid(self) -> int:
        """The id of its main process."""
        return self._process.pid

    def _up(self) -> bool:
        try:
            return all(worker["pid"] for worker in self.status().get("workers", []))
        except OSError:
            return False

    def status(self) -> Any:
        """Return the content of /status."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=30) as answer:
            return json.load(answer)

    def larger_share(self) -> float:
        """Return the larger share of the connections of a worker, as of the last second."""
        if self.workers == 1:
            return 1.0
        connections = [worker["connections"] for worker in self.status()["workers"]]
        return float(max(connections) / sum(connections))

    def run(self, tls: bool, seconds: int) -> Round:
        """Load the server with wrk, and measure it."""
        url = f"https://127.0.0.1:{self.https}/" if tls else f"http://127.0.0.1:{self.http}/"
        used = cpu.seconds(cpu.tree([self._process.pid]))
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--timeout", "10s", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
            time.sleep(0.7 * seconds)
            larger = self.larger_share()
            output, _ = wrk.communicate(timeout=seconds + 30)
        used = cpu.seconds(cpu.tree([self._process.pid])) - used
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if "errors" in output or "Non-2xx" in output:
            raise SystemExit(f"unexpected output of wrk: {output}")
        found = re.search(r"(\d+) requests in ([\d.]+)s", output)
        if found is None:
            raise SystemExit(f"unexpected output of wrk: {output}")
        count = int(found[1])
        load = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
        return Round(1e6 * used / count, 1e6 * load / count, count / float(found[2]), larger)

    def stop(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(30)


def main() -> None:
    """Measure one process and two workers, and print the comparison."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(f"load average {os.getloadavg()[0]:.2f}, {CONNECTIONS} connections, {rounds} rounds of {seconds} s, medians")
    with tempfile.TemporaryDirectory() as folder:
        subjects = [Subject(workers, Path(folder)) for workers in (1, 2)]
        try:
            for tls in (False, True):
                rounds_of: dict[int, list[Round]] = {subject.workers: [] for subject in subjects}
                for _ in range(rounds):
                    for subject in subjects:
                        rounds_of[subject.workers].append(subject.run(tls, seconds))
                _show("HTTPS" if tls else "HTTP", rounds_of[1], rounds_of[2])
        finally:
            for subject in subjects:
                subject.stop()


def _show(what: str, one: list[Round], two: list[Round]) -> None:
    for name, rounds in (("one process", one), ("two workers", two)):
        cost, wrk, rate, share = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{what:<6} {name}: {cost:6.2f} µs of CPU per request, {rate:8.0f} requests/s with wrk ({wrk:.2f} µs each),"
            f" larger share {share:.3f}"
        )
    ratios = [b.cpu_us / a.cpu_us for a, b in zip(one, two, strict=True)]
    ratio = statistics.median(ratios)
    share = statistics.median(r.larger_share for r in two)
    print(
        f"{what:<6} CPU per request: {ratio:.3f} times that of one ({min(ratios):.3f} to {max(ratios):.3f});"
        f" throughput on two cores without wrk: {1 / ratio / share:.2f} times that of one"
    )


if __name__ == "__main__":
    main()
