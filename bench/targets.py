"""The targets for livestate's cost compared with each peer's, and whether they are met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench import stats


@dataclass(frozen=True)
class Row:
    """A target for the ratio livestate / peer: at most `must`, and ideally `aim`. Without a peer, for memory in KB."""

    scenario: str
    peer: str | None
    must: float
    aim: float
    subject: str = "livestate"

    @property
    def title(self) -> str:
        """The title of the row in the table."""
        subject = "" if self.subject == "livestate" else f" ({self.subject})"
        return f"{self.scenario}{subject} / {self.peer}" if self.peer else f"{self.scenario}, KB per connection"


ROWS = (
    Row("http", "nginx", 0.9, 0.8),
    Row("http", "go", 0.42, 0.35),
    Row("http", "floor", 1.5, 1.25),
    Row("https", "nginx", 1.0, 0.85),
    Row("https", "go", 0.75, 0.6),
    Row("https", "floor", 1.6, 1.3),
    Row("not-modified", "nginx", 1.0, 0.8),
    Row("new-connection", "go", 1.2, 0.8),
    Row("new-tls", "go", 1.2, 0.9),
    Row("new-tls-resumed", "go", 1.2, 0.9),
    Row("idle", None, 3.0, 1.5),
    Row("idle-tls", None, 20.0, 16.0),
    Row("browser", "nginx", 1.3, 1.0),
    Row("events", "nchan", 1.3, 1.0),
    Row("events", "mercure", 0.5, 0.5),
    Row("events-tls", "nchan", 1.3, 1.0),
    Row("events-tls", "mercure", 0.5, 0.5),
    Row("http", "go", 0.8, 0.6, subject="livestate-epoll"),
)


@dataclass(frozen=True)
class Verdict:
    """A target with the measured value, which is None if it was not measured."""

    row: Row
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def word(self) -> str:
        """The verdict in words."""
        if self.value is None:
            return "not measured"
        if self.value <= self.row.aim:
            return "pass, aim met"
        return "pass" if self.value <= self.row.must else "FAIL"


def judge(results: dict[str, Any]) -> list[Verdict]:
    """Compare the latest results with each target."""
    verdicts = []
    for row in ROWS:
        measured = results.get("scenarios", {}).get(row.scenario, {}).get("peers", {})
        ours = measured.get(row.subject)
        if row.peer is None:
            verdicts.append(Verdict(row, ours[0]["kb"] if ours else None))
            continue
        ratio = stats.ratio(ours, measured.get(row.peer))
        verdicts.append(Verdict(row, ratio.median, ratio.low, ratio.high) if ratio else Verdict(row, None))
    return verdicts


def passed(verdicts: list[Verdict]) -> bool:
    """Return whether every target was measured, and none is above its limit."""
    return all(verdict.value is not None and verdict.value <= verdict.row.must for verdict in verdicts)
