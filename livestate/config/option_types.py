"""The types of the options: a converter for each, which checks a value and returns what `Settings` stores.

A converter's arguments are the option's name as the user typed it, and the value: from the command line a list of
strings in order, from a TOML file any TOML value. A wrong value is a `SettingsError` that names the option.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from livestate.config.redaction import redacted
from livestate.errors import SettingsError

#: The maximum number of serving processes: no machine has more cores.
MAX_WORKERS = 1024

#: The formats of log lines: Twisted's classic text, or one JSON object per line.
LOG_FORMATS = ("text", "json")

#: A host name, as in DNS and Docker.
_HOST = re.compile("[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")

#: Paths below this one are reserved for livestate.
RESERVED = "/_live"


def document_path(name: str, value: Any) -> str:
    """Parse the path at which a document is served."""
    path = _string(name, value)
    if not path.startswith("/") or not path.isascii() or any(c in path for c in "?#%\\") or not path.isprintable():
        raise SettingsError(
            f"{name} {redacted(repr(path))}: a path must start with / and be plain ASCII without ? # % or \\"
        )
    if " " in path or "//" in path or "." in path.split("/") or ".." in path.split("/"):
        raise SettingsError(
            f"{name} {redacted(repr(path))}: a path must not contain spaces, or empty, . or .. segments"
        )
    if path == RESERVED or path.startswith(RESERVED + "/"):
        raise SettingsError(f"{name} {redacted(repr(path))}: {RESERVED}/ is reserved for livestate")
    return path


def source_url(name: str, value: Any) -> str:
    """Parse the URL of a source, as far as that is possible without knowing the kinds of sources."""
    url = _string(name, value)
    if ":" not in url:
        raise SettingsError(f"{name} {_printable(url)}: expected a URL such as redis://127.0.0.1:6379/0?key=livestate")
    return url


def _string(name: str, value: Any) -> str:
    value = _last(value)
    if not isinstance(value, str):
        raise SettingsError(f"{name}: expected a string, not {_printable(value)}")
    if "".join(value.splitlines()) != value or "\0" in value:
        raise SettingsError(f"{name} {redacted(repr(value))}: expected a single line")
    return value


def _last(value: Any) -> Any:
    """Return the value that counts, which is the last of a list. In TOML a list may be empty."""
    if isinstance(value, (list, tuple)):
        return value[-1] if value else None
    return value


def _printable(value: Any) -> str:
    """Return a wrong value in a form that fits into a message of one line."""
    if isinstance(value, str) and value.isprintable():
        return redacted(value)
    try:
        return redacted(repr(value))
    except ValueError:  # an integer of more than 4,300 digits, possible in TOML as hexadecimal
        return "a huge number"


def _strings(name: str, value: Any) -> list[str]:
    """Parse an option that may be repeated; in TOML, a string or an array of strings."""
    return [_string(name, item) for item in (value if isinstance(value, (list, tuple)) else [value])]


def _number(name: str, value: Any, minimum: float, maximum: float, unit: str) -> float:
    value = _last(value)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not minimum <= number <= maximum:
        raise SettingsError(f"{name} {_printable(value)}: expected {unit} from {minimum:.12g} to {maximum:.12g}")
    return number


def _integer(name: str, value: Any, minimum: int, maximum: int, unit: str) -> int:
    number = _number(name, value, minimum, maximum, unit)
    if number != int(number):
        raise SettingsError(f"{name} {_printable(_last(value))}: expected a whole number")
    return int(number)


def interval(name: str, value: Any) -> float:
    """Parse the seconds between two polls of a source."""
    return _number(name, value, 0.05, 86400, "seconds")


def max_stale(name: str, value: Any) -> float:
    """Parse the age in seconds from which a document is no longer served."""
    return _number(name, value, 1, 10 * 365 * 86400, "seconds")


def _heartbeat(name: str, value: Any) -> float:
    return _number(name, value, 1, 3600, "seconds")


def _log_format(name: str, value: Any) -> str:
    text = _string(name, value)
    if text not in LOG_FORMATS:
        raise SettingsError(f"{name} {_printable(text)}: expected {' or '.join(LOG_FORMATS)}")
    return text


def _max_size(name: str, value: Any) -> int:
    return int(_number(name, value, 1, 2**30, "bytes"))


def _workers(name: str, value: Any) -> int:
    if _last(value) == "auto":
        return _usable_cores()
    return _integer(name, value, 1, MAX_WORKERS, "auto, or a number")


def _max_connections(name: str, value: Any) -> int | None:
    return None if _last(value) == "auto" else _integer(name, value, 1, 10**9, "auto, or a number")


def _max_connections_per_address(name: str, value: Any) -> int:
    return _integer(name, value, 1, 10**9, "a number")


def _ipv6_prefix_length(name: str, value: Any) -> int:
    return _integer(name, value, 1, 128, "bits")


def _usable_cores() -> int:
    """Return the number of cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def _file(name: str, value: Any) -> Path:
    text = _string(name, value)
    if not text:
        raise SettingsError(f"{name}: expected a file name")
    # twistd changes its directory later (--rundir); names are relative to the one in which they were typed.
    return Path(text).absolute()


def _origins(name: str, value: Any) -> list[str]:
    origins = _strings(name, value)
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if origin not in ("*", "null") and (not scheme or not host or "/" in host or not origin.isascii()):
            raise SettingsError(
                f"{name} {redacted(repr(origin))}: expected * or an origin such as https://example.org, without a path"
            )
    return origins


def _hosts(name: str, value: Any) -> list[str]:
    hosts = _strings(name, value)
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host):
            raise SettingsError(
                f"{name} {redacted(repr(host))}: expected * or a host name such as live.example.org, without a port"
            )
    return hosts


#: The converter of each option that may be given on the command line and at the top level of a TOML file.
CONVERTERS: dict[str, Callable[[str, Any], Any]] = {
    "http": _strings,
    "https": _strings,
    "admin": _string,
    "admin-host": _hosts,
    "source": _strings,
    "interval": interval,
    "cors-origin": _origins,
    "max-stale": max_stale,
    "max-size": _max_size,
    "state-dir": _file,
    "access-log": _file,
    "heartbeat": _heartbeat,
    "max-connections": _max_connections,
    "max-connections-per-address": _max_connections_per_address,
    "ipv6-prefix-length": _ipv6_prefix_length,
    "workers": _workers,
    "log-format": _log_format,
}
