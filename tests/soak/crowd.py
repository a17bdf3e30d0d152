"""20,000 connections of one address where 5,000 are allowed, beside honest readers of another.

Four client processes try to hold 5,000 connections each, half of them to HTTPS, from 127.0.0.1; who is closed, as all are
whose minute without a request is over, comes again within two seconds. livestate must hold 5,000 of them and no more, and
honest readers from 127.0.0.2 (`tests.soak.honest`) must have a p99 of less than five times what it is without the crowd,
and get new connections. When the crowd has gone, livestate must notice at once.

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
from tests.soak.attackers import MOST, kept
from tests.soak.honest import measure
from tests.soak.script import beside, run

#: Connections that one address may have, and what each process of the crowd tries to have.
ALLOWED, WANTED, PROCESSES = 5000, 5000, 4

#: What honest readers' connections and the tests' own may add.
FEW = 20


class CrowdRun(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Measure, print, and fail where honest readers notice."""
        seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
        service = Livestate(self, "--source=demo:", f"--max-connections-per-address={ALLOWED}", https="")
        service.until_served()
        measure(self, service, "warming up", 3, "127.0.0.2")
        usual = measure(self, service, "alone", seconds / 2, "127.0.0.2")
        before = memory(service.pid)
        crowd = [beside(self, service, __spec__.name, "crowd") for _ in range(PROCESSES)]
        until(lambda: self.connections(service) >= ALLOWED, "as many are there as may be", 60)
        under = measure(self, service, "beside the crowd", seconds, "127.0.0.2")
        most = 0
        for _ in range(30):
            self.assertEqual(Client(service.http, source="127.0.0.2").get().status, 200)
            most = max(most, self.connections(service))
            time.sleep(0.1)
        self.assertTrue(ALLOWED - FEW <= most <= ALLOWED + FEW, f"{most} connections")
        refused = exported(service)["livestate_connections_refused_total", ("reason", "address")]
        print(
            f"{most} connections, {refused:.0f} were refused, {files(service.pid)} files, "
            f"{(memory(service.pid) - before) / 1e6:+.1f} MB; p99 is {under / usual:.1f} times the usual"
        )
        for process in crowd:
            process.kill()
            process.wait()
        went = time.monotonic()
        until(lambda: self.connections(service) < FEW, "they are gone", 10)
        print(f"gone {time.monotonic() - went:.1f} s after their processes\nlogged:\n{service.log}")
        self.assertLess(under / usual, MOST)
        self.assertEqual(service.stop(), 0)

    def connections(self, service: Livestate) -> int:
        """Give how many there are now."""
        return int(exported(service)["livestate_connections",])


def crowd(http: int, https: int) -> None:
    """Be a process of the crowd."""
    both = [kept(port, WANTED // 2, _stay, 1.0) for port in (http, https)]
    while True:
        for one in both:
            next(one)


def _stay(sock: socket.socket, number: int) -> None:
    if not sock.recv(1):
        raise ConnectionError


if __name__ == "__main__":
    if sys.argv[1:2] == ["crowd"]:
        crowd(*map(int, sys.argv[2:4]))
    run(CrowdRun())
