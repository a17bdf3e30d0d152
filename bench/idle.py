"""Memory per idle keep-alive connection: PSS of the server's process tree before and after they were opened.

A peer has served a few connections before it is measured, so that what it loads once is not attributed to connections.
The kernel's memory for sockets is the same for all peers, and not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import client, cpu
from bench.environment import Session
from bench.process import BenchError
from bench.scenario import Scenario
from bench.settings import Settings

WARM_UP_CONNECTIONS = 50


def measure(
    session: Session, scenario: Scenario, settings: Settings, binary: Path, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Measure one round per peer. Memory hardly varies, and a second round would reuse memory freed by the first."""
    children, core = session.environment.children, settings.load_core
    results: dict[str, list[dict[str, Any]]] = {}
    for name, server in session.servers.items():
        try:
            with client.idle(children, binary, server, tls=scenario.tls, connections=WARM_UP_CONNECTIONS, core=core):
                time.sleep(0.5)
            time.sleep(0.5)
            rss_before, pss_before = cpu.memory(cpu.tree(server.pids))
            with client.idle(
                children, binary, server, tls=scenario.tls, connections=settings.idle, core=core
            ) as opened:
                time.sleep(1.0)
                rss, pss = cpu.memory(cpu.tree(server.pids))
        except BenchError as error:
            session.absent[name] = str(error)
            continue
        result = {
            "connections": opened,
            "kb": (pss - pss_before) / opened,
            "rss_kb": (rss - rss_before) / opened,
            "before_kb": pss_before,
            "after_kb": pss,
        }
        results[name] = [result]
        progress(f"{scenario.name} {name}: {result['kb']:.2f} KB per connection, {opened} connections")
    return results
