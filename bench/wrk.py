"""Measurements with wrk, over an exact window of its run.

wrk's own count covers its whole run. That includes opening a thousand connections, which takes a good part of a short
run with TLS. The kernel counts the segments with data that each of the server's sockets has received (`ss -i`), and a
request of a keep-alive client is one such segment. So two readings give the number of requests in exactly the measured
window.
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import cpu
from bench.peers.peer import PATH, Server
from bench.process import BenchError, Children, run

SCRIPT = Path(__file__).with_name("browser.lua")
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


@dataclass(frozen=True)
class Load:
    """The load that wrk generates."""

    connections: int
    tls: bool = False
    headers: tuple[str, ...] = ()
    codings: tuple[str, ...] = ()  # if not empty, send the requests of browser.lua

    def command(self, port: int, seconds: float) -> list[str]:
        """Return the command line. wrk has one thread, since it has one core."""
        url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}{PATH}"
        argv = ["wrk", "-t1", f"-c{self.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "--latency"]
        for header in self.headers:
            argv += ["-H", header]
        if self.codings:
            return [*argv, "-s", str(SCRIPT), url, "--", *self.codings]
        return [*argv, url]


@dataclass
class Round:
    """The measurements of one round of one peer."""

    cpu_us: float
    rate: float
    p50_us: float
    p99_us: float
    count: int
    busy: float
    errors: dict[str, int] = field(default_factory=dict)
    active_kb: float | None = None
    resumed: float | None = None


def received(port: int) -> int:
    """Return the number of data segments that the sockets of the server on PORT have received."""
    listed = run(["ss", "-tinH", "state", "established", "sport", "=", f":{port}"], timeout=30)
    return sum(int(number) for number in re.findall(r"\bdata_segs_in:(\d+)", listed))


def parse(text: str) -> tuple[float, float, float, dict[str, int]]:
    """Parse wrk's report.

    :returns: p50 and p99 in µs, requests per second, and the number of errors of each kind.
    """
    found = {
        percent: float(value) * UNITS[unit]
        for percent, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    }
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", text, re.M)
    if rate is None or set(found) != {"50", "99"}:
        raise BenchError(f"unexpected output of wrk: {text.strip()[-400:]}")
    errors: dict[str, int] = {}
    if socket := re.search(r"Socket errors: (.*)", text):
        errors = {kind: int(count) for kind, count in re.findall(r"(\w+) (\d+)", socket[1]) if int(count)}
    if status := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        errors["status"] = int(status[1])
    return found["50"], found["99"], float(rate[1]), errors


def warm_up(children: Children, server: Server, load: Load, core: int, seconds: float) -> None:
    """Run wrk without measuring."""
    port = server.port(load.tls)
    assert port is not None
    child = children.start("wrk", load.command(port, seconds), core=core)
    try:
        child.wait(seconds + 30)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk did not finish with {server.peer}") from error
    finally:
        children.stop(child)


def measure(
    children: Children, server: Server, load: Load, *, core: int, warm: float, seconds: float, base_kb: float
) -> Round:
    """Measure one round: read CPU time and requests at both ends of a window within the run of wrk."""
    port = server.port(load.tls)
    assert port is not None
    child = children.start("wrk", load.command(port, warm + seconds + 1.5), core=core, pipes=True)
    try:
        time.sleep(warm)
        before = cpu.seconds(cpu.tree(server.pids))
        at_before, count_before = time.monotonic(), received(port)
        time.sleep(seconds)
        pids = cpu.tree(server.pids)
        used = cpu.seconds(pids) - before
        elapsed = time.monotonic() - at_before
        count = received(port) - count_before
        _, pss = cpu.memory(pids)
        output, _ = child.communicate(timeout=60)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk did not finish with {server.peer}") from error
    finally:
        children.stop(child)
    if server.has_exited():
        raise BenchError(
            f"{server.peer} ended by itself under load: {server.exit_statuses()} {children.log(server.peer)}"
        )
    if child.returncode:
        raise BenchError(f"wrk exited with {child.returncode}: {children.log('wrk')}")
    p50, p99, rate, errors = parse(output.decode())
    if count <= 0:
        raise BenchError(f"{server.peer} answered no request: {children.log(server.peer)}")
    counted = count / elapsed
    if abs(counted - rate) > 0.3 * rate:
        # The counts of closed connections are lost, and a machine that stalls makes both figures wrong.
        errors["uneven load, %"] = round(100 * (counted / rate - 1))
    return Round(
        cpu_us=1e6 * used / count,
        rate=counted,
        p50_us=p50,
        p99_us=p99,
        count=count,
        busy=used / elapsed,
        errors=errors,
        active_kb=(pss - base_kb) / load.connections,
    )
