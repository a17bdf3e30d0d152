"""How long do other requests wait while a document of 5 MB changes each second?

One connection asks for a small document every 5 ms, first while nothing else happens and then while the large one
changes, and both its latencies are printed. A reader of the large one who asks for it each second adds the sending. The
bar: no other request waits for longer than 20 ms.

    python -m tests.soak.stall [SECONDS]
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.processes import folder_for
from tests.integration.servers import Livestate, RedisServer
from tests.integration.test_large import large_document
from tests.soak.script import run


def latencies(client: Client, seconds: float) -> list[float]:
    """Ask for the small document every 5 ms; give the milliseconds of each answer, sorted."""
    taken = []
    following = time.perf_counter()
    end = following + seconds
    while following < end:
        time.sleep(max(0.0, following - time.perf_counter()))
        # Counted from when it was due: an answer that is late makes the next requests late, and that counts.
        client.get("/small")
        taken.append((time.perf_counter() - following) * 1000)
        following += 0.005
    return sorted(taken)


def shown(what: str, taken: list[float]) -> str:
    """Give a line of figures."""
    p50, p99, p999 = (taken[int(len(taken) * share)] for share in (0.5, 0.99, 0.999))
    return (
        f"{what:<26} {len(taken):>6} requests, ms: p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, max {taken[-1]:.2f}"
    )


class Stall(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Measure and print, with the large document from a file and from Redis."""
        self.seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
        folder = folder_for(self)
        # A sign beyond Latin-1 makes the check of UTF-8 eight times as long.
        self.contents = [large_document(version).replace("Meadow", "Łąka").encode() for version in range(4)]

        def replace(content: bytes) -> None:
            (folder / "new").write_bytes(content)
            (folder / "new").rename(folder / "large.json")

        store = RedisServer(self)
        for name, source, write in (("a file", "file:large.json", replace), ("Redis", store.url, store.set)):
            print(f"{len(self.contents[0]) / 1e6:.1f} MB from {name}, saved with --state-dir")
            self.measure(folder, source, write)

    def measure(self, folder: Path, source: str, put: Callable[[bytes], object]) -> None:
        """Start livestate and measure it, undisturbed and disturbed."""
        (folder / "small.json").write_text('{"small": true}')
        put(self.contents[0])
        service = Livestate(
            self, "--source=/small=file:small.json", f"--source=/large={source}", "--state-dir=state", folder=folder
        )
        service.until_served("/small")
        service.until_served("/large")
        time.sleep(3)
        client = service.client()
        print(shown("nothing else happens", latencies(client, 5)), flush=True)
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.wait(1):
                number += 1
                put(self.contents[number % len(self.contents)])

        def read() -> None:
            reader = service.client()
            while not stop.wait(1):
                reader.get("/large", Accept_Encoding="br")
            reader.close()

        for what, work in (("it changes each second", [write]), ("and is read each second", [write, read])):
            stop.clear()
            threads = [threading.Thread(target=job, daemon=True) for job in work]
            for thread in threads:
                thread.start()
            before = service.status("/large")["changes"]
            print(shown(what, latencies(client, self.seconds)), flush=True)
            print(f"{'':<26} {service.status('/large')['changes'] - before} changes")
            stop.set()
            for thread in threads:
                thread.join(10)
        client.close()
        service.stop()


if __name__ == "__main__":
    run(Stall())
