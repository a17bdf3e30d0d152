"""What the kernel says of the processes of livestate: CPU, memory and open files, for `/metrics`.

The process that answers has Prometheus' usual `process_` metrics. Of each worker there are the same numbers, under
names of livestate's own: a scrape has the `process_` metrics of one process only. They are read when they are asked
for, by the process that answers: a worker that counted its own open files would hold up its readers meanwhile.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class ProcessMetrics(ProcessCollector):
    """Of one process."""

    def _boot_time(self) -> float:
        """Give the time of the system's start by its clocks.

        The library reads `/proc/stat`, without which it gives no metrics at all; a sandbox that shows nothing but
        processes in /proc (ProcSubset=pid, as in etc/livestate.service) does not have it.
        """
        if sys.platform != "linux":
            raise OSError("there is no /proc")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def of_workers(workers: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    """Give what there is of each worker; the names are there without any worker too.

    :param workers: what /status says of each. Those that are being drained are left out: their places are others'.
    """
    name = ["worker"]
    cpu = CounterMetricFamily("livestate_worker_cpu_seconds", "CPU time of each worker.", labels=name)
    memory = GaugeMetricFamily("livestate_worker_resident_memory_bytes", "Memory of each worker.", labels=name)
    start = GaugeMetricFamily("livestate_worker_start_time_seconds", "When each worker started.", labels=name)
    open_fds = GaugeMetricFamily("livestate_worker_open_fds", "Open files of each worker.", labels=name)
    max_fds = GaugeMetricFamily("livestate_worker_max_fds", "Limit of open files of each worker.", labels=name)
    restarts = CounterMetricFamily(
        "livestate_worker_restarts",
        "Workers that were replaced, by why: they died, or were unresponsive and killed.",
        labels=["reason"],
    )
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        "process_cpu_seconds_total": cpu,
        "process_resident_memory_bytes": memory,
        "process_start_time_seconds": start,
        "process_open_fds": open_fds,
        "process_max_fds": max_fds,
    }
    placed = [worker for worker in workers if not worker.get("draining")]
    for worker in placed:
        if worker["pid"] is None:
            continue
        for metric in ProcessMetrics(pid=lambda pid=worker["pid"]: pid, registry=None).collect():  # type: ignore[misc]
            for sample in metric.samples:
                if sample.name in families:
                    families[sample.name].add_metric([str(worker["worker"])], sample.value)
    if placed:
        unresponsive = sum(worker["unresponsive_restarts"] for worker in placed)
        restarts.add_metric(["died"], sum(worker["restarts"] for worker in placed) - unresponsive)
        restarts.add_metric(["unresponsive"], unresponsive)
    yield from (*families.values(), restarts)
