"""Event streams: thousands of subscribers of one document that changes every second.

In each round a peer gets its subscribers, then a change per second. The server's CPU time over exactly those seconds is
divided by the number of events that subscribers received completely. A version carries the time of its write (just
before the SET in Redis, or the POST to a server that is pushed to), and each subscriber records when it has received
it. Both use the same machine's clock.

Then ordinary clients poll, 200 requests per second, first while nothing changes and then during more broadcasts. This
shows what a broadcast costs those who only poll. In this part, the subscribers yield to the pollers on the load core
(SCHED_IDLE), so that no poller waits for them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import client, cpu, document, wrk
from bench.environment import Session
from bench.freshness import quantile
from bench.peers.peer import Server
from bench.process import BenchError, raise_file_limit
from bench.scenario import Scenario
from bench.settings import Settings

WARM_UP_READERS = 50
# Changes before the measured ones. The first one increases the memory of a connection.
WARM_UP_CHANGES = 2
POLLERS = 200
QUIET = 5.0
# Files that a server opens in addition to its subscribers' connections.
SPARE = 200
PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass
class Round(wrk.Round):
    """One round of one peer. p50 and p99 are delays from write to delivery, over all subscribers and versions."""

    readers: int = 0
    kb: float = 0.0  # PSS per subscriber, after the broadcasts
    first_us: float = 0.0  # until the first subscriber had a version; median of the versions
    last_us: float = 0.0  # until the last subscriber had a version; median of the versions
    slowest_us: float = 0.0  # until the last subscriber had the slowest version
    client_us: float = 0.0  # the subscribers' own CPU time per event
    pollers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Subscribers:
    children: list[subprocess.Popen[bytes]]

    @property
    def pids(self) -> set[int]:
        return cpu.tree(child.pid for child in self.children)

    def lower_priority(self) -> None:
        """Run only when nothing else needs the core."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))


class _Feed:
    """Writes versions for one peer: to the peer if it is pushed to, to the store if it reads the store."""

    def __init__(self, session: Session, server: Server) -> None:
        self.store = session.store
        self.push = server.push or session.store.put

    def next(self) -> int:
        """Write the next version, stamped with the time, and return its number."""
        self.store.version += 1
        try:
            self.push(document.render(self.store.version))
        except OSError as error:
            raise BenchError(f"could not write a version: {error}") from error
        return document.FIRST + self.store.version

    def every_second(self, changes: int) -> list[int]:
        """Write a version per second, and return their numbers one second after the last."""
        due, versions = time.monotonic(), []
        for _ in range(changes):
            versions.append(self.next())
            due += 1.0
            time.sleep(max(0.0, due - time.monotonic()))
        return versions


def _wanted(scenario: Scenario, settings: Settings) -> int:
    return settings.event_tls_readers if scenario.tls else settings.event_readers


def _open(session: Session, server: Server, scenario: Scenario, readers: int, core: int, binary: Path) -> _Subscribers:
    started = client.streams(
        session.environment.children,
        binary,
        server,
        tls=scenario.tls,
        readers=readers,
        length=len(document.render(0)),
        core=core,
    )
    return _Subscribers(started)


def _pollers(session: Session, server: Server, scenario: Scenario, settings: Settings, binary: Path) -> dict[str, Any]:
    """Measure the latency of 200 requests per second, without changes and during a broadcast per second."""
    found: dict[str, Any] = {}
    feed = _Feed(session, server)
    for name, seconds in (("quiet", QUIET), ("broadcasts", settings.changes + 0.0)):
        started = client.poll(
            session.environment.children,
            binary,
            server,
            tls=scenario.tls,
            readers=POLLERS,
            every=1.0,
            seconds=seconds + 1.5,
            mode="poll",
            core=settings.load_core,
        )
        time.sleep(1.0)
        if name == "quiet":
            time.sleep(seconds)
        else:
            feed.every_second(settings.changes)
        result = client.poll_result(session.environment.children, started, 30.0)
        found[name] = {key: result[key] for key in ("requests", "errors", "p50_us", "p99_us", "max_us")}
    return found


