"""slowhttptest in all its modes: slow heads, slow bodies, ranges, slow reading. It needs the Debian package.

Each mode holds as many connections as it can for a while, over HTTP and over HTTPS, while another client asks ten times
a second. livestate must be available throughout (slowhttptest's own word), must have got rid of those connections by the
end (which a slow reader has yet to read), and must answer the honest client each time.

    python -m tests.soak.slow [SECONDS [CONNECTIONS]]
"""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.processes import memory, program_of
from tests.integration.servers import Livestate
from tests.integration.test_metrics import exported
from tests.soak.script import run

#: slowhttptest's options, by what it does then.
MODES = {
    "slow heads": ["-H", "-i", "1"],
    "slow bodies": ["-B", "-i", "1", "-s", "100000"],
    "ranges": ["-R", "-a", "1", "-b", "3000"],
    "slow reading": ["-X", "-w", "1", "-y", "64", "-n", "1", "-z", "5", "-k", "10"],
}

#: Seconds after which livestate has closed all of them: a sweep more than a minute, and a farewell.
BOUND = 90


class Slow(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Run all modes, print, and fail where one of them does harm."""
        seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
        connections = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
        service = Livestate(self, "--source=demo:", https="")
        service.until_served()
        before, logged, wrong = memory(service.pid), len(service.log), []
        for url in (service.http, service.https):
            for name, options in MODES.items():
                said, latencies = self.attacked(
                    service.client(url == service.https), url, options, seconds, connections
                )
                held = int(exported(service)["livestate_connections",])
                most = max(map(int, re.findall(r"connected: +(\d+)", said)), default=0)
                ended = re.search(r"Test ended on (\d+)", said)
                status = re.search(r"Exit status: *(.*)", said)
                available = "NO" not in re.findall(r"service available: +(\w+)", said)
                latencies.sort()
                print(
                    f"{url.partition(':')[0]} {name}: {most} connections at once, ended after {ended and ended[1]} s "
                    f"({status and status[1]}), {held} held by livestate, available: {available}, honest: {len(latencies)} requests, "
                    f"p99 {1e3 * latencies[len(latencies) * 99 // 100]:.1f} ms, max {1e3 * latencies[-1]:.1f}; "
                    f"{(memory(service.pid) - before) / 1e6:+.1f} MB",
                    flush=True,
                )
                if not available or (held > 2 and seconds > BOUND):
                    wrong.append(f"{url} {name}")
        print(f"{len(service.log) - logged} bytes were logged meanwhile")
        self.assertEqual(wrong, [])
        service.stop()

    def attacked(
        self, honest: Client, url: str, options: list[str], seconds: int, connections: int
    ) -> tuple[str, list[float]]:
        """Run slowhttptest; give what it said, and how long an honest client waited for each answer meanwhile."""
        arguments = [*options, "-c", str(connections), "-r", "500", "-l", str(seconds), "-p", "5", "-u", f"{url}/"]
        latencies: list[float] = []
        errors: list[BaseException] = []
        stop = threading.Event()

        def ask() -> None:
            try:
                while not stop.wait(0.1):
                    began = time.perf_counter()
                    assert honest.get().status == 200
                    latencies.append(time.perf_counter() - began)
            except BaseException as error:
                errors.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        program: str | Path = program_of("slowhttptest")
        ran = subprocess.run(
            ["nice", "-n", "10", program, *arguments], capture_output=True, text=True, timeout=seconds + 60, check=False
        )
        stop.set()
        asking.join()
        self.assertEqual(errors, [])
        return re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout), latencies


if __name__ == "__main__":
    run(Slow())
