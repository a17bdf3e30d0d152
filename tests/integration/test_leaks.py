"""Hundreds of faulty fetches, and nothing is left of them: no socket, timer, Deferred or memory.

A thousand of each kind of store, MongoDB's too: tests/soak/store_faults.py.
"""

import gc
import os
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from livestate.errors import SourceError
from livestate.sources.api import ISource
from livestate.sources.factory import make_source
from livestate.system.timeouts import with_timeout
from tests.integration import faults
from tests.integration.faults import Fault, Proxy, instead
from tests.integration.processes import files, memory
from tests.integration.servers import RedisServer
from tests.integration.upstream import Upstream
from tests.support import until

reactor: Any = _reactor

#: Seconds that a fetch may take. Most are over sooner, and the silent ones wait no longer.
PATIENCE = 0.02

#: None: the connection is refused.
REDIS: tuple[Fault | None, ...] = (
    *(None, faults.silent, faults.reset_after(5), faults.slow(0.01), faults.forward),
    *(instead(b"$1073741824\r\n{"), instead(b"$100\r\n{"), instead(b"\xff\r\n"), instead(b"-LOADING\r\n")),
    *(instead(b"$1\r\n1\r\n+OK\r\n"), faults.flood(b"*1000\r\n", b"$65536\r\n" + b"x" * 65536 + b"\r\n")),
)

_HEAD = b"HTTP/1.1 200 OK\r\n"
HTTP: tuple[Fault | None, ...] = (
    *(None, faults.silent, faults.reset_after(60), faults.slow(0.01), faults.forward),
    *(instead(_HEAD + b"Content-Length: 1073741824\r\n\r\n{"), instead(_HEAD + b"Content-Length: 9\r\n\r\n{")),
    *(instead(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{"), instead(_HEAD + b"\r\n{"), instead(b"\xff\r\n")),
    *(instead(_HEAD + b"Content-Length: 2\r\n\r\n{}{}"), faults.flood(_HEAD, b"X-A: b\r\n" * 1000)),
    instead(_HEAD + b"Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}"),
)


async def cycles(source: ISource, proxy: Proxy, table: tuple[Fault | None, ...], times: int, patience: float) -> int:
    """Fetch so often, each time with the next fault, and give how many fetches failed.

    :raises Exception: what a source must not raise.
    """
    failed = 0
    for number in range(times):
        fault = table[number % len(table)]
        proxy.heal()
        if fault is None:
            proxy.refuse()
        else:
            proxy.fault = fault
        try:
            await with_timeout(patience, source.fetch(), reactor)
        except (SourceError, DeferTimeout):
            failed += 1
    proxy.heal()
    return failed


def deferreds() -> int:
    """Give how many Deferreds there are."""
    gc.collect()
    return sum(issubclass(type(thing), Deferred) for thing in gc.get_objects())


class LeakTests(TestCase):
    """See the module."""

    timeout = 300

    async def assert_nothing_is_left(self, url: str, proxy: Proxy, table: tuple[Fault | None, ...]) -> None:
        """Fetch until all is warm, and see that there is no more after some hundred faults than before."""
        source = make_source(reactor, url.format(proxy.port), 1_000_000)
        self.addCleanup(source.close)
        await cycles(source, proxy, table, 3 * len(table), PATIENCE)
        await self.settled(source)
        before = self.left()
        for times in (60, 130):
            failed = await cycles(source, proxy, table, times, PATIENCE)
            self.assertGreater(failed, times / 2)
            await self.settled(source)
            warm, after = before, self.left()
            before = after
        for name, allowed in (("files", 2), ("timers", 2), ("deferreds", 20), ("MB", 8)):
            self.assertLessEqual(after[name] - warm[name], allowed, (name, warm, after))

    async def settled(self, source: ISource) -> None:
        """Wait until a fetch works, and the proxy has noticed what has ended."""
        answers: list[bytes] = []

        async def fetch() -> None:
            try:
                answers.append(await with_timeout(5, source.fetch(), reactor))
            except SourceError:  # of a connection that the last fault has spoilt
                await deferLater(reactor, 0.05)

        while not answers:
            await fetch()
        await until(reactor, lambda: files(os.getpid()) <= self.files + 8)
        await deferLater(reactor, 0.2)

    def left(self) -> dict[str, float]:
        """Give what there is."""
        return {
            "files": files(os.getpid()),
            "timers": len(reactor.getDelayedCalls()),
            "deferreds": deferreds(),
            "MB": memory(os.getpid()) / 2**20,
        }

    async def test_redis(self):
        """Of Redis."""
        store = RedisServer(self)
        store.set("1")
        self.files = files(os.getpid())
        await self.assert_nothing_is_left("redis://127.0.0.1:{}/0", Proxy(self, store.port), REDIS)

    async def test_http(self):
        """Of an HTTP server."""
        store = Upstream(self)
        self.files = files(os.getpid())
        await self.assert_nothing_is_left("http://127.0.0.1:{}/r.json", Proxy(self, store.server_port), HTTP)
