"""Run one scenario: its peers in turn (A B C A B C …), so that a disturbance of the machine affects all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import client, cpu, events, freshness, idle, probe, push, wrk
from bench.environment import Session, open_session
from bench.peers.peer import Server
from bench.process import BenchError
from bench.scenario import Scenario
from bench.settings import Settings

Measure = Callable[[Server], wrk.Round]


def progress(text: str) -> None:
    """Report progress on stderr. Stdout is for the tables only."""
    print(text, file=sys.stderr, flush=True)


def _load(scenario: Scenario, server: Server, settings: Settings) -> wrk.Load:
    load = wrk.Load(settings.connections, scenario.tls)
    if scenario.browser:
        return replace(load, codings=probe.codings(server))
    if scenario.conditional:
        etag = probe.not_modified(server, scenario.tls)
        if etag is None:
            raise BenchError("has no 304 response")
        return replace(load, headers=(f"If-None-Match: {etag}",))
    return load


def _keepalive(session: Session, scenario: Scenario, settings: Settings) -> Measure:
    children = session.environment.children
    loads: dict[str, wrk.Load] = {}
    bases: dict[str, float] = {}
    for name, server in list(session.servers.items()):
        try:
            loads[name] = _load(scenario, server, settings)
        except BenchError as error:
            session.absent[name] = str(error)
            del session.servers[name]
            continue
        bases[name] = cpu.memory(cpu.tree(server.pids))[1]
        wrk.warm_up(children, server, loads[name], settings.load_core, max(1.0, settings.warm))

    def measure(server: Server) -> wrk.Round:
        return wrk.measure(
            children,
            server,
            loads[server.peer],
            core=settings.load_core,
            warm=settings.warm,
            seconds=settings.seconds,
            base_kb=bases[server.peer],
        )

    return measure


def _connect(session: Session, scenario: Scenario, settings: Settings, binary: Path) -> Measure:
    def visit(server: Server, seconds: float) -> wrk.Round:
        return client.connect(
            session.environment.children,
            binary,
            server,
            tls=scenario.tls,
            resume=scenario.resume,
            core=settings.load_core,
            seconds=seconds,
        )

    for name, server in list(session.servers.items()):
        try:
            visit(server, 1.0)
        except BenchError as error:
            session.absent[name] = str(error)
            del session.servers[name]
    return lambda server: visit(server, settings.seconds)


def _rounds(
    session: Session, scenario: Scenario, settings: Settings, measure: Measure
) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in session.servers}
    for number in range(settings.rounds):
        for name in list(session.servers):
            try:
                measured = measure(session.servers[name])
            except BenchError as error:
                session.absent[name] = f"failed in round {number + 1}: {error}"
                for root in session.servers[name].roots:
                    session.environment.children.stop(root)
                del session.servers[name], results[name]
                progress(f"{scenario.name} {name}: {error}")
                continue
            results[name].append(asdict(measured))
            note = f"  {measured.errors}" if measured.errors else ""
            progress(
                f"{scenario.name} {number + 1}/{settings.rounds} {name}: {measured.cpu_us:.2f} µs,"
                f" {measured.rate:.0f}/s, core {100 * measured.busy:.0f} % busy{note}"
            )
    return results


def scenario(which: Scenario, settings: Settings, binary: Path | None) -> dict[str, Any]:
    """Return the raw results of one scenario: the rounds of each peer, and why some peers are missing."""
    if binary is None and which.kind != "keepalive":
        return {"peers": {}, "absent": dict.fromkeys(settings.peers, "the bench's client needs Go")}
    with open_session(which, settings) as session:
        if which.kind == "keepalive":
            results = _rounds(session, which, settings, _keepalive(session, which, settings))
        else:
            assert binary is not None
            if which.kind == "connect":
                results = _rounds(session, which, settings, _connect(session, which, settings, binary))
            elif which.kind == "events":
                results = _rounds(session, which, settings, events.prepare(session, which, settings, binary))
            elif which.kind == "push":
                results = push.measure(session, settings, binary, progress)
            elif which.kind == "idle":
                results = idle.measure(session, which, settings, binary, progress)
            else:
                results = freshness.measure(session, settings, binary, progress)
        return {"peers": results, "absent": session.absent}
