"""Freshness: the time from the write in the store until the first and the last of N clients have the document.

Versions are written at random moments, so that they fall anywhere in the server's polling interval, and far enough
apart that each reaches every client before the next. A version carries the time of its write, and each client records
when it first sees it. Writer and clients use the same machine's clock.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import client, cpu, probe
from bench.environment import Session
from bench.peers.peer import PATH, Server
from bench.process import BenchError
from bench.settings import Settings

# Range of pauses between versions, in seconds. With two polling intervals of one second, a document is at most two
# seconds old when a client receives it.
PAUSES = (2.6, 3.6)


def quantile(values: list[float], share: float) -> float:
    """Return the value below which SHARE of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(samples: list[list[int]], readers: int) -> dict[str, Any]:
    """Summarise [version, µs] pairs: delays in ms of all clients, and of the first and last client of each version."""
    versions: dict[int, list[float]] = {}
    for version, delay in samples:
        versions.setdefault(version, []).append(delay / 1000)
    # A version written before all clients were connected, or after some disconnected, has no meaningful last client.
    complete = {version: delays for version, delays in versions.items() if len(delays) >= readers}
    if not complete:
        raise BenchError(f"no version reached all of {readers} clients")
    every = [delay for delays in complete.values() for delay in delays]
    first = [min(delays) for delays in complete.values()]
    last = [max(delays) for delays in complete.values()]
    return {
        "versions": len(complete),
        "p50_ms": quantile(every, 0.5),
        "p99_ms": quantile(every, 0.99),
        "first_ms": {"p50": quantile(first, 0.5), "min": min(first), "max": max(first)},
        "last_ms": {"p50": quantile(last, 0.5), "min": min(last), "max": max(last)},
        "spread_ms": {"p50": quantile([max(delays) - min(delays) for delays in complete.values()], 0.5)},
        "per_version": [
            [version, min(delays), quantile(delays, 0.5), max(delays)] for version, delays in complete.items()
        ],
    }


def modes(server: Server) -> list[str]:
    """Return how this peer can be read: by polling, and by long polling and event streams if it offers them."""
    found = ["poll"]
    assert server.http is not None
    try:
        answer = probe.ask(server.http, path=f"{PATH}/events", Accept="text/event-stream")
    except (OSError, http.client.HTTPException):
        return found
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        found += ["wait", "events"]
    return found


def _one(
    session: Session, server: Server, settings: Settings, binary: Path, mode: str, readers: int, every: float
) -> dict[str, Any]:
    children = session.environment.children
    settle = 2.5 + readers / 1000
    pauses = [random.uniform(*PAUSES) for _ in range(settings.versions)]
    seconds = settle + sum(pauses) + 1.0
    started = client.poll(
        children, binary, server, readers=readers, every=every, seconds=seconds, mode=mode, core=settings.load_core
    )
    try:
        time.sleep(settle)
        started_at, used = time.monotonic(), cpu.seconds(cpu.tree(server.pids))
        for pause in pauses:
            session.store.publish()
            time.sleep(pause)
        busy = (cpu.seconds(cpu.tree(server.pids)) - used) / (time.monotonic() - started_at)
        result = client.poll_result(children, started, 30.0)
    finally:
        children.stop(started)
    taken = summary(result["samples"], readers)
    taken |= {"mode": mode, "readers": readers, "every_s": every, "requests": result["requests"], "busy": busy}
    taken |= {"errors": {result["first_error"][:80]: result["errors"]} if result["errors"] else {}}
    return taken


def measure(
    session: Session, settings: Settings, binary: Path, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Measure each server: one client that polls every 5 ms (the server's own delay), then N clients in each mode."""
    results: dict[str, list[dict[str, Any]]] = {}
    for name, server in list(session.servers.items()):
        taken: list[dict[str, Any]] = []
        plans = [("poll", 1, 0.005), *((mode, settings.readers, 1.0) for mode in modes(server))]
        for mode, readers, every in plans:
            try:
                got = _one(session, server, settings, binary, mode, readers, every)
            except BenchError as error:
                session.absent[f"{name} ({mode}, {readers} clients)"] = str(error)
                progress(f"freshness {name} {mode}, {readers} clients: {error}")
                continue
            taken.append(got)
            progress(
                f"freshness {name} {mode}, {readers} clients: p50 {got['p50_ms']:.0f} ms, p99 {got['p99_ms']:.0f} ms,"
                f" last {got['last_ms']['p50']:.0f} ms"
            )
        results[name] = taken
    return results
