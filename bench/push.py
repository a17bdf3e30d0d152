"""Push: from the write in the store until the last of N event readers has the document, and how that is distributed.

The document is SET at random moments and announced in one of three ways: with a PUBLISH on the channel that livestate
listens to, by Redis itself (keyspace notifications), or not at all, for comparison: livestate then finds it at its next
poll. A version carries the time just before its SET, and each reader notes when it has the whole event: one machine's
clock. The readers are on the load core, beside Redis: a part of each delay is their own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import client, cpu, document, probe
from bench.freshness import quantile, summary
from bench.ground import Field
from bench.peers import PEERS
from bench.peers.peer import Server
from bench.process import BenchError
from bench.settings import Settings

#: Seconds between two changes: each has reached every reader before the next, also where it is found by polling.
APART = (1.1, 1.6)
# Before the measured versions: the first one grows what a connection keeps.
PRACTICE = 2


def _ways(field: Field) -> dict[str, str]:
    """How livestate hears of a change, and the source that makes it so."""
    return {
        "channel": field.store.telling_url,
        "keyspace": f"{field.store.url}&notify=keyspace",
        "poll": field.store.url,
    }


def _write(field: Field, pauses: list[float]) -> None:
    for pause in pauses:
        field.store.publish()
        time.sleep(pause)


def _one(field: Field, server: Server, settings: Settings, binary: Path) -> dict[str, Any]:
    children, readers = field.ground.children, settings.push_readers
    held = client.streams(
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
        _write(field, [APART[1]] * PRACTICE)
        first = document.FIRST + field.store.version + 1
        used, begun = cpu.seconds(cpu.tree(server.pids)), time.monotonic()
        _write(field, [random.uniform(*APART) for _ in range(settings.push_changes)])
        used, elapsed = cpu.seconds(cpu.tree(server.pids)) - used, time.monotonic() - begun
        results = [client.seen(children, child) for child in held]
    finally:
        for child in held:
            children.stop(child)
    samples = [
        [int(version), delay]
        for result in results
        for version, delays in result["delays"].items()
        for delay in delays
        if int(version) >= first
    ]
    taken = summary(samples, readers)
    last = [seen[3] for seen in taken["per_version"]]
    taken["last_ms"] |= {"p90": quantile(last, 0.9), "p99": quantile(last, 0.99)}
    taken |= {"readers": readers, "changes": settings.push_changes}
    taken |= {"cpu_us": 1e6 * used / len(samples), "busy": used / elapsed}
    wrong = {kind: sum(result[kind] for result in results) for kind in ("skipped", "wrong", "ended")}
    taken["errors"] = {kind: count for kind, count in wrong.items() if count}
    return taken


def measure(
    field: Field, settings: Settings, binary: Path, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """For each server and way of hearing of a change: one server of its own, its readers, and the changes."""
    answer = field.store.command(b"CONFIG", b"SET", b"notify-keyspace-events", b"K$g")
    if not answer.startswith(b"+OK"):
        raise BenchError(f"redis-server refused keyspace notifications: {answer!r}")
    results: dict[str, list[dict[str, Any]]] = {}
    for name, idle in field.servers.items():
        for root in idle.roots:
            field.ground.children.stop(root)
        for way, url in _ways(field).items():
            server = PEERS[name].begin(replace(field.ground, store_url=url))
            try:
                probe.wait_for(server, field.ground.children)
                taken = _one(field, server, settings, binary)
            except BenchError as why:
                field.absent[f"{name} ({way})"] = str(why)
                say(f"push {name} {way}: {why}")
                continue
            finally:
                for root in server.roots:
                    field.ground.children.stop(root)
            results.setdefault(name, []).append({"way": way, **taken})
            say(
                f"push {name} {way}, {settings.push_readers} readers: p50 {taken['p50_ms']:.0f} ms,"
                f" p99 {taken['p99_ms']:.0f} ms, last {taken['last_ms']['p50']:.0f} ms"
            )
    return results
