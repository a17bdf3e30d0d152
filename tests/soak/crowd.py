"""20,000 connections from one address with a limit of 5,000, and honest clients from another address.

Four client processes try to hold 5,000 connections each, half of them over HTTPS, from 127.0.0.1. A closed connection
(all of them reach the idle timeout) is opened again within two seconds. livestate must hold 5,000 connections and no
more. Honest clients from 127.0.0.2 (`tests.soak.honest`) must get new connections, and their p99 must stay below five
times the p99 without the crowd. When the crowd is killed, livestate must notice at once.

    python -m tests.soak.crowd [SECONDS]
"""

import socket
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.http import Client
from tests.integration.processes import files, memory, until
from tests.integration.servers import Livestate
from tests.integration.test_metrics import exported
from tests.soak.attackers import MAX_RATIO, keep_open
from tests.soak.honest import measure
from tests.soak.script import run, start_process

#: The limit per address, the connections that each process of the crowd tries to open, and the number of processes.
ALLOWED, WANTED, PROCESSES = 5000, 5000, 4

#: Maximum number of additional connections: those of honest clients and of the test itself.
FEW = 20


class CrowdRun(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Measure and print; fail if honest clients are affected."""
        seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
        service = Livestate(self, "--source=demo:", f"--max-connections-per-address={ALLOWED}", https="")
        service.until_served()
        measure(self, service, "warming up", 3, "127.0.0.2")
        baseline = measure(self, service, "alone", seconds / 2, "127.0.0.2")
        before = memory(service.pid)
        crowd = [start_process(self, service, __spec__.name, "crowd") for _ in range(PROCESSES)]
        until(lambda: self.connections(service) >= ALLOWED, "the limit is reached", 60)
        with_crowd = measure(self, service, "with the crowd", seconds, "127.0.0.2")
        connection_count = 0
        for _ in range(30):
            self.assertEqual(Client(service.http, source="127.0.0.2").get().status, 200)
            connection_count = max(connection_count, self.connections(service))
            time.sleep(0.1)
        self.assertTrue(ALLOWED - FEW <= connection_count <= ALLOWED + FEW, f"{connection_count} connections")
        refused = exported(service)["livestate_connections_refused_total", ("reason", "address")]
        print(
            f"{connection_count} connections, {refused:.0f} were refused, {files(service.pid)} files, "
            f"{(memory(service.pid) - before) / 1e6:+.1f} MB; p99 is {with_crowd / baseline:.1f} times the baseline"
        )
        for process in crowd:
            process.kill()
            process.wait()
        killed_at = time.monotonic()
        until(lambda: self.connections(service) < FEW, "they are gone", 10)
        print(f"gone {time.monotonic() - killed_at:.1f} s after their processes\nlogged:\n{service.log}")
        self.assertLess(with_crowd / baseline, MAX_RATIO)
        self.assertEqual(service.stop(), 0)

    def connections(self, service: Livestate) -> int:
        """Return the number of open connections."""
        return int(exported(service)["livestate_connections",])


def crowd(http: int, https: int) -> None:
    """Run a process of the crowd: keep opening connections until it is killed."""
    generators = [keep_open(port, WANTED // 2, _stay, 1.0) for port in (http, https)]
    while True:
        for generator in generators:
            next(generator)


def _stay(sock: socket.socket, number: int) -> None:
    if not sock.recv(1):
        raise ConnectionError


if __name__ == "__main__":
    if sys.argv[1:2] == ["crowd"]:
        crowd(*map(int, sys.argv[2:4]))
    run(CrowdRun())
