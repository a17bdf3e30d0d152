"""Honest readers: how long they wait for their answers, whatever else goes on."""

import statistics
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.servers import Livestate


def measure(case: SynchronousTestCase, service: Livestate, what: str, seconds: float, source: str = "") -> float:
    """Be ten of them, half over HTTPS, who ask twenty times a second each; print, and give, the p99 in seconds.

    An answer that does not come fails `case`.

    :param source: the address that they come from.
    """
    latencies: list[float] = []
    errors: list[BaseException] = []
    end = time.monotonic() + seconds

    def read(client: Client) -> None:
        try:
            while time.monotonic() < end:
                began = time.perf_counter()
                assert client.get().status == 200
                latencies.append(time.perf_counter() - began)
                time.sleep(0.05)
        except BaseException as error:
            errors.append(error)
        finally:
            client.close()

    urls = [(service.http, service.https)[number % 2] for number in range(10)]
    readers = [threading.Thread(target=read, args=(Client(url, service.cafile, source),)) for url in urls]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    case.assertEqual(errors, [])
    cuts = statistics.quantiles(latencies, n=100)
    print(
        f"{what}: {len(latencies)} requests, ms: p50 {1e3 * cuts[49]:.2f}, p99 {1e3 * cuts[98]:.2f}, "
        f"max {1e3 * max(latencies):.1f}",
        flush=True,
    )
    return cuts[98]
