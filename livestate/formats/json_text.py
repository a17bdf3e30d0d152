"""JSON as text that is safe to print to a terminal or a pipe."""

import json
import re
from typing import Any

#: Characters that are escaped although JSON does not require it. C1 controls could control the terminal, and
#: bidirectional overrides could display the document in a different order. Line separators would end a line. Lone
#: surrogates have no UTF-8 encoding.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def to_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON that is safe to print: compact, or indented by `indent` spaces."""
    separators = (",", ":") if indent is None else (",", ": ")
    return safe(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators))


def safe(text: str) -> str:
    """Return JSON text with all unsafe characters escaped. In valid JSON, they occur only inside strings."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
