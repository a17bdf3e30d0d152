"""CPU time and memory used by a server's process tree, from /proc.

utime + stime of a process includes its threads that have exited, and cutime + cstime its children that were waited for.
So over a tree of live processes, nothing is missed and nothing is counted twice. The kernel scales the values so that
their sum is the precise run time, in ticks of 10 ms, which is 0.2 % of a window of five seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name, which may contain spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def tree(roots: Iterable[int]) -> set[int]:
    """Return ROOTS and all their live descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(name))
    found: set[int] = set()
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, ()))
    return found


def seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds used so far by PIDS and those of their children that were waited for."""
    ticks = 0
    for pid in pids:
        if (stat := _stat(pid)) is not None:
            ticks += sum(int(field) for field in stat[11:15])
    return ticks * TICK


def memory(pids: Iterable[int]) -> tuple[float, float]:
    """Return the sums of RSS and PSS in KB.

    PSS divides shared pages among the processes that map them, so that its sum is meaningful.
    """
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
    """Bind every thread of PIDS to CORE. Some servers spread their workers over other cores on their own."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {core})
