"""CPU, memory and open files of livestate's processes, from the kernel, for `/metrics`.

The process that answers the scrape has the usual `process_` metrics of Prometheus. A scrape can have them for one
process only, so the same numbers of each worker have names of livestate's own. The answering process reads all of them,
at each scrape: a worker that counted its own open files would keep its clients waiting meanwhile.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class ProcessMetrics(ProcessCollector):
    """The metrics of one process."""

    def _boot_time(self) -> float:
        """Return when the system was booted, according to its clocks.

        The library reads `/proc/stat`, and exports nothing at all without it. The file is missing in a sandbox whose
        /proc shows only processes (ProcSubset=pid, as in etc/livestate.service).
        """
        if sys.platform != "linux":
            raise OSError("there is no /proc")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def worker_metrics(workers: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield the metrics of all workers. Without workers, the metrics have no samples.

    :param workers: the status of each, as in /status. Draining workers are left out: others have their numbers.
    """
    name = ["worker"]
    cpu = CounterMetricFamily("livestate_worker_cpu_seconds", "CPU time of each worker, in seconds.", labels=name)
    memory = GaugeMetricFamily(
        "livestate_worker_resident_memory_bytes", "Resident memory of each worker, in bytes.", labels=name
    )
    start = GaugeMetricFamily(
        "livestate_worker_start_time_seconds", "Start time of each worker, in seconds since 1970.", labels=name
    )
    open_fds = GaugeMetricFamily("livestate_worker_open_fds", "Open files of each worker.", labels=name)
    max_fds = GaugeMetricFamily("livestate_worker_max_fds", "Maximum number of open files of each worker.", labels=name)
    restarts = CounterMetricFamily(
        "livestate_worker_restarts",
        "Workers that were replaced, by reason: they died, or were unresponsive and were killed.",
        labels=["reason"],
    )
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        "process_cpu_seconds_total": cpu,
        "process_resident_memory_bytes": memory,
        "process_start_time_seconds": start,
        "process_open_fds": open_fds,
        "process_max_fds": max_fds,
    }
    current = [worker for worker in workers if not worker.get("draining")]
    for worker in current:
        if worker["pid"] is None:
            continue
        for metric in ProcessMetrics(pid=lambda pid=worker["pid"]: pid, registry=None).collect():  # type: ignore[misc]
            for sample in metric.samples:
                if sample.name in families:
                    families[sample.name].add_metric([str(worker["worker"])], sample.value)
    if current:
        unresponsive = sum(worker["unresponsive_restarts"] for worker in current)
        restarts.add_metric(["died"], sum(worker["restarts"] for worker in current) - unresponsive)
        restarts.add_metric(["unresponsive"], unresponsive)
    yield from (*families.values(), restarts)
