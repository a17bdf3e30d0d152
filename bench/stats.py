"""Medians with their spread, and ratios taken round by round."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A median and the smallest and largest of the rounds."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Of the rounds of one peer."""
    return Spread(median(values), min(values), max(values))


def of(rounds: list[dict[str, Any]], key: str) -> Spread:
    """Of one number of each round."""
    return spread([float(taken[key]) for taken in rounds])


def ratio(ours: list[dict[str, Any]] | None, theirs: list[dict[str, Any]] | None) -> Spread | None:
    """CPU of ours by theirs in the same round: what disturbed the machine then disturbed both."""
    if not ours or not theirs or "cpu_us" not in ours[0] or "cpu_us" not in theirs[0]:
        return None
    return spread([a["cpu_us"] / b["cpu_us"] for a, b in zip(ours, theirs, strict=False)])
