"""How long do other requests wait while a document of 5 MB changes every second?

One connection requests a small document every 5 ms, first while nothing else happens and then while the large document
changes; the latencies of both are printed. A client that requests the large document every second adds the cost of
sending it. The goal: no other request waits longer than 20 ms.

    python -m tests.soak.stall [SECONDS]
"""

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.load import Background
from tests.integration.processes import folder_for
from tests.integration.servers import Livestate, RedisServer
from tests.integration.test_large import large_document
from tests.soak.script import run
from tests.support import replace


def measure_latencies(client: Client, seconds: float) -> list[float]:
    """Request the small document every 5 ms; return the latencies in milliseconds, sorted."""
    latencies = []
    due = time.perf_counter()
    end = due + seconds
    while due < end:
        time.sleep(max(0.0, due - time.perf_counter()))
        # Measured from when the request was due, so that delays of the following requests count too.
        client.get("/small")
        latencies.append((time.perf_counter() - due) * 1000)
        due += 0.005
    return sorted(latencies)


def summary(what: str, latencies: list[float]) -> str:
    """Return a line of figures."""
    p50, p99, p999 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99, 0.999))
    figures = f"p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, max {latencies[-1]:.2f}"
    return f"{what:<26} {len(latencies):>6} requests, ms: {figures}"


class Stall(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Measure and print, with the large document from a file and from Redis."""
        self.seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
        folder = folder_for(self)
        # A character outside Latin-1 makes checking the UTF-8 take eight times as long.
        self.contents = [large_document(version).replace("Meadow", "Łąka").encode() for version in range(4)]

        def replace_file(content: bytes) -> None:
            replace(folder / "large.json", content)

        store = RedisServer(self)
        for name, source, write in (("a file", "file:large.json", replace_file), ("Redis", store.url, store.set)):
            print(f"{len(self.contents[0]) / 1e6:.1f} MB from {name}, saved with --state-dir")
            self.measure(folder, source, write)

    def measure(self, folder: Path, source: str, write_document: Callable[[bytes], object]) -> None:
        """Start livestate, and measure it idle, while the large document changes, and while it is read as well."""
        (folder / "small.json").write_text('{"small": true}')
        write_document(self.contents[0])
        service = Livestate(
            self, "--source=/small=file:small.json", f"--source=/large={source}", "--state-dir=state", folder=folder
        )
        service.until_served("/small")
        service.until_served("/large")
        time.sleep(3)
        client = service.client()
        print(summary("nothing else happens", measure_latencies(client, 5)), flush=True)
        poller = service.client()
        contents = itertools.cycle([*self.contents[1:], self.contents[0]])

        def write() -> None:
            write_document(next(contents))

        def poll() -> None:
            poller.get("/large", Accept_Encoding="br")

        for what, work in (("it changes every second", [write]), ("and is read every second", [write, poll])):
            working = Background(self, *work, pause=1)
            before = service.status("/large")["changes"]
            print(summary(what, measure_latencies(client, self.seconds)), flush=True)
            print(f"{'':<26} {service.status('/large')['changes'] - before} changes")
            working.stop()
        client.close()
        poller.close()
        service.stop()


if __name__ == "__main__":
    run(Stall())
