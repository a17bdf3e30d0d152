"""5,000 readers of all kinds, a change each second, a fault of the store each minute, a worker killed each two minutes.

The readers (`mixed_readers`) check each byte of each answer, that no version goes back on a connection, and that nobody
is left with a document that is older than three seconds while the store works. What breaks must have a worker's death as
its reason. In the end the counters of /metrics must agree with what the readers counted, but for the second that a
killed worker takes with it.

    python -m tests.soak.mixed [SECONDS [READERS]]
"""

import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from bench import cpu
from tests.integration.http import get
from tests.integration.servers import Livestate, RedisServer
from tests.soak import mixed_readers
from tests.soak.mixed_document import render
from tests.soak.script import run

#: Seconds after which a published document is due: one of the interval, the rest for a busy machine's delivery. After a
#: fault the same holds for what is published then.
DUE = 3.0

#: Seconds that a fault of the store lasts, between the first of two, and between the first of two kills.
FAULT, FAULTS_EVERY, KILLS_EVERY = 6.0, 60.0, 120.0

#: Seconds after the death of a worker in which its readers notice.
NOTICED = 5.0

#: Client processes: one cannot check more than some thousand answers a second.
PROCESSES = 4


class Store:
    """Redis, the document in it, and what can happen to them."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.redis = RedisServer(case)
        self._faults: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
            ("silent", self.redis.freeze, self.redis.thaw),
            ("gone", self.redis.stop, self.redis.start),
            ("no JSON", lambda: self.redis.set(b'{"n": 1, "places"'), lambda: None),
            ("no key", lambda: self.redis.command("DEL", "livestate"), lambda: None),
            ("wrong type", self._list, lambda: self.redis.command("DEL", "livestate")),
        ]

    def fault(self, number: int) -> tuple[str, Callable[[], Any]]:
        """Begin a fault; give its name, and what ends it."""
        name, begin, end = self._faults[number % len(self._faults)]
        begin()
        return name, end

    def _list(self) -> None:
        self.redis.command("DEL", "livestate")
        self.redis.command("LPUSH", "livestate", "item")


class Mixed(SynchronousTestCase):
    """Not a test: it only uses a test's clean-up."""

    def runTest(self) -> None:
        """Run, print, and fail where anything was wrong."""
        self.seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
        readers = int(sys.argv[2]) if len(sys.argv) > 2 else 5000
        context = multiprocessing.get_context("spawn")
        self.must, over = context.Value("q", -1, lock=False), context.Value("b", 0, lock=False)
        self.published = context.Array("d", 1024, lock=False)
        results = context.Queue()
        self.store, self.number, self.pending = Store(self), 0, deque[tuple[float, int]]()
        self.publish()
        self.service = Livestate(self, f"--source={self.store.redis.url}?key=livestate", "--workers=2", https="")
        self.service.until_served()
        ports = urlsplit(self.service.http).port, urlsplit(self.service.https).port
        processes = [
            context.Process(
                target=mixed_readers.main, args=(ports, self.must, self.published, over, readers // PROCESSES, results)
            )
            for _ in range(PROCESSES)
        ]
        for process in processes:
            self.addCleanup(process.kill)
            process.start()
        self.kills: list[float] = []
        self.memory: list[tuple[float, float]] = []
        self.last()
        over.value = 1
        found = [results.get(timeout=120) for _ in processes]
        for process in processes:
            process.join(20)
        self.judge(found)

    def last(self) -> None:
        """Have things happen until the time is over."""
        began = time.monotonic()
        faults, ends, end = 0, None, lambda: None
        while (now := time.monotonic()) < began + self.seconds:
            if ends is None and now > began + (faults + 1) * FAULTS_EVERY - FAULT:
                name, end = self.store.fault(faults)
                faults, ends = faults + 1, now + FAULT
                # What was published just now may never have been read.
                self.pending.clear()
                print(f"{now - began:.0f} s: the store is {name}", flush=True)
            elif ends is not None and now > ends:
                end()
                ends = None
            if ends is None:
                self.publish()
            if now > began + (len(self.kills) + 1) * KILLS_EVERY - 30:
                self.kill()
            if not self.memory or now - began > self.memory[-1][0] + 10:
                self.measure(now - began)
            time.sleep(max(0.0, now + 1 - time.monotonic()))

    def publish(self) -> None:
        """Publish the next document, and tell which is due by now."""
        self.number += 1
        now = self.published[self.number % len(self.published)] = time.monotonic()
        self.store.redis.set(render(self.number))
        self.pending.append((now, self.number))
        while self.pending[0][0] < now - DUE:
            self.must.value = self.pending.popleft()[1]

    def kill(self) -> None:
        """Kill a worker."""
        workers = [worker for worker in self.service.workers() if worker["pid"]]
        victim = random.choice(workers)
        os.kill(victim["pid"], signal.SIGKILL)
        self.kills.append(time.monotonic())
        print(f"killed a worker of {victim['connections']} connections", flush=True)

    def measure(self, at: float) -> None:
        """Note the memory of all processes of the service."""
        megabytes = cpu.memory(cpu.tree([self.service.pid]))[1] / 1024
        self.memory.append((at, megabytes))
        print(f"{at:.0f} s: {megabytes:.1f} MB, load average {os.getloadavg()[0]:.1f}", flush=True)

    def judge(self, found: list[Any]) -> None:
        """Print what came of it, and fail if that is not good."""
        counts: Counter[str] = sum((one[0] for one in found), Counter())
        broken = [one for each in found for one in each[1]]
        wrong = [one for each in found for one in each[2]]
        delays = sorted(delay for each in found for delay in each[3])
        unexplained = [
            (when, what) for when, what in broken if not any(kill - 1 < when < kill + NOTICED for kill in self.kills)
        ]
        print(f"the readers were late by {max(one[4] for one in found):.1f} s at most")
        print(f"{dict(counts)}; {self.number} documents, {len(self.kills)} workers killed, {len(broken)} broken by it")
        if delays:
            quantiles = [delays[int(len(delays) * share)] * 1000 for share in (0.5, 0.99, 0.999)]
            print(f"from SET to an event, ms: p50 {quantiles[0]:.0f}, p99 {quantiles[1]:.0f}, p99.9 {quantiles[2]:.0f}")
        settled = [(at, size) for at, size in self.memory if at > 0.15 * self.seconds]
        if len(settled) > 2:
            print(f"memory: {settled[-1][1]:.0f} MB, slope {slope(settled) * 3600:+.2f} MB an hour")
        restarts = sum(worker["restarts"] for worker in self.service.workers())
        print(f"workers were replaced {restarts} times")
        answered = counts["answers 200"] + counts["answers 304"]
        for name, ours, theirs in (
            ("answers", answered, self.metric("livestate_responses_total")),
            ("events", counts["events"], self.metric("livestate_events_sent_total")),
            ("connections", counts["connections"], self.metric("livestate_connections_accepted_total")),
        ):
            allowed = (2 * len(self.kills) + 2) * ours / self.seconds
            print(f"{name}: readers counted {ours}, livestate {theirs:.0f}; at most {allowed:.0f} may be missing")
            self.assertLessEqual(abs(ours - theirs), allowed, name)
        for what, trouble in (("wrong", wrong), ("unexplained", unexplained)):
            print(f"{len(trouble)} {what}", *(f"\n  {line}" for _, line in trouble[:20]))
        self.assertFalse(len(wrong), "wrong")
        self.assertFalse(len(unexplained), "unexplained")
        self.assertEqual(self.service.stop(), 0)

    def metric(self, name: str) -> float:
        """Give the sum of a metric over its labels."""
        text = get(self.service.admin, "/metrics").body.decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


def slope(points: list[tuple[float, float]]) -> float:
    """Give the slope of the line of least squares."""
    middle, height = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((at - middle) ** 2 for at, _ in points)
    return float(sum((at - middle) * (size - height) for at, size in points) / spread)


if __name__ == "__main__":
    run(Mixed())
