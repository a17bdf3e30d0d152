"""The metrics of processes that the kernel keeps."""

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.web.admin.process_metrics import ProcessMetrics, worker_metrics


class ProcessMetricsTests(SynchronousTestCase):
    """The metrics of this process, and of workers."""

    def test_only_processes(self):
        """All metrics are exported when /proc shows only processes, as in the sandbox of the systemd unit."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "self").symlink_to("/proc/self")
            metrics = {metric.name: metric.samples for metric in ProcessMetrics(proc=folder, registry=None).collect()}
        self.assertEqual(len(metrics), 6)
        started = metrics["process_start_time_seconds"][0].value
        self.assertTrue(0 <= time.time() - started < 86400, started)
        self.assertEqual(metrics["process_max_fds"][0].value, resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def test_workers(self):
        """There is a sample for each current worker that has a process, and one for each reason of a restart."""
        workers: list[dict[str, Any]] = [
            {"worker": 1, "pid": os.getpid(), "restarts": 3, "unresponsive_restarts": 1},
            {"worker": 2, "pid": None, "restarts": 4, "unresponsive_restarts": 0},
            # It has exited, which was not noticed yet: there is no process with this id.
            {"worker": 3, "pid": 2**22 + 1, "restarts": 0, "unresponsive_restarts": 0},
            {"worker": 1, "pid": os.getppid(), "draining": True},
        ]
        samples = {metric.name: metric.samples for metric in worker_metrics(workers)}
        self.assertEqual(
            {sample.labels["reason"]: sample.value for sample in samples.pop("livestate_worker_restarts")},
            {"died": 6, "unresponsive": 1},
        )
        self.assertEqual(len(samples), 5)
        for name, (sample,) in samples.items():
            self.assertEqual(sample.labels, {"worker": "1"})
            self.assertGreater(sample.value, 0, name)

    def test_no_workers(self):
        """Without workers, all metrics are announced, without samples."""
        self.assertEqual([metric.samples for metric in worker_metrics(())], [[]] * 6)
