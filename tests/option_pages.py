"""Write what the documentation says about options, from their table: `python -m tests.option_pages`.

It writes docs/options.md, and the table in README.md between two comments.
"""

import json
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from livestate.config.option_help import sentence
from livestate.config.option_types import AutoInteger, Integer, Number
from livestate.config.options import (
    CONFIG,
    DOCUMENT_KEYS,
    DOCUMENT_OPTIONS,
    DOCUMENT_SOURCE,
    OPTIONS,
    RESTART_ONLY,
    Option,
)

ROOT = Path(__file__).parent.parent

_BEGIN = "<!-- The table of options comes from `python -m tests.option_pages`. -->\n"
_END = "<!-- The end of the table of options. -->\n"

_INTRODUCTION = """\
# Options

<!-- This page comes from `python -m tests.option_pages`, which reads livestate/config/options.py. -->

Every option of `twistd livestate`. In a TOML file (`--config`) an option has the same name, without the dashes, and
stands above the first `[[document]]`; one that may be repeated is an array, or a single value. The command line takes
precedence over the file. A name or a value that livestate does not know is an error at start, in one line.

SIGHUP reads the options again and applies what has changed, except for {restart_only}. If one of
these has changed, livestate logs that it rejected the new configuration, and keeps the current one.

Numbers of seconds may have a fraction. File names are relative to the directory in which livestate was started.
"""

_DOCUMENTS = """
## In a `[[document]]`

Each table `[[document]]` in the TOML file is one document. Only `source` is required.

| name | default | value | meaning |
|---|---|---|---|
"""


def readme_table() -> str:
    """Return the table of options in README.md."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for option in OPTIONS:
        repeatable = "; repeatable" if option.repeatable else ""
        lines.append(f"| {_typed(option)} | {_default(option)} | {option.help}{repeatable} |")
    return "".join(f"{line}\n" for line in lines)


def readme(text: str) -> str:
    """Return README.md with the present table."""
    return re.sub(
        f"(?<={re.escape(_BEGIN)}\n).*?(?=\n{re.escape(_END)})", lambda _: readme_table(), text, flags=re.DOTALL
    )


def options_page() -> str:
    """Return docs/options.md."""
    names = _and(f"`{option.name}`" for option in RESTART_ONLY)
    page = _INTRODUCTION.format(restart_only=names) + "".join(map(_section, OPTIONS)) + _DOCUMENTS
    for key in DOCUMENT_KEYS:
        default = _default(key)
        if key is DOCUMENT_SOURCE:
            default = "required"
        elif key in DOCUMENT_OPTIONS:
            default = "the value above the first `[[document]]`"
        page += f"| `{key.name}` | {default} | {key.type.expected} | {key.help} |\n"
    return page


def toml_line(option: Option) -> str:
    """Return a line of TOML that sets the option to its example."""
    text = option.example or option.default or ""
    is_number = isinstance(option.type, (Number, Integer, AutoInteger)) and text != "auto"
    # A JSON string is a TOML string.
    value = text if is_number else json.dumps(text)
    return f"{option.name} = {f'[{value}]' if option.repeatable else value}"


def _section(option: Option) -> str:
    facts = [f"Default: {_default(option)}.", f"Value: {option.type.expected}."]
    if option.repeatable:
        facts.append("May be repeated.")
    if option is CONFIG:
        facts.append("On the command line only.")
    else:
        facts.append(f"In TOML: `{toml_line(option)}`{', also in a `[[document]]`' if option.per_document else ''}.")
    if not option.reloadable:
        facts.append("A change takes a restart.")
    text = textwrap.fill(
        f"{sentence(option.help)} {option.details}", 120, break_long_words=False, break_on_hyphens=False
    )
    return f"\n## {_typed(option)}\n\n{text}\n\n" + "".join(f"- {fact}\n" for fact in facts)


def _typed(option: Option) -> str:
    return f"`--{option.name}={option.metavar}`"


def _default(option: Option) -> str:
    return (option.without or "none") if option.default is None else f"`{option.default}`"


def _and(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def main() -> None:
    """Write both pages."""
    (ROOT / "docs" / "options.md").write_text(options_page(), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
