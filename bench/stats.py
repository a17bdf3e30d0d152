"""Medians with their spread, and ratios computed round by round."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The median, minimum and maximum over the rounds."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Return the spread of values."""
    return Spread(median(values), min(values), max(values))


def of(rounds: list[dict[str, Any]], key: str) -> Spread:
    """Return the spread of one value of each round."""
    return spread([float(measured[key]) for measured in rounds])


def ratio(ours: list[dict[str, Any]] | None, theirs: list[dict[str, Any]] | None) -> Spread | None:
    """Return the spread of the ratio of our CPU time to theirs.

    It is computed within each round, so that a disturbance of the machine affects both.
    """
    if not ours or not theirs or "cpu_us" not in ours[0] or "cpu_us" not in theirs[0]:
        return None
    return spread([a["cpu_us"] / b["cpu_us"] for a, b in zip(ours, theirs, strict=False)])