def _count(results: list[dict[str, Any]], versions: list[int]) -> tuple[list[list[int]], dict[str, int]]:
    """Return the delays of all subscribers for each version, and the number of errors of each kind."""
    delays: list[list[int]] = [[] for _ in versions]
    wrong = {"skipped": 0, "wrong events": 0, "streams ended": 0, "readers left behind": 0}
    # The newest version was written after the measured ones. A subscriber without it was left behind.
    newest = max((int(version) for result in results for version in result["last"]), default=0)
    for result in results:
        for index, version in enumerate(versions):
            delays[index] += result["delays"].get(str(version), [])
        wrong["skipped"] += result["skipped"]
        wrong["wrong events"] += result["wrong"]
        wrong["streams ended"] += result["ended"]
        wrong["readers left behind"] += sum(n for version, n in result["last"].items() if int(version) != newest)
    return delays, {kind: count for kind, count in wrong.items() if count}


def visit(
    session: Session, scenario: Scenario, settings: Settings, binary: Path, server: Server, base_kb: float
) -> Round:
    """Measure one round of one peer."""
    children, readers = session.environment.children, _wanted(scenario, settings)
    feed = _Feed(session, server)
    feed.next()
    subscribers = _open(session, server, scenario, readers, settings.load_core, binary)
    try:
        time.sleep(settings.warm)
        feed.every_second(WARM_UP_CHANGES)
        used, own, started_at = cpu.seconds(cpu.tree(server.pids)), cpu.seconds(subscribers.pids), time.monotonic()
        versions = feed.every_second(settings.changes)
        elapsed = time.monotonic() - started_at
        used, own = cpu.seconds(cpu.tree(server.pids)) - used, cpu.seconds(subscribers.pids) - own
        pss = cpu.memory(cpu.tree(server.pids))[1]
        subscribers.lower_priority()
        pollers = _pollers(session, server, scenario, settings, binary)
        time.sleep(1.0)
        results = [client.close_streams(children, child) for child in subscribers.children]
    finally:
        for child in subscribers.children:
            children.stop(child)
    if server.has_exited():
        raise BenchError(f"{server.peer} exited unexpectedly: {server.exit_statuses()} {children.log(server.peer)}")
    delays, wrong = _count(results, versions)
    every = [float(delay) for times in delays for delay in times]
    if not every:
        raise BenchError(f"{server.peer}: no event reached a subscriber {results[0]['first_error']}")
    last = [float(max(times)) for times in delays if times]
    return Round(
        cpu_us=1e6 * used / len(every),
        rate=len(every) / elapsed,
        p50_us=quantile(every, 0.5),
        p99_us=quantile(every, 0.99),
        count=len(every),
        busy=used / elapsed,
        errors=wrong,
        readers=readers,
        kb=(pss - base_kb) / readers,
        first_us=quantile([float(min(times)) for times in delays if times], 0.5),
        last_us=quantile(last, 0.5),
        slowest_us=max(last),
        client_us=1e6 * own / len(every),
        pollers=pollers,
    )


def _check_limits(readers: int) -> None:
    """Check that the machine allows so many subscribers.

    :raises BenchError: when it does not; the message says how to allow them.
    """
    files = raise_file_limit()
    if readers + SPARE > files:
        raise BenchError(f"{readers} subscribers need as many open files in the server: ulimit -n {readers + SPARE}")
    low, high = map(int, PORTS.read_text().split())
    if readers > high - low:
        raise BenchError(
            f'{readers} subscribers need as many ports: sysctl -w net.ipv4.ip_local_port_range="10000 65000"'
        )


def prepare(session: Session, scenario: Scenario, settings: Settings, binary: Path) -> Callable[[Server], Round]:
    """Warm up each peer with a few subscribers, read its memory, and return a function that measures a round."""
    _check_limits(_wanted(scenario, settings))
    bases: dict[str, float] = {}
    for name, server in list(session.servers.items()):
        feed = _Feed(session, server)
        try:
            feed.next()
            subscribers = _open(session, server, scenario, WARM_UP_READERS, settings.load_core, binary)
            feed.every_second(WARM_UP_CHANGES)
            for child in subscribers.children:
                session.environment.children.stop(child)
        except (BenchError, OSError) as error:
            session.absent[name] = str(error)
            del session.servers[name]
            continue
        time.sleep(0.5)
        bases[name] = cpu.memory(cpu.tree(server.pids))[1]
    return lambda server: visit(session, scenario, settings, binary, server, bases[server.peer])
