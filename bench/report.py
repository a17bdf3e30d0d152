"""The tables that are printed on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import stats, targets
from bench.peers import PEERS
from bench.scenario import SCENARIOS, Scenario


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table. The first column is aligned left, the others right."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([first, *others]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else (f"{value:.1f}" if value >= 10 else f"{value:.2f}")


def between(spread: stats.Spread) -> str:
    """Format as median (minimum–maximum)."""
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def time(microseconds: float) -> str:
    """Format a latency in µs or ms."""
    return f"{microseconds:.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def title(name: str) -> str:
    """Return a peer's name for tables."""
    return PEERS[name].title if name in PEERS else name


def _worst(rounds: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of errors of each kind in the worst round."""
    errors: dict[str, int] = {}
    for taken in rounds:
        for kind, count in taken["errors"].items():
            errors[kind] = max(errors.get(kind, 0), count)
    return errors


def _loads(scenario: Scenario, peers: dict[str, Any]) -> str:
    ours = peers.get("livestate")
    rows = []
    for name, rounds in sorted(peers.items(), key=lambda item: stats.of(item[1], "cpu_us").median):
        compared = stats.ratio(ours, rounds) if name != "livestate" else None
        extra = "-"
        if rounds[0].get("active_kb") is not None:
            extra = number(max(0.0, stats.of(rounds, "active_kb").median)) + " KB"
        elif rounds[0].get("resumed") is not None:
            extra = f"{100 * stats.of(rounds, 'resumed').median:.0f} % resumed"
        errors = _worst(rounds)
        rows.append(
            [
                title(name),
                between(stats.of(rounds, "cpu_us")),
                f"{stats.of(rounds, 'rate').median:,.0f}",
                time(stats.of(rounds, "p50_us").median),
                time(stats.of(rounds, "p99_us").median),
                between(compared) if compared else "-",
                f"{100 * stats.of(rounds, 'busy').median:.0f} %",
                extra,
                "; ".join(f"{kind} {count}" for kind, count in errors.items()) or "-",
            ]
        )
    unit = scenario.unit
    return table(
        [
            "server",
            f"CPU µs per {unit}",
            f"{unit}s/s",
            "p50",
            "p99",
            "livestate / server",
            "core busy",
            "memory per connection" if scenario.kind == "keepalive" else "sessions",
            "notes",
        ],
        rows,
    )


def _idle(peers: dict[str, Any]) -> str:
    rows = [
        [
            title(name),
            number(max(0.0, taken[0]["kb"])),
            number(max(0.0, taken[0]["rss_kb"])),
            f"{taken[0]['before_kb'] / 1024:.0f} MB",
            str(taken[0]["connections"]),
        ]
        for name, taken in sorted(peers.items(), key=lambda item: float(item[1][0]["kb"]))
    ]
    return table(["server", "KB per connection (PSS)", "(RSS)", "server before", "connections"], rows)


def _freshness(peers: dict[str, Any]) -> str:
    rows = []
    for name, runs in peers.items():
        for taken in runs:
            first, last = taken["first_ms"], taken["last_ms"]
            pace = f" every {taken['every_s']:g} s" if taken["mode"] == "poll" else ""
            rows.append(
                [
                    title(name),
                    f"{taken['readers']} × {taken['mode']}" + pace,
                    f"{taken['p50_ms']:.0f} ms",
                    f"{taken['p99_ms']:.0f} ms",
                    f"{first['p50']:.0f} ms ({first['min']:.0f}–{first['max']:.0f})",
                    f"{last['p50']:.0f} ms ({last['min']:.0f}–{last['max']:.0f})",
                    f"{100 * taken['busy']:.1f} %",
                    str(taken["versions"]),
                ]
            )
    return table(["server", "clients", "p50", "p99", "first client", "last client", "core busy", "versions"], rows)


def _pollers(rounds: Sequence[dict[str, Any]]) -> str:
    """Format the p99 of ordinary polls, without changes and during the broadcasts."""
    found = [round["pollers"] for round in rounds if round["pollers"]]
    if not found:
        return "-"
    quiet, busy = (stats.spread([one[name]["p99_us"] for one in found]).median for name in ("quiet", "broadcasts"))
    return f"{time(quiet)} → {time(busy)}"


def _events(peers: dict[str, Any]) -> str:
    ours = peers.get("livestate")
    rows = []
    for name, rounds in sorted(peers.items(), key=lambda item: stats.of(item[1], "cpu_us").median):
        compared = stats.ratio(ours, rounds) if name != "livestate" else None
        errors = _worst(rounds)
        rows.append(
            [
                title(name),
                between(stats.of(rounds, "cpu_us")),
                between(compared) if compared else "-",
                f"{rounds[0]['readers']:,}",
                time(stats.of(rounds, "first_us").median),
                time(stats.of(rounds, "p50_us").median),
                time(stats.of(rounds, "p99_us").median),
                f"{time(stats.of(rounds, 'last_us').median)} ({time(stats.of(rounds, 'slowest_us').high)})",
                f"{100 * stats.of(rounds, 'busy').median:.0f} %",
                f"{number(max(0.0, stats.of(rounds, 'kb').median))} KB",
                _pollers(rounds),
                "; ".join(f"{kind} {count}" for kind, count in errors.items()) or "-",
            ]
        )
    return table(
        [
            "server",
            "CPU µs per event",
            "livestate / server",
            "subscribers",
            "first subscriber",
            "p50",
            "p99",
            "last subscriber (slowest)",
            "core busy",
            "memory per subscriber",
            "p99 of polls, quiet → broadcasts",
            "notes",
        ],
        rows,
    )


def _push(peers: dict[str, Any]) -> str:
    rows = []
    for name, runs in peers.items():
        for taken in runs:
            first, last = taken["first_ms"], taken["last_ms"]
            rows.append(
                [
                    f"{title(name)}, {taken['way']}",
                    f"{taken['readers']:,}",
                    f"{taken['p50_ms']:.0f} ms",
                    f"{taken['p99_ms']:.0f} ms",
                    f"{first['p50']:.1f} ms ({first['min']:.1f}–{first['max']:.1f})",
                    f"{last['p50']:.0f} ms ({last['min']:.0f}–{last['max']:.0f})",
                    f"{last['p90']:.0f} ms",
                    number(taken["cpu_us"]),
                    str(taken["versions"]),
                    "; ".join(f"{kind} {count}" for kind, count in taken["errors"].items()) or "-",
                ]
            )
    header = ["server, notification", "subscribers", "p50", "p99", "first subscriber", "last subscriber", "p90 of last"]
    return table([*header, "CPU µs per event", "changes", "notes"], rows)


def scenario(name: str, result: dict[str, Any]) -> str:
    """Return the report of one scenario: its title, its table, and the peers that are missing."""
    which = SCENARIOS[name]
    peers = result["peers"]
    lines = [f"## {name}: {which.title}", ""]
    if peers:
        render = {"idle": _idle, "freshness": _freshness, "events": _events, "push": _push}.get(which.kind)
        lines.append(render(peers) if render else _loads(which, peers))
    lines += [f"missing: {title(peer)}: {why}" for peer, why in result["absent"].items()]
    return "\n".join(lines) + "\n"


def check(results: dict[str, Any]) -> str:
    """Return the table of targets."""
    rows = []
    for verdict in targets.judge(results):
        measured = "-" if verdict.value is None else f"{verdict.value:.2f}"
        spread = f"{verdict.low:.2f}–{verdict.high:.2f}" if verdict.low is not None else "-"
        rows.append(
            [verdict.row.title, f"{verdict.row.must:g}", f"{verdict.row.aim:g}", measured, spread, verdict.word]
        )
    return "## Targets\n\n" + table(["livestate / peer", "must", "aim", "measured", "spread", "verdict"], rows) + "\n"
