"""Virtual environments, made with pip as users do, for tests of the installed package."""

import os
import shutil
import sys
from pathlib import Path

from tests.integration.processes import run

ROOT = Path(__file__).parents[2]

#: Files in a checkout that are not part of livestate, or that development leaves there.
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "_trial_temp*",
    "dropin.cache", "results", "node_modules",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Return environment variables with which Python uses neither this checkout nor this virtual environment."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def copy_checkout(target: Path) -> Path:
    """Copy the checkout, without what a fresh clone does not have, and return the copy's path."""
    shutil.copytree(ROOT, target, ignore=_LEFT_OUT)
    return target


def make_venv(target: Path, *to_install: str | Path) -> Path:
    """Make a virtual environment, install packages in it, and return its `bin` folder."""
    folder = target.parent
    for command in (
        [sys.executable, "-m", "venv", target],
        [target / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *to_install],
    ):
        ran = run(*command, cwd=folder, env=environment(), timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return target / "bin"
