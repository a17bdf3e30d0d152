"""The settings of one run of the bench, from the command line."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass

from bench.process import BenchError


def cores() -> tuple[int, int]:
    """Return the cores of the server and of the load: the last and the first that the bench may use.

    :raises BenchError: when there is only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError("two cores are needed: one for the server, one for the load")
    return allowed[-1], allowed[0]


@dataclass(frozen=True)
class Settings:
    """The settings of a run, which are saved with its results."""

    scenarios: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int = 5
    seconds: float = 5.0
    warm: float = 1.5
    connections: int = 1000
    idle: int = 5000
    readers: int = 1000
    versions: int = 12
    event_readers: int = 15_000
    event_tls_readers: int = 8_000
    changes: int = 10
    push_readers: int = 5000
    push_changes: int = 60
    server_core: int = 1
    load_core: int = 0
    python: str = sys.executable
    peer_python: str = sys.executable

    def facts(self) -> dict[str, object]:
        """Return the settings for the results file, without the paths of this machine."""
        settings = asdict(self)
        del settings["python"], settings["peer_python"]
        return settings
