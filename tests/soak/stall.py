"""How long do other requests wait while a document of 5 MB changes each second?

One connection asks for a small document every 5 ms, first while nothing else happens and then while the large one
changes, and both its latencies are printed. A reader of the large one who asks for it each second adds the sending.

    python -m tests.soak.stall [SECONDS]
"""

import sys
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.processes import folder_for
from tests.integration.servers import Livestate
from tests.integration.test_large import large_document


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
        f"{what:<32} {len(taken):>6} requests, ms: p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, max {taken[-1]:.2f}"
    )


class Stall(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Measure and print."""
        seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
        folder = folder_for(self)
        contents = [large_document(version) for version in range(4)]
        (folder / "small.json").write_text('{"small": true}')
        (folder / "large.json").write_text(contents[0])
        service = Livestate(self, "--source=/small=file:small.json", "--source=/large=file:large.json", folder=folder)
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
                (folder / "new").write_text(contents[number % len(contents)])
                (folder / "new").rename(folder / "large.json")

        def read() -> None:
            reader = service.client()
            while not stop.wait(1):
                reader.get("/large", Accept_Encoding="br")
            reader.close()

        for what, work in (("5 MB change each second", [write]), ("and are read each second", [write, read])):
            stop.clear()
            threads = [threading.Thread(target=job, daemon=True) for job in work]
            for thread in threads:
                thread.start()
            before = service.status("/large")["changes"]
            print(shown(what, latencies(client, seconds)), flush=True)
            print(f"{'':<32} {service.status('/large')['changes'] - before} changes")
            stop.set()
            for thread in threads:
                thread.join(10)
        client.close()


if __name__ == "__main__":
    case = Stall()
    result = case.defaultTestResult()
    case.run(result)
    for _, trouble in [*result.errors, *result.failures]:
        print(trouble, file=sys.stderr)
    sys.exit(not result.wasSuccessful())
