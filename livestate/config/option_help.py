"""The text about options that `twistd livestate --help` shows, from their table."""

import textwrap
from collections.abc import Mapping

from livestate.config.options import OPTIONS, Option

#: The column in which the descriptions begin.
_COLUMN = 25

#: Columns: the narrowest and the widest text.
_WIDTHS = 60, 100


def description(option: Option) -> str:
    """Return what an option means, its default, and whether it may be repeated, as plain text."""
    default = option.without if option.default is None else option.default
    notes = [f"default: {default}"] if default else []
    if option.repeatable:
        notes.append("repeatable")
    return sentence(option.help).replace("`", "") + (f" [{'; '.join(notes)}]" if notes else "")


def sentence(phrase: str) -> str:
    """Return a phrase as a sentence."""
    return f"{phrase[0].upper()}{phrase[1:]}."


def option_help(flags: Mapping[str, str], width: int) -> str:
    """Return a list of all options.

    :param flags: what the options without a value mean, by name.
    :param width: the number of columns of the terminal.
    """
    entries = [(f"--{option.name}={option.metavar}", description(option)) for option in OPTIONS]
    entries += [(f"--{name}", sentence(phrase)) for name, phrase in flags.items()]
    lowest, highest = _WIDTHS
    wrapper = textwrap.TextWrapper(
        min(max(width, lowest), highest),
        initial_indent=" " * _COLUMN,
        subsequent_indent=" " * _COLUMN,
        # A value that is torn apart cannot be copied.
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = ["Options:"]
    for name, text in entries:
        # A default stands on the line of its name.
        wrapped = [line.replace("\xa0", " ") for line in wrapper.wrap(text.replace("[default: ", "[default:\xa0"))]
        if len(name) + 4 <= _COLUMN:
            wrapped[0] = f"  {name}".ljust(_COLUMN) + wrapped[0].lstrip()
        else:
            wrapped.insert(0, f"  {name}")
        lines += wrapped
    return "\n".join(lines) + "\n"
