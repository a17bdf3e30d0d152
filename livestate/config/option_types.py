"""The types of options: how a value is parsed, and what is expected, in words for messages and for the documentation.

The arguments of `parse` are the option's name as the user typed it, and one value: a string from the command line, any
value from a TOML file. A wrong value is a `SettingsError` that names the option.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from livestate.config.redaction import redacted
from livestate.errors import SettingsError

#: A host name, as in DNS and Docker.
_HOST = re.compile("[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")

#: Paths below this one are reserved for livestate.
RESERVED = "/_live"


class OptionType(Protocol):
    """The type of an option."""

    @property
    def expected(self) -> str:
        """What a value must be. Error messages say: expected …"""

    def parse(self, name: str, value: Any) -> Any:
        """Return what the settings hold for `value`.

        :raises SettingsError: when it is wrong.
        """


class Strports:
    """A strports string. Its content is checked when the listener is prepared (`livestate.listeners`)."""

    expected: ClassVar[str] = "a strports string"

    def parse(self, name: str, value: Any) -> str | None:
        """Return the string, or None if it is empty: no listener."""
        return _line(name, value) or None


class Choice:
    """One of several words."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.expected = " or ".join(words)

    def parse(self, name: str, value: Any) -> str:
        """Return the word."""
        word = _line(name, value)
        if word not in self._words:
            raise _wrong(name, word, self)
        return word


class FileName:
    """The name of a file."""

    expected: ClassVar[str] = "a file name"

    def parse(self, name: str, value: Any) -> Path:
        """Return the absolute path."""
        text = _line(name, value)
        if not text:
            raise SettingsError(f"{name}: expected {self.expected}")
        # twistd changes its directory later (--rundir); names are relative to the one in which they were typed.
        return Path(text).absolute()


class DirectoryName(FileName):
    """The name of a directory."""


class Origin:
    """An origin, as browsers send it in `Origin` (RFC 6454)."""

    expected: ClassVar[str] = "* or an origin such as https://example.org, without a path"

    def parse(self, name: str, value: Any) -> str:
        """Return the origin."""
        origin = _line(name, value)
        scheme, _, host = origin.partition("://")
        if origin not in ("*", "null") and (not scheme or not host or "/" in host or not origin.isascii()):
            raise SettingsError(f"{name} {_quoted(origin)}: expected {self.expected}")
        return origin


class HostName:
    """A host name."""

    expected: ClassVar[str] = "* or a host name such as live.example.org, without a port"

    def parse(self, name: str, value: Any) -> str:
        """Return the host name."""
        host = _line(name, value)
        if host != "*" and not _HOST.fullmatch(host):
            raise SettingsError(f"{name} {_quoted(host)}: expected {self.expected}")
        return host


class DocumentPath:
    """The path at which a document is served."""

    expected: ClassVar[str] = "a path such as /results.json"

    def parse(self, name: str, value: Any) -> str:
        """Return the path."""
        path = _line(name, value)
        shown = _quoted(path)
        if not path.startswith("/") or not path.isascii() or any(c in path for c in "?#%\\") or not path.isprintable():
            raise SettingsError(f"{name} {shown}: a path must start with / and be plain ASCII without ? # % or \\")
        if " " in path or "//" in path or "." in path.split("/") or ".." in path.split("/"):
            raise SettingsError(f"{name} {shown}: a path must not contain spaces, or empty, . or .. segments")
        if path == RESERVED or path.startswith(RESERVED + "/"):
            raise SettingsError(f"{name} {shown}: {RESERVED}/ is reserved for livestate")
        return path


class SourceUrl:
    """The URL of a source, checked as far as that is possible without knowing the kinds of sources."""

    expected: ClassVar[str] = "a URL such as redis://127.0.0.1:6379/0?key=livestate"

    def parse(self, name: str, value: Any) -> str:
        """Return the URL."""
        url = _line(name, value)
        if ":" not in url:
            raise _wrong(name, url, self)
        return url


class SourceAtPath:
    """The URL of a source, with the path of its document before it."""

    expected: ClassVar[str] = "[PATH=]URL"

    def parse(self, name: str, value: Any) -> tuple[str, str]:
        """Return the path and the URL. The path is / if there is none."""
        text = _line(name, value)
        path, url = "/", text
        if text.startswith("/"):
            path, equals, url = text.partition("=")
            if not equals or "://" in path:
                hint = "" if "://" in text else f"; for a file write file:{text}"
                raise SettingsError(f"{name} {redacted(text)}: expected {self.expected}{hint}")
        return DocumentPath().parse(name, path), SourceUrl().parse(name, url)


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, which are included."""

    minimum: float
    maximum: float
    unit: str

    @property
    def expected(self) -> str:
        """What a value must be."""
        return f"{self.unit} from {self.minimum:.12g} to {self.maximum:.12g}"

    def parse(self, name: str, value: Any) -> float:
        """Return the number."""
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not self.minimum <= number <= self.maximum:
            raise _wrong(name, value, self)
        return number


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within bounds, which are included."""

    minimum: int
    maximum: int
    unit: str = "a number"

    @property
    def expected(self) -> str:
        """What a value must be."""
        return Number(self.minimum, self.maximum, self.unit).expected

    def parse(self, name: str, value: Any) -> int:
        """Return the number."""
        number = Number(self.minimum, self.maximum, self.unit).parse(name, value)
        if number != int(number):
            raise SettingsError(f"{name} {_printable(value)}: expected a whole number")
        return int(number)


@dataclass(frozen=True, slots=True)
class AutoInteger:
    """A whole number of at least 1, or the word auto."""

    maximum: int
    #: What the settings hold for auto.
    auto: Callable[[], int | None]

    @property
    def expected(self) -> str:
        """What a value must be."""
        return f"auto, or {Integer(1, self.maximum).expected}"

    def parse(self, name: str, value: Any) -> int | None:
        """Return the number, or what auto means."""
        return self.auto() if value == "auto" else Integer(1, self.maximum, "auto, or a number").parse(name, value)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def _line(name: str, value: Any) -> str:
    """Return a string that is a single line."""
    if not isinstance(value, str):
        raise SettingsError(f"{name}: expected a string, not {_printable(value)}")
    if "".join(value.splitlines()) != value or "\0" in value:
        raise SettingsError(f"{name} {_printable(value)}: expected a single line")
    return value


def _wrong(name: str, value: Any, expected: OptionType) -> SettingsError:
    return SettingsError(f"{name} {_printable(value)}: expected {expected.expected}")


def _quoted(text: str) -> str:
    """Return a wrong text in quotes."""
    return redacted(repr(text))


def _printable(value: Any) -> str:
    """Return a wrong value in a form that fits into a message of one line."""
    if isinstance(value, str) and value and value.isprintable():
        return redacted(value)
    try:
        return redacted(repr(value))
    except ValueError:  # an integer of more than 4,300 digits, possible in TOML as hexadecimal
        return "a huge number"
