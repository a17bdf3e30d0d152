"""The results on disk: a file per run, and latest.json with the latest result of each scenario."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("results")
LATEST = FOLDER / "latest.json"


def read() -> dict[str, Any]:
    """Return the latest result of each scenario; none before the first run."""
    if not LATEST.exists():
        return {"scenarios": {}}
    latest: dict[str, Any] = json.loads(LATEST.read_text())
    return latest


def _write(path: Path, results: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def save(run: dict[str, Any]) -> Path:
    """Save this run, update the latest results, and return the file of the run.

    Each scenario says when and on which machine it was measured.
    """
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / time.strftime("run-%Y%m%d-%H%M%S.json", time.gmtime())
    _write(path, run)
    latest = read()
    for name, result in run["scenarios"].items():
        latest["scenarios"][name] = result
    _write(LATEST, latest)
    return path
