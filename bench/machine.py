"""The machine that the measurements were made on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path


def facts() -> dict[str, object]:
    """Return CPU, cores, memory, kernel, tools and load average, but no host name."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, timeout=10, check=False).stdout
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) / 1048576) if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "wrk": wrk.splitlines()[0].split(" Copyright")[0].strip() if wrk else "?",
        "openssl": subprocess.run(
            ["openssl", "version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout.strip(),
        "load_average": os.getloadavg()[0],
    }
