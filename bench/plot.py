"""Draw bench/results/latest.svg: the CPU cost of a request for each server, over HTTP and HTTPS, as a bar chart.

SVG is text, so the chart is written without any library. It has its own background and follows the viewer's light or
dark colour scheme, so that it is legible on any page.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench import stats
from bench.report import number, title
from bench.results import FOLDER

WIDTH, LEFT, RIGHT, GAP = 920, 176, 24, 62
TOP, ROW, BAR, FOOT = 92, 30, 16, 48
PANELS = (("http", "HTTP"), ("https", "HTTPS"))
# Bars are cut off at this multiple of livestate's, so that the shorter ones can be compared.
CUT = 8.0

STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .panel { font-size: 14px; font-weight: 600 }
  .soft { fill: #59636e; font-size: 12px }
  .ours { font-weight: 700 }
  .bar { fill: #afb8c1 }
  .bar.ours { fill: #1a7f64 }
  .bar.cousin { fill: #7cc4ad }
  .bar.floor { fill: none; stroke: #818b98; stroke-dasharray: 3 2 }
  .spread { stroke: #1f2328; stroke-width: 1.2 }
  .grid { stroke: #e4e8ec }
  .cut { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .soft { fill: #9198a1 }
    .bar { fill: #4c5561 }
    .bar.ours { fill: #2ea886 }
    .bar.cousin { fill: #1c6a55 }
    .bar.floor { fill: none; stroke: #7d8590 }
    .spread { stroke: #f0f6fc }
    .grid { stroke: #21262d }
    .cut { fill: #0d1117 }
  }
"""


def _step(limit: float) -> float:
    """Return a round distance between grid lines, of which there are about five."""
    power = float(10 ** math.floor(math.log10(limit / 5)))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5.5 >= limit)


def _order(results: dict[str, Any]) -> list[str]:
    """Return the peers by cost over HTTP, cheapest first. Both panels use this order, so a server keeps its row."""
    medians: dict[str, float] = {}
    for scenario, _ in PANELS:
        for name, rounds in results["scenarios"].get(scenario, {}).get("peers", {}).items():
            medians.setdefault(name, stats.of(rounds, "cpu_us").median)
    return sorted(medians, key=medians.__getitem__)


def _limit(peers: dict[str, Any]) -> float:
    medians = {name: stats.of(rounds, "cpu_us").median for name, rounds in peers.items()}
    highest = max(medians.values())
    return min(highest, CUT * medians["livestate"]) if "livestate" in medians else highest


def _kind(name: str) -> str:
    return {"livestate": " ours", "livestate-epoll": " cousin", "floor": " floor"}.get(name, "")


def _bar(x: float, y: float, width: float, limit: float, spread: stats.Spread, kind: str) -> list[str]:
    def at(value: float) -> float:
        return x + width * min(value, limit) / limit

    end, middle = at(spread.median), y + BAR / 2
    parts = [f'<rect class="bar{kind}" x="{x:.1f}" y="{y}" width="{end - x:.1f}" height="{BAR}" rx="2"/>']
    label = end + 6
    if spread.median > limit:
        slash = f"M{end - 18:.1f} {y + BAR + 2}l5 {-BAR - 4}h4l-5 {BAR + 4}z"
        parts.append(f'<path class="cut" d="{slash}"/>')
    elif at(spread.high) - at(spread.low) >= 1:
        low, high = at(spread.low), at(spread.high)
        whisker = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
        parts.append(f'<path class="spread" d="{whisker}"/>')
        label = max(label, high + 6)
    bold = ' class="ours"' if kind == " ours" else ""
    parts.append(f'<text{bold} x="{label:.1f}" y="{y + 13}">{number(spread.median)}</text>')
    return parts


def _panel(x: float, width: float, name: str, peers: dict[str, Any], order: list[str]) -> list[str]:
    limit = _limit(peers)
    bottom = TOP + ROW * len(order)
    parts = [f'<text class="panel" x="{x:.1f}" y="{TOP - 14}">{name}</text>']
    step = _step(limit)
    for index in range(int(limit / step) + 1):
        at = x + width * index * step / limit
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP - 4}V{bottom}"/>')
        parts.append(f'<text class="soft" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{index * step:g}</text>')
    for index, peer in enumerate(order):
        y = TOP + ROW * index + (ROW - BAR) // 2
        if peer in peers:
            parts += _bar(x, y, width, limit, stats.of(peers[peer], "cpu_us"), _kind(peer))
        else:
            parts.append(f'<text class="soft" x="{x + 6:.1f}" y="{y + 13}">not measured</text>')
    return parts


def draw(results: dict[str, Any]) -> str | None:
    """Return the chart, or None if there are no results."""
    panels = [
        (name, results["scenarios"][key]) for key, name in PANELS if results["scenarios"].get(key, {}).get("peers")
    ]
    if not panels:
        return None
    order = _order(results)
    height = TOP + ROW * len(order) + FOOT
    # The gap after a panel has room for the label of its longest bar.
    width = (WIDTH - LEFT - RIGHT - GAP * len(panels)) / len(panels)
    first = panels[0][1]
    parts = [
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        '<text class="title" x="20" y="32">Server CPU per request, in µs (shorter is better)</text>',
        f'<text class="soft" x="20" y="52">one core, {first["settings"]["connections"]:,} keep-alive connections,'
        " 4.3 KB of JSON; median of the rounds, with minimum and maximum</text>",
    ]
    for index, peer in enumerate(order):
        bold = ' class="ours"' if peer == "livestate" else ""
        y = TOP + ROW * index + ROW // 2 + 5
        parts.append(f'<text{bold} x="{LEFT - 10}" y="{y}" text-anchor="end">{escape(title(peer))}</text>')
    for index, (name, result) in enumerate(panels):
        parts += _panel(LEFT + index * (width + GAP), width, name, result["peers"], order)
    facts = first["machine"]
    foot = f"{facts['cpu']}, {facts['kernel']}, {first['measured'][:10]}"
    parts.append(f'<text class="soft" x="20" y="{height - 12}">{escape(foot)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-label="Server CPU time per request, by server, over HTTP and HTTPS">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def save(results: dict[str, Any], folder: Path = FOLDER) -> None:
    """Draw the latest results into their folder."""
    picture = draw(results)
    if picture is not None:
        (folder / "latest.svg").write_text(picture)
