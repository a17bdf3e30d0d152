"""The tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import stats, targets
from bench.peers import PEERS
from bench.scenario import SCENARIOS, Scenario


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([first, *others]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else (f"{value:.1f}" if value >= 10 else f"{value:.2f}")


def between(spread: stats.Spread) -> str:
    """Median (smallest–largest)."""
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def time(microseconds: float) -> str:
    """A latency in the unit a reader expects."""
    return f"{microseconds:.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def title(name: str) -> str:
    """A peer's name in tables."""
    return PEERS[name].title if name in PEERS else name


def _worst(rounds: list[dict[str, Any]]) -> dict[str, int]:
    """The errors of each kind, as many as there were in the worst round."""
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
            f"CPU µs a {unit}",
            f"{unit}s/s",
            "p50",
            "p99",
            "livestate / it",
            "core busy",
            "memory a connection" if scenario.kind == "keepalive" else "sessions",
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
    return table(["server", "KB a connection (PSS)", "(RSS)", "the server before", "connections"], rows)


def _freshness(peers: dict[str, Any]) -> str:
    rows = []
    for name, runs in peers.items():
        for taken in runs:
            first, last = taken["first_ms"], taken["last_ms"]
            pace = f" each {taken['every_s']:g} s" if taken["mode"] == "poll" else ""
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
    return table(["server", "readers", "p50", "p99", "first reader", "last reader", "core busy", "versions"], rows)


def _pollers(taken: Sequence[dict[str, Any]]) -> str:
    """p99 of ordinary polls, quiet and during the broadcasts."""
    found = [round["pollers"] for round in taken if round["pollers"]]
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
            "CPU µs an event",
            "livestate / it",
            "readers",
            "first reader",
            "p50",
            "p99",
            "last reader (slowest)",
            "core busy",
            "memory a reader",
            "polls' p99, quiet → broadcasts",
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
    header = ["server, how it hears", "readers", "p50", "p99", "first reader", "last reader", "its p90"]
    return table([*header, "CPU µs an event", "changes", "notes"], rows)


def scenario(name: str, result: dict[str, Any]) -> str:
    """One scenario: its title, its table, and the peers that are missing."""
    which = SCENARIOS[name]
    peers = result["peers"]
    lines = [f"## {name}: {which.title}", ""]
    if peers:
        render = {"idle": _idle, "freshness": _freshness, "events": _events, "push": _push}.get(which.kind)
        lines.append(render(peers) if render else _loads(which, peers))
    lines += [f"missing: {title(peer)}: {why}" for peer, why in result["absent"].items()]
    return "\n".join(lines) + "\n"


def check(results: dict[str, Any]) -> str:
    """The bar, row by row."""
    rows = []
    for verdict in targets.judge(results):
        measured = "-" if verdict.value is None else f"{verdict.value:.2f}"
        spread = f"{verdict.low:.2f}–{verdict.high:.2f}" if verdict.low is not None else "-"
        rows.append(
            [verdict.row.title, f"{verdict.row.must:g}", f"{verdict.row.aim:g}", measured, spread, verdict.word]
        )
    return "## The bar\n\n" + table(["livestate / peer", "must", "aim", "measured", "spread", "verdict"], rows) + "\n"
