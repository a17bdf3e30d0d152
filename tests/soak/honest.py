"""Honest clients, whose latency is measured while something else goes on."""

import statistics
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.servers import Livestate


def measure(case: SynchronousTestCase, service: Livestate, what: str, seconds: float, source: str = "") -> float:
    """Poll with ten clients, half of them over HTTPS, twenty times a second each; print and return the p99 in seconds.

    A missing response fails `case`.

    :param source: the source address of the clients.
    """
    latencies: list[float] = []
    errors: list[BaseException] = []
    end = time.monotonic() + seconds

    def poll(client: Client) -> None:
        try:
            while time.monotonic() < end:
                start = time.perf_counter()
                assert client.get().status == 200
                latencies.append(time.perf_counter() - start)
                time.sleep(0.05)
        except BaseException as error:
            errors.append(error)
        finally:
            client.close()

    urls = [(service.http, service.https)[number % 2] for number in range(10)]
    threads = [threading.Thread(target=poll, args=(Client(url, service.cafile, source),)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    case.assertEqual(errors, [])
    cuts = statistics.quantiles(latencies, n=100)
    print(
        f"{what}: {len(latencies)} requests, ms: p50 {1e3 * cuts[49]:.2f}, p99 {1e3 * cuts[98]:.2f}, "
        f"max {1e3 * max(latencies):.1f}",
        flush=True,
    )
    return cuts[98]
