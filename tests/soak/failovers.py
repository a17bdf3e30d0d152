"""Failovers of real Redis servers, one after the other: does livestate leak, answer wrongly, or lag behind?

A primary, two replicas and three Sentinels; one livestate reads the primary, another one replicas, with a channel. In
turn the primary is killed with kill -9, made to hang, and switched with SENTINEL FAILOVER, and comes back. Readers ask
each 50 ms: each answer must be 200, and none older than one before. The files that each livestate has open are counted
at the start and after each failover.

    python -m tests.soak.failovers [FAILOVERS]
"""

import sys
import time

from tests.integration.processes import files, until
from tests.integration.redis_groups import SERVICE, SentinelGroup
from tests.integration.servers import Livestate
from tests.integration.test_redis_groups import GroupCase, Reader
from tests.soak.script import run


class Failovers(GroupCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Run and print."""
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
        group = SentinelGroup(self)
        services = [
            Livestate(self, f"--source={group.url}"),
            Livestate(self, f"--source={group.url}&read_from=prefer_replica&notify=news"),
        ]
        self.change(group, services, 1)
        readers: list[Reader] = []
        for service in services:
            self.read(service)
            readers += self.readers
        time.sleep(3)
        opened = [files(service.pid) for service in services]
        print(f"open files at the start: {opened}")
        for number in range(2, count + 2):
            kind = ("killed", "hung", "switched")[number % 3]
            for reader in readers:
                reader.ages.clear()
            old = group.primary()
            if kind == "killed":
                old.kill()
            elif kind == "hung":
                old.freeze()
            else:
                group.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)
            group.until_primary_is_not(old)
            taken = self.change(group, services, number)
            if kind == "killed":
                old.start()
            elif kind == "hung":
                old.thaw()
            until(lambda old=old: old.role() == "slave", "that the old primary is a replica", 60)  # type: ignore[misc]
            group.until_well()
            time.sleep(6)
            ages = [max(max(reader.ages) for reader in readers[n : n + 3]) for n in (0, 3)]
            print(
                f"{number - 1:>3} {kind:<8} a write on the new primary is served after "
                f"{', '.join(f'{seconds:.2f}' for seconds in taken)} s; longest ages {ages} s; "
                f"open files {[files(service.pid) for service in services]}",
                flush=True,
            )
        wrong = [text for reader in readers for text in reader.wrong]
        back = [reader for reader in readers if reader.versions != sorted(reader.versions)]
        answers = sum(len(reader.versions) for reader in readers)
        faults = sum(service.log.count("Traceback") for service in services)
        print(
            f"{answers:,} answers, {len(wrong)} of them wrong, {len(back)} readers saw an older version, {faults} faults"
        )

    def change(self, group: SentinelGroup, services: list[Livestate], version: int) -> list[float]:
        """Write on the primary and tell; give the seconds until each livestate serves it."""
        primary = group.primary()
        begun = time.monotonic()
        primary.set(str(version))
        primary.command("PUBLISH", "news", "")
        taken = []
        for service in services:
            service.until_body(str(version).encode())
            taken.append(time.monotonic() - begun)
        return taken


if __name__ == "__main__":
    run(Failovers())
