"""Virtual environments for tests of what is installed: made by pip, as users make theirs."""

import os
import shutil
import sys
from pathlib import Path

from tests.integration.processes import run

ROOT = Path(__file__).parents[2]

#: What a checkout holds that is not part of livestate, or is made by working in it.
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "_trial_temp*",
    "dropin.cache", "results", "node_modules",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Give an environment in which Python sees nothing of this checkout or this virtual environment."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def copy_checkout(target: Path) -> Path:
    """Copy the checkout as a fresh clone has it."""
    shutil.copytree(ROOT, target, ignore=_LEFT_OUT)
    return target


def make_venv(target: Path, *to_install: str | Path) -> Path:
    """Make a virtual environment, install in it, and give its folder of programs."""
    folder = target.parent
    for command in (
        [sys.executable, "-m", "venv", target],
        [target / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *to_install],
    ):
        ran = run(*command, cwd=folder, env=environment(), timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return target / "bin"
