"""Runs one scenario: its peers in turn (A B C A B C …), so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import client, cpu, events, freshness, idle, probe, push, wrk
from bench.ground import Field, ground
from bench.peers.peer import Server
from bench.process import BenchError
from bench.scenario import Scenario
from bench.settings import Settings

Measure = Callable[[Server], wrk.Round]


def say(text: str) -> None:
    """Progress goes to stderr: stdout holds the tables alone."""
    print(text, file=sys.stderr, flush=True)


def _load(scenario: Scenario, server: Server, settings: Settings) -> wrk.Load:
    load = wrk.Load(settings.connections, scenario.tls)
    if scenario.browser:
        return replace(load, codings=probe.codings(server))
    if scenario.conditional:
        etag = probe.not_modified(server, scenario.tls)
        if etag is None:
            raise BenchError("has no 304 answer")
        return replace(load, headers=(f"If-None-Match: {etag}",))
    return load


def _keepalive(field: Field, scenario: Scenario, settings: Settings) -> Measure:
    children = field.ground.children
    loads: dict[str, wrk.Load] = {}
    bases: dict[str, float] = {}
    for name, server in list(field.servers.items()):
        try:
            loads[name] = _load(scenario, server, settings)
        except BenchError as why:
            field.absent[name] = str(why)
            del field.servers[name]
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


def _connect(field: Field, scenario: Scenario, settings: Settings, binary: Path) -> Measure:
    def visit(server: Server, seconds: float) -> wrk.Round:
        return client.connect(
            field.ground.children,
            binary,
            server,
            tls=scenario.tls,
            resume=scenario.resume,
            core=settings.load_core,
            seconds=seconds,
        )

    for name, server in list(field.servers.items()):
        try:
            visit(server, 1.0)
        except BenchError as why:
            field.absent[name] = str(why)
            del field.servers[name]
    return lambda server: visit(server, settings.seconds)


def _rounds(field: Field, scenario: Scenario, settings: Settings, measure: Measure) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in field.servers}
    for number in range(settings.rounds):
        for name in list(field.servers):
            try:
                taken = measure(field.servers[name])
            except BenchError as why:
                field.absent[name] = f"failed in round {number + 1}: {why}"
                for root in field.servers[name].roots:
                    field.ground.children.stop(root)
                del field.servers[name], results[name]
                say(f"{scenario.name} {name}: {why}")
                continue
            results[name].append(asdict(taken))
            note = f"  {taken.errors}" if taken.errors else ""
            say(
                f"{scenario.name} {number + 1}/{settings.rounds} {name}: {taken.cpu_us:.2f} µs,"
                f" {taken.rate:.0f}/s, core {100 * taken.busy:.0f} % busy{note}"
            )
    return results


def scenario(which: Scenario, settings: Settings, binary: Path | None) -> dict[str, Any]:
    """The raw results of one scenario: for each peer its rounds, and the peers that are missing, with the reason."""
    if binary is None and which.kind != "keepalive":
        return {"peers": {}, "absent": dict.fromkeys(settings.peers, "the bench's client needs Go")}
    with ground(which, settings) as field:
        if which.kind == "keepalive":
            results = _rounds(field, which, settings, _keepalive(field, which, settings))
        else:
            assert binary is not None
            if which.kind == "connect":
                results = _rounds(field, which, settings, _connect(field, which, settings, binary))
            elif which.kind == "events":
                results = _rounds(field, which, settings, events.prepare(field, which, settings, binary))
            elif which.kind == "push":
                results = push.measure(field, settings, binary, say)
            elif which.kind == "idle":
                results = idle.measure(field, which, settings, binary, say)
            else:
                results = freshness.measure(field, settings, binary, say)
        return {"peers": results, "absent": field.absent}
