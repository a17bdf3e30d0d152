"""The status as an HTML page: tables, no scripts."""

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.4 system-ui, sans-serif; margin: 1.5rem; }
table { border-collapse: collapse; margin-block: 1rem; }
caption { font-weight: bold; text-align: start; }
th, td { border: 1px solid GrayText; padding: .25rem .6rem; text-align: start; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
.bad { font-weight: bold; color: light-dark(#a40000, #ff9c9c); }
"""

#: Allow this one style and nothing else (Content Security Policy Level 3): text from a store or a URL stays text.
POLICY = (
    b"default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    % b64encode(sha256(_STYLE.encode("utf-8")).digest())
)


def status_page(status: Mapping[str, Any]) -> bytes:
    """Return the page.

    :param status: the content of `/status` as JSON.
    """
    documents = [_row_of(document) for document in status["documents"]]
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>livestate</title>\n<style>{_STYLE}</style>",
        f"<h1>livestate {html.escape(status['version'])}</h1>",
        f"<p>Up for {_duration(status['uptime_seconds'])}; {status['connections']:,} connections.</p>",
        _table("Documents", documents),
    ]
    if status.get("workers"):
        parts.append(_table("Workers", status["workers"]))
    parts.append('<p>More in <a href="metrics">/metrics</a>.</p>\n</html>\n')
    return "\n".join(parts).encode("utf-8", "backslashreplace")


def _row_of(document: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {coding: representation["bytes"] for coding, representation in document.get("representations", {}).items()}
    return {
        "path": document["path"],
        "state": _state_of(document),
        "age": _duration(document["age_seconds"]) if "age_seconds" in document else "",
        "source": document["source"],
        "trouble": document["trouble"] or "",
        "fetches": document["fetches"],
        "failures": document["failures"],
        "refused": document["refusals"],
        "changes": document["changes"],
        "bytes": _list(sizes),
        "answers": _list(document["answers"]),
        "event readers": document["event_readers"],
        "websocket readers": document["websocket_readers"],
        "long polls": document["long_polls"],
    }


def _state_of(document: Mapping[str, Any]) -> str:
    if "version" not in document:
        return "no document yet"
    return "fresh" if document["fresh"] else "stale"


def _list(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {number:,}" for name, number in numbers.items())


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def _table(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a column for each of `rows`: there are few of them, and each has many values."""
    lines = [f"<table>\n<caption>{html.escape(caption)}</caption>"]
    for name in dict.fromkeys(chain.from_iterable(rows)):
        cells = "".join(_cell(name, row.get(name)) for row in rows)
        lines.append(f'<tr><th scope="row">{html.escape(name.replace("_", " "))}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])


def _cell(name: str, value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and name != "pid" else str("" if value is None else value)
    bad = (name == "state" and value != "fresh") or (name == "trouble" and value)
    attributes = ' class="bad"' if bad else ""
    return f"<td{attributes}>{html.escape(text)}</td>"
