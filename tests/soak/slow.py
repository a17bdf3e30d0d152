"""slowhttptest in all its modes: slow heads, slow bodies, ranges, slow reading. It needs the Debian package.

Each mode holds as many connections as it can for a while, over HTTP and over HTTPS, while an honest client sends ten
requests a second. livestate must be available throughout (as slowhttptest reports it), must have closed the attacker's
connections by the end (though a slow reader may not have noticed yet), and must answer the honest client each time.

    python -m tests.soak.slow [SECONDS [CONNECTIONS]]
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.load import Background
from tests.integration.processes import memory, program_of
from tests.integration.servers import Livestate
from tests.integration.test_metrics import exported
from tests.soak.script import run

#: slowhttptest's options, by the name of the mode.
MODES = {
    "slow heads": ["-H", "-i", "1"],
    "slow bodies": ["-B", "-i", "1", "-s", "100000"],
    "ranges": ["-R", "-a", "1", "-b", "3000"],
    "slow reading": ["-X", "-w", "1", "-y", "64", "-n", "1", "-z", "5", "-k", "10"],
}

#: Seconds after which livestate has closed all of them: the idle timeout of a minute, a check, and the time until a
#: lingering connection is aborted.
BOUND = 90


class Slow(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Run all modes and print the results; fail if a mode does harm."""
        seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
        connections = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
        service = Livestate(self, "--source=demo:", https="")
        service.until_served()
        before, log_size, failures = memory(service.pid), len(service.log), []
        for url in (service.http, service.https):
            for name, options in MODES.items():
                output, latencies = self.attack(
                    service.client(url == service.https), url, options, seconds, connections
                )
                still_open = int(exported(service)["livestate_connections",])
                peak = max(map(int, re.findall(r"connected: +(\d+)", output)), default=0)
                ended = re.search(r"Test ended on (\d+)", output)
                status = re.search(r"Exit status: *(.*)", output)
                available = "NO" not in re.findall(r"service available: +(\w+)", output)
                latencies.sort()
                print(
                    f"{url.partition(':')[0]} {name}: {peak} connections at once, ended after {ended and ended[1]} s "
                    f"({status and status[1]}), {still_open} held by livestate, available: {available}, honest: {len(latencies)} requests, "
                    f"p99 {1e3 * latencies[len(latencies) * 99 // 100]:.1f} ms, max {1e3 * latencies[-1]:.1f}; "
                    f"{(memory(service.pid) - before) / 1e6:+.1f} MB",
                    flush=True,
                )
                if not available or (still_open > 2 and seconds > BOUND):
                    failures.append(f"{url} {name}")
        print(f"{len(service.log) - log_size} bytes were logged meanwhile")
        self.assertEqual(failures, [])
        service.stop()

    def attack(
        self, honest: Client, url: str, options: list[str], seconds: int, connections: int
    ) -> tuple[str, list[float]]:
        """Run slowhttptest; return its output, and the latencies in seconds of an honest client meanwhile."""
        arguments = [*options, "-c", str(connections), "-r", "500", "-l", str(seconds), "-p", "5", "-u", f"{url}/"]
        latencies: list[float] = []

        def poll() -> None:
            start = time.perf_counter()
            assert honest.get().status == 200
            latencies.append(time.perf_counter() - start)

        polling = Background(self, poll, pause=0.1)
        program: str | Path = program_of("slowhttptest")
        result = subprocess.run(
            ["nice", "-n", "10", program, *arguments], capture_output=True, text=True, timeout=seconds + 60, check=False
        )
        polling.stop()
        return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout), latencies


if __name__ == "__main__":
    run(Slow())
