"""Writing JSON for a terminal and for a pipe."""

import json
import re
from typing import Any

#: What is escaped though JSON need not: C1 controls and bidirectional overrides would let a document command the
#: terminal or show it in another order, line separators would end a line, and lone surrogates have no UTF-8.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def to_text(value: Any, indent: int | None = None) -> str:
    """Give `value` as JSON, compact or indented, in characters that are safe to print."""
    separators = (",", ":") if indent is None else (",", ": ")
    return safe(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators))


def safe(text: str) -> str:
    """Give JSON text with all that is unsafe to print escaped; it is only ever inside of strings."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
