"""Push: the time from the write in the store until the last of N subscribers has the document, and its distribution.

The document is SET at random moments, and livestate learns of it in one of three ways: by a PUBLISH on the channel that
it listens to, by a notification of Redis itself (keyspace notifications), or, for comparison, at its next poll. A
version carries the time just before its SET, and each subscriber records when it has received the complete event. Both
use the same machine's clock. The subscribers are on the load core together with Redis, so that a part of each delay is
their own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import client, cpu, document, probe
from bench.environment import Session
from bench.freshness import quantile, summary
from bench.peers import PEERS
from bench.peers.peer import Server
from bench.process import BenchError
from bench.settings import Settings

#: Range of seconds between two changes. Each reaches every subscriber before the next, even if it is found by polling.
PAUSES = (1.1, 1.6)
# Changes before the measured ones. The first one increases the memory of a connection.
WARM_UP_CHANGES = 2


def _sources(session: Session) -> dict[str, str]:
    """Return the ways in which livestate learns of a change, and the source option for each."""
    return {
        "channel": session.store.notify_url,
        "keyspace": f"{session.store.url}&notify=keyspace",
        "poll": session.store.url,
    }


def _write(session: Session, pauses: list[float]) -> None:
    for pause in pauses:
        session.store.publish()
        time.sleep(pause)


def _one(session: Session, server: Server, settings: Settings, binary: Path) -> dict[str, Any]:
    children, readers = session.environment.children, settings.push_readers
    clients = client.streams(
        children,
        binary,
        server,
        tls=False,
        readers=readers,
        length=len(document.render(0)),
        core=settings.load_core,
    )
    try:
        time.sleep(settings.warm)
        _write(session, [PAUSES[1]] * WARM_UP_CHANGES)
        first = document.FIRST + session.store.version + 1
        used, started_at = cpu.seconds(cpu.tree(server.pids)), time.monotonic()
        _write(session, [random.uniform(*PAUSES) for _ in range(settings.push_changes)])
        used, elapsed = cpu.seconds(cpu.tree(server.pids)) - used, time.monotonic() - started_at
        results = [client.close_streams(children, child) for child in clients]
    finally:
        for child in clients:
            children.stop(child)
    samples = [
        [int(version), delay]
        for result in results
        for version, delays in result["delays"].items()
        for delay in delays
        if int(version) >= first
    ]
    taken = summary(samples, readers)
    last = [version[3] for version in taken["per_version"]]
    taken["last_ms"] |= {"p90": quantile(last, 0.9), "p99": quantile(last, 0.99)}
    taken |= {"readers": readers, "changes": settings.push_changes}
    taken |= {"cpu_us": 1e6 * used / len(samples), "busy": used / elapsed}
    wrong = {kind: sum(result[kind] for result in results) for kind in ("skipped", "wrong", "ended")}
    taken["errors"] = {kind: count for kind, count in wrong.items() if count}
    return taken


def measure(
    session: Session, settings: Settings, binary: Path, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Measure each server with each kind of notification: start a server, open its streams, and write the changes."""
    answer = session.store.command(b"CONFIG", b"SET", b"notify-keyspace-events", b"K$g")
    if not answer.startswith(b"+OK"):
        raise BenchError(f"redis-server refused keyspace notifications: {answer!r}")
    results: dict[str, list[dict[str, Any]]] = {}
    for name, idle in session.servers.items():
        for root in idle.roots:
            session.environment.children.stop(root)
        for way, url in _sources(session).items():
            server = PEERS[name].start(replace(session.environment, store_url=url))
            try:
                probe.wait_for(server, session.environment.children)
                taken = _one(session, server, settings, binary)
            except BenchError as error:
                session.absent[f"{name} ({way})"] = str(error)
                progress(f"push {name} {way}: {error}")
                continue
            finally:
                for root in server.roots:
                    session.environment.children.stop(root)
            results.setdefault(name, []).append({"way": way, **taken})
            progress(
                f"push {name} {way}, {settings.push_readers} subscribers: p50 {taken['p50_ms']:.0f} ms,"
                f" p99 {taken['p99_ms']:.0f} ms, last {taken['last_ms']['p50']:.0f} ms"
            )
    return results
