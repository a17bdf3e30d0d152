"""Laying a document out on a screen of so many columns and rows.

It is indented as one would by hand: an array or object that fits on the rest of a line stays on one. Where there are
too few rows, each array or object gets its share of them, shows as many members as fit, and says how many more there
are; one that gets no more than one row is cut. What a large document costs depends on the screen, not on its size.

What changed is kept as a tree beside the document: True, all of it; a mapping, some of its members; None, nothing.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeAlias

from livestate.formats.json_text import safe

#: What changed in a value.
Changes: TypeAlias = "bool | Mapping[Any, Changes] | None"

#: Some text, and whether it is of what changed.
Piece: TypeAlias = tuple[str, bool]
Line: TypeAlias = list[Piece]

#: Levels in which changes are told apart.
_DEEPEST = 32
_INDENT = 2
_CUT = "…"


def changes(before: Any, after: Any, depth: int = _DEEPEST) -> Changes:
    """Tell what in `after` is not as it was in `before`. Arrays are compared place by place."""
    found: dict[Any, Changes]
    if not depth or type(before) is not type(after):
        return None if type(before) is type(after) and before == after else True
    if isinstance(after, dict):
        found = {name: changes(before[name], value, depth - 1) if name in before else True
                 for name, value in after.items()}  # fmt: skip
    elif isinstance(after, list):
        found = {place: changes(before[place], value, depth - 1) if place < len(before) else True
                 for place, value in enumerate(after)}  # fmt: skip
    else:
        return None if before == after else True
    return {name: change for name, change in found.items() if change} or None


def outline(value: Any, changed: Changes, width: int, height: int) -> list[Line]:
    """Lay `value` out in at most `height` lines of at most `width` columns."""
    return _lay(value, changed, width, height, 0, [], "")


def fill(pieces: Iterable[Piece], width: int) -> tuple[Line, bool]:
    """Take as many pieces as fit into `width` columns, and tell whether it was all."""
    line: Line = []
    room = width
    for text, lit in pieces:
        room -= columns(text)
        if room < 0:
            return _cut([*line, (text, lit)], width), False
        line.append((text, lit))
    return line, True


def columns(text: str) -> int:
    """Give the columns of a terminal that `text` takes (Unicode Standard Annex 11: wide characters take two)."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _cut(line: Line, width: int) -> Line:
    """Take from the end of a line what is too much, and as much as shows that it was."""
    while line:
        text, lit = line.pop()
        room = width - 1 - sum(columns(other) for other, _ in line)
        while text and columns(text) > room:
            text = text[:-1]
        if text:
            return [*line, (text, lit), (_CUT, lit)]
    return [(_CUT, False)] if width else []


def _lay(value: Any, changed: Changes, width: int, rows: int, indent: int, before: Line, after: str) -> list[Line]:
    """Lay one value out, `before` and `after` being what stands beside it on its first and last line."""
    line, fits = _on_one_line(value, changed, width, indent, before, after)
    if not _is_nested(value) or (fits and indent) or rows < min(len(value), 2) + 2:
        return [line]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = [fill([(" " * indent, False), *before, (opening, False)], width)[0]]
    inner = " " * (indent + _INDENT)
    count = len(value) if len(value) <= rows - 2 else rows - 3
    members: list[tuple[Any, Any, Line, str, Line, bool]] = []
    for name, member in islice(_members(value), count):
        label = [(_scalar(name, width) + ": ", False)] if isinstance(value, dict) else []
        comma = "," if len(members) + 1 < len(value) else ""
        flat, fits = _on_one_line(member, _part(changed, name), width, len(inner), label, comma)
        members.append((name, member, label, comma, flat, _is_nested(member) and not fits))
    # The rows that are left are shared by the members for which one is too few.
    left = rows - 2 - count - (count < len(value))
    waiting = sum(wants for *_, wants in members)
    for name, member, label, comma, flat, wants in members:
        if wants:
            laid = _lay(member, _part(changed, name), width, 1 + left // waiting, len(inner), label, comma)
            waiting -= 1
            left -= len(laid) - 1
            lines += laid
        else:
            lines.append(flat)
    if count < len(value):
        hidden = changed is True or (
            isinstance(changed, Mapping) and not changed.keys() <= {name for name, *_ in members}
        )
        lines.append(fill([(inner, False), (f"{_CUT} {len(value) - count:,} more", hidden)], width)[0])
    return [*lines, fill([(" " * indent + closing + after, False)], width)[0]]


def _on_one_line(value: Any, changed: Changes, width: int, indent: int, before: Line, after: str) -> tuple[Line, bool]:
    return fill(chain([(" " * indent, False), *before], _tokens(value, changed, width), [(after, False)]), width)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _tokens(value: Any, changed: Changes, width: int) -> Iterator[Piece]:
    """Give a value on one line, piece by piece; what is more than `width` columns will not be wanted."""
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
        yield from _tokens(member, _part(changed, name), width)
    yield closing, changed is True


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else enumerate(value)


def _part(changed: Changes, name: Any) -> Changes:
    """Tell what changed in a member, by what changed in the whole."""
    return changed.get(name) if isinstance(changed, Mapping) else changed


def _scalar(value: Any, width: int) -> str:
    """Give a string, number, true, false or null; of a long string, no more than is seen."""
    # Each of its characters may be one that takes no column, but not all of so many.
    return safe(json.dumps(value[: 8 * width] if isinstance(value, str) else value, ensure_ascii=False))
