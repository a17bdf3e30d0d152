"""The results on disk: a file a run, and latest.json with each scenario's latest."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("results")
LATEST = FOLDER / "latest.json"


def read() -> dict[str, Any]:
    """The latest of each scenario; empty before the first run."""
    if not LATEST.exists():
        return {"scenarios": {}}
    latest: dict[str, Any] = json.loads(LATEST.read_text())
    return latest


def _write(path: Path, results: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def save(run: dict[str, Any]) -> Path:
    """Keep this run, and put its scenarios into the latest. Each keeps when and on what it was measured."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / time.strftime("run-%Y%m%d-%H%M%S.json", time.gmtime())
    _write(path, run)
    latest = read()
    for name, result in run["scenarios"].items():
        latest["scenarios"][name] = result
    _write(LATEST, latest)
    return path
