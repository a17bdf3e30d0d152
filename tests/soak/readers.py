"""30,000 persistent connections, half HTTP and half HTTPS, with 2,000 requests a second over them.

Four client processes (the bench's, which needs Go) have 7,500 connections each, and send a request over each of them
every 15 s. A closed connection or a missing response is an error, and there must be none. When all are connected, 200
more connect and send a request every second. Latencies are measured on those 200, since the others' include the initial
rush of connecting.

    python -m tests.soak.readers [SECONDS [WORKERS]]
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench import client, cpu
from tests.integration.processes import folder_for, until
from tests.integration.servers import Livestate
from tests.soak.script import run

#: Connections of each client process, and seconds between two requests on a connection.
CONNECTIONS, INTERVAL = 7500, 15


class PersistentConnections(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Generate the load and print the results; fail if a connection or response was lost."""
        seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
        workers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
        service = Livestate(self, "--source=demo:", f"--workers={workers}", https="")
        service.until_served()
        binary = client.build(folder_for(self))
        assert binary is not None, "this needs Go"
        before = cpu.memory(cpu.tree([service.pid]))[1]
        used, start = cpu.seconds(cpu.tree([service.pid])), time.monotonic()
        clients = [self.start_client(binary, url, seconds) for url in (service.http, service.https) * 2]
        until(lambda: self.connections(service) >= 4 * CONNECTIONS, "all are connected", 120)
        print(f"{self.connections(service)} connections after {time.monotonic() - start:.0f} s", flush=True)
        rest = int(start + seconds - time.monotonic())
        clients += [self.start_client(binary, url, rest, 100, 1) for url in (service.http, service.https)]
        while time.monotonic() < start + seconds - 10:
            time.sleep(min(30.0, max(0.1, start + seconds - 10 - time.monotonic())))
            self.print_state(service, before)
        results: list[tuple[str, Any]] = []
        for process, url in zip(clients, (service.http, service.https) * 3, strict=True):
            output, _ = process.communicate(timeout=120)
            results.append((url.partition(":")[0], json.loads(output)))
        used = cpu.seconds(cpu.tree([service.pid])) - used
        total = sum(result["requests"] for _, result in results)
        for kind, result in results:
            p50, p99, maximum = (result[name] / 1000 for name in ("p50_us", "p99_us", "max_us"))
            print(
                f"{kind:<5} {result['readers']} readers, {result['requests']} requests, {result['errors']} errors {result['first_error']}, ms: "
                f"p50 {p50:.2f}, p99 {p99:.2f}, max {maximum:.1f}"
            )
        print(f"{total / (time.monotonic() - start):.0f} requests a second, {1e6 * used / total:.0f} µs of CPU each")
        self.assertEqual(sum(result["errors"] for _, result in results), 0)
        service.stop()

    def start_client(
        self, binary: Path, url: str, seconds: int, connections: int = CONNECTIONS, interval: int = INTERVAL
    ) -> subprocess.Popen[bytes]:
        """Start a client process."""
        tls = ["-tls"] if url.startswith("https") else []
        argv = [str(binary), "poll", "-address", url.partition("//")[2], "-path", "/", *tls]
        argv += ["-readers", str(connections), "-every", f"{interval}s", "-seconds", str(seconds), "-mode", "poll"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.addCleanup(process.kill)
        return process

    def connections(self, service: Livestate) -> int:
        """Return the number of open connections."""
        return sum(worker["connections"] for worker in service.workers())

    def print_state(self, service: Livestate, before: float) -> None:
        """Print the current connections, memory and restarts."""
        pss = cpu.memory(cpu.tree([service.pid]))[1]
        shares = [worker["connections"] for worker in service.workers()]
        restarts = sum(worker["restarts"] for worker in service.workers())
        print(
            f"{sum(shares)} connections {shares}, {pss / 1024:.0f} MB, {(pss - before) / max(1, sum(shares)):.1f} KB "
            f"each, {restarts} restarts, load average {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    run(PersistentConnections())
