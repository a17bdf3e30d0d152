"""Stores that fail for long: what tests/integration/test_store_faults.py and test_leaks.py see in short, and counted.

python -m twisted.trial tests.soak.store_faults
"""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from livestate.sources.factory import make_source
from livestate.system.timeouts import with_timeout
from tests.integration import faults, test_leaks, test_store_faults
from tests.integration.faults import Fault, Proxy
from tests.integration.http import get
from tests.integration.load import Background
from tests.integration.processes import files, memory
from tests.integration.servers import RedisServer
from tests.integration.upstream import Upstream
from tests.mongodb_server import MongoServer

reactor: Any = _reactor

#: A fetch from MongoDB in vain takes as long as the driver looks for a server; the silent ones, a second.
MONGODB: tuple[Fault | None, ...] = (
    *(None, faults.reset_after(20), test_store_faults.announce, faults.forward, faults.forward),
    *(test_store_faults.cut_short, faults.slow(0.01), faults.silent),
)


class Cycles(TestCase):
    """A thousand faulty fetches from each kind of store, and what is left of them."""

    timeout = 3600

    async def run_cycles(self, source: str, proxy: Proxy, table: tuple[Fault | None, ...], patience: float) -> None:
        """Fetch, and print what there is after each 200 fetches."""
        fetched = make_source(reactor, source, 1_000_000)
        self.addCleanup(fetched.close)
        rows: list[tuple[int, int, int, float]] = []
        failed = 0
        for _ in range(6):
            failed += await test_leaks.cycles(fetched, proxy, table, 200, patience)
            for _ in range(40):  # until the last fault is over
                try:
                    await with_timeout(5, fetched.fetch(), reactor)
                    break
                except Exception:  # noqa: S112
                    continue
            await deferLater(reactor, 0.5)
            rows.append((files(os.getpid()), len(reactor.getDelayedCalls()), test_leaks.deferreds(),
                         memory(os.getpid()) / 2**20))  # fmt: skip
            print(f"\n{source[:8]} {failed} of {200 * len(rows)} failed; files {rows[-1][0]}, timers {rows[-1][1]}, "
                  f"Deferreds {rows[-1][2]}, {rows[-1][3]:.1f} MB", end="", flush=True)  # fmt: skip
        # The first 200 are to warm it.
        for position, allowed in ((0, 3), (1, 2), (2, 20), (3, 8)):
            self.assertLessEqual(rows[-1][position] - rows[0][position], allowed, rows)

    async def test_redis(self):
        """Of Redis."""
        store = RedisServer(self)
        store.set("1")
        proxy = Proxy(self, store.port)
        await self.run_cycles(f"redis://127.0.0.1:{proxy.port}/0", proxy, test_leaks.REDIS, test_leaks.PATIENCE)

    async def test_http(self):
        """Of an HTTP server."""
        proxy = Proxy(self, Upstream(self).server_port)
        await self.run_cycles(f"http://127.0.0.1:{proxy.port}/", proxy, test_leaks.HTTP, test_leaks.PATIENCE)

    async def test_mongodb(self):
        """Of MongoDB."""
        store = MongoServer()
        self.addCleanup(store.remove)
        with store.client() as client:
            client.test.results.insert_one({"n": 1})
        proxy = Proxy(self, store.port)
        source = f"mongodb://127.0.0.1:{proxy.port}/test?collection=results"
        await self.run_cycles(source, proxy, MONGODB, 1.0)


class Outages(test_store_faults.StoreFaultCase):
    """All stores, for a minute and more."""

    def watch(self) -> Callable[[], None]:
        """Read each document until what this gives is called, which fails if anything was wrong."""
        wrong: list[str] = []
        newest = dict.fromkeys(self.stores.sources(), 0)

        def poll() -> None:
            for kind, before in newest.items():
                answer = get(self.service.http, f"/{kind}")
                number = answer.json()["n"] if answer.status == 200 else -1
                if number < before:
                    wrong.append(f"{kind}: {answer.status} {answer.body!r} after {before}")
                newest[kind] = number

        polling = Background(self, poll, pause=0.02)

        def end() -> None:
            polling.stop()
            self.assertEqual(wrong, [])

        return end

    def recover(self, slowest: dict[str, float]) -> None:
        """Heal all, with a new document, and note how long each store's took."""
        body, healed = self.stores.put(), time.monotonic()
        self.stores.heal()
        waiting = set(self.stores.sources())
        while waiting:
            for kind in list(waiting):
                if self.service.get(f"/{kind}").body == body:
                    slowest[kind] = max(slowest.get(kind, 0), time.monotonic() - healed)
                    waiting.discard(kind)
            self.assertLess(time.monotonic() - healed, 20, waiting)

    def test_flapping(self):
        """All stores are gone and back each 0.3 s, for a minute: nobody sees it, and all goes on after it."""
        self.start()
        end, slowest, mark = self.watch(), dict[str, float](), len(self.service.log)
        for _ in range(100):
            self.stores.blink()
        self.recover(slowest)
        lines = self.lines(mark)
        print(f"\n{len(lines)} lines about 3 documents in a minute; back after {slowest}")
        end()
        self.assertLess(max(slowest.values()), test_store_faults.RECOVERY)
        self.assertLessEqual(len(lines), 2 * 3 * 100)
        self.assert_told(2 * 100)
        self.assert_nothing_left()

    def test_recovery(self):
        """However long a store was gone, and in whatever way, it is noticed within 2 s of its return."""
        self.start()
        end, slowest = self.watch(), dict[str, dict[str, float]]()
        for number in range(30):
            name, fault = [("refused", None), ("silent", faults.silent), ("reset", faults.reset_after(5))][number % 3]
            for proxy in self.stores.proxies.values():
                proxy.refuse() if fault is None else setattr(proxy, "fault", fault)
            time.sleep(random.uniform(0.5, 6))
            self.recover(slowest.setdefault(name, {}))
        for name, kinds in slowest.items():
            print(f"\n{name}: slowest of 10: " + ", ".join(f"{kind} {took:.2f} s" for kind, took in kinds.items()))
        end()
        self.assertLess(max(max(kinds.values()) for kinds in slowest.values()), test_store_faults.RECOVERY)
        self.assert_nothing_left()
