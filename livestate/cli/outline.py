"""Lays out a document on a screen of limited width and height.

The layout is indented like handwritten JSON: an array or object that fits on the rest of a line stays on one line. If
there are too few rows, they are shared among the arrays and objects. Each shows as many members as fit, and then how
many more there are; one that gets a single row is truncated. The cost depends on the size of the screen, not on the
size of the document.

Changes are kept in a tree parallel to the document: True means that all of a value changed, a mapping that some of its
members did, and None that nothing did.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeAlias

from livestate.formats.json_text import safe

#: What changed in a value.
Changes: TypeAlias = "bool | Mapping[Any, Changes] | None"

#: Some text, and whether it is highlighted as changed.
Piece: TypeAlias = tuple[str, bool]
Line: TypeAlias = list[Piece]

#: Depth to which changes are tracked. Below it, a value has changed as a whole or not at all.
_MAX_DEPTH = 32
_INDENT = 2
_ELLIPSIS = "…"


def changes(before: Any, after: Any, depth: int = _MAX_DEPTH) -> Changes:
    """Return what in `after` differs from `before`. Arrays are compared index by index."""
    found: dict[Any, Changes]
    if not depth or type(before) is not type(after):
        return None if type(before) is type(after) and before == after else True
    if isinstance(after, dict):
        found = {name: changes(before[name], value, depth - 1) if name in before else True
                 for name, value in after.items()}  # fmt: skip
    elif isinstance(after, list):
        found = {index: changes(before[index], value, depth - 1) if index < len(before) else True
                 for index, value in enumerate(after)}  # fmt: skip
    else:
        return None if before == after else True
    return {name: change for name, change in found.items() if change} or None


def outline(value: Any, changed: Changes, width: int, height: int) -> list[Line]:
    """Lay out `value` in at most `height` lines of at most `width` columns."""
    return _lay_out(value, changed, width, height, 0, [], "")


def fit(pieces: Iterable[Piece], width: int) -> tuple[Line, bool]:
    """Join pieces to a line of at most `width` columns, and return it and whether all of them fit."""
    line: Line = []
    remaining = width
    for text, highlighted in pieces:
        remaining -= columns(text)
        if remaining < 0:
            return _truncate([*line, (text, highlighted)], width), False
        line.append((text, highlighted))
    return line, True


def columns(text: str) -> int:
    """Return the number of terminal columns of `text` (Unicode Standard Annex 11: wide characters take two)."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _truncate(line: Line, width: int) -> Line:
    """Shorten a line to `width` columns, including an ellipsis at its end."""
    while line:
        text, highlighted = line.pop()
        remaining = width - 1 - sum(columns(other) for other, _ in line)
        while text and columns(text) > remaining:
            text = text[:-1]
        if text:
            return [*line, (text, highlighted), (_ELLIPSIS, highlighted)]
    return [(_ELLIPSIS, False)] if width else []


def _lay_out(value: Any, changed: Changes, width: int, rows: int, indent: int, before: Line, after: str) -> list[Line]:
    """Lay out one value, with `before` ahead of it on its first line and `after` behind it on its last line."""
    line, fits = _on_one_line(value, changed, width, indent, before, after)
    if not _is_nested(value) or (fits and indent) or rows < min(len(value), 2) + 2:
        return [line]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = [fit([(" " * indent, False), *before, (opening, False)], width)[0]]
    inner = " " * (indent + _INDENT)
    count = len(value) if len(value) <= rows - 2 else rows - 3
    members: list[tuple[Any, Any, Line, str, Line, bool]] = []
    for name, member in islice(_members(value), count):
        label = [(_scalar(name, width) + ": ", False)] if isinstance(value, dict) else []
        comma = "," if len(members) + 1 < len(value) else ""
        flat, fits = _on_one_line(member, _changes_in(changed, name), width, len(inner), label, comma)
        members.append((name, member, label, comma, flat, _is_nested(member) and not fits))
    # The remaining rows are shared among the members that need more than one.
    remaining = rows - 2 - count - (count < len(value))
    waiting = sum(needs_more for *_, needs_more in members)
    for name, member, label, comma, flat, needs_more in members:
        if needs_more:
            height = 1 + remaining // waiting
            nested = _lay_out(member, _changes_in(changed, name), width, height, len(inner), label, comma)
            waiting -= 1
            remaining -= len(nested) - 1
            lines += nested
        else:
            lines.append(flat)
    if count < len(value):
        hidden = changed is True or (
            isinstance(changed, Mapping) and not changed.keys() <= {name for name, *_ in members}
        )
        lines.append(fit([(inner, False), (f"{_ELLIPSIS} {len(value) - count:,} more", hidden)], width)[0])
    return [*lines, fit([(" " * indent + closing + after, False)], width)[0]]


def _on_one_line(value: Any, changed: Changes, width: int, indent: int, before: Line, after: str) -> tuple[Line, bool]:
    return fit(chain([(" " * indent, False), *before], _tokens(value, changed, width), [(after, False)]), width)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _tokens(value: Any, changed: Changes, width: int) -> Iterator[Piece]:
    """Yield the pieces of a value on one line. The caller stops after `width` columns."""
    if not isinstance(value, (dict, list)):
        yield _scalar(value, width), changed is True
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield opening, changed is True
    for number, (name, member) in enumerate(_members(value)):
        if number:
            yield ", ", changed is True
        if isinstance(value, dict):
            yield _scalar(name, width) + ": ", changed is True
        yield from _tokens(member, _changes_in(changed, name), width)
    yield closing, changed is True


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else enumerate(value)


def _changes_in(changed: Changes, name: Any) -> Changes:
    """Return the changes in one member, given the changes in the whole."""
    return changed.get(name) if isinstance(changed, Mapping) else changed


def _scalar(value: Any, width: int) -> str:
    """Return a string, number, true, false or null as JSON. A long string is cut to what can be visible."""
    # The factor of 8 allows for characters that take no column.
    return safe(json.dumps(value[: 8 * width] if isinstance(value, str) else value, ensure_ascii=False))
