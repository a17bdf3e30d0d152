"""What a server's process tree has used: CPU time and memory, from /proc.

utime+stime of a thread group also counts its threads that have ended, and cutime+cstime its children that were waited
for; so over a tree of live processes nothing is missed and nothing counted twice. The kernel scales the two so that
their sum is the precise run time, in ticks of 10 ms: 0.2 % of a window of five seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on: the second is a name that may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def tree(roots: Iterable[int]) -> set[int]:
    """ROOTS and all their living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(name))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def seconds(pids: Iterable[int]) -> float:
    """CPU seconds used so far by PIDS and their waited-for children."""
    ticks = 0
    for pid in pids:
        if (stat := _stat(pid)) is not None:
            ticks += sum(int(field) for field in stat[11:15])
    return ticks * TICK


def memory(pids: Iterable[int]) -> tuple[float, float]:
    """(RSS, PSS) in KB, summed. PSS shares out pages that several processes map, so that a sum means something."""
    rss = pss = 0.0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("Rss:"):
                rss += float(line.split()[1])
            elif line.startswith("Pss:"):
                pss += float(line.split()[1])
    return rss, pss


def pin(pids: Iterable[int], core: int) -> None:
    """Bind every thread of PIDS to CORE: some servers spread their workers over cores they were not given."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {core})
