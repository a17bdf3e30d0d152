"""What each option's value may be.

A converter takes the option's name as it is typed and its value, from the command line (the texts, in order) or from
TOML, and gives what stands in `Settings`. A wrong value is a `SettingsError` that names the option.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from livestate.config.redaction import redacted
from livestate.errors import SettingsError

#: Serving processes at most: no machine has more cores.
MOST_WORKERS = 1024

#: How lines of the log are written: Twisted's classic text, or an object each.
LOG_FORMATS = ("text", "json")

#: A host's name, as DNS and Docker have it.
_HOST = re.compile("[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")

#: Paths under this one are livestate's own.
RESERVED = "/_live"


def document_path(name: str, value: Any) -> str:
    """Understand the path that a document is served at."""
    path = _text(name, value)
    if not path.startswith("/") or not path.isascii() or any(c in path for c in "?#%\\") or not path.isprintable():
        raise SettingsError(
            f"{name} {redacted(repr(path))}: a path begins with / and is plain ASCII without ? # % or \\"
        )
    if " " in path or "//" in path or "." in path.split("/") or ".." in path.split("/"):
        raise SettingsError(f"{name} {redacted(repr(path))}: a path has no spaces, empty parts, or parts . and ..")
    if path == RESERVED or path.startswith(RESERVED + "/"):
        raise SettingsError(f"{name} {redacted(repr(path))}: {RESERVED}/ is livestate's own")
    return path


def source_url(name: str, value: Any) -> str:
    """Understand where a document comes from, as far as that can be done without knowing the sources."""
    url = _text(name, value)
    if ":" not in url:
        raise SettingsError(f"{name} {_shown(url)}: a source is a URL such as redis://127.0.0.1:6379/0?key=livestate")
    return url


def _text(name: str, value: Any) -> str:
    value = _last(value)
    if not isinstance(value, str):
        raise SettingsError(f"{name}: expected a text, not {_shown(value)}")
    if "".join(value.splitlines()) != value or "\0" in value:
        raise SettingsError(f"{name} {redacted(repr(value))}: expected one line")
    return value


def _last(value: Any) -> Any:
    """Give the value that counts: the last of the command line's; in TOML there may be none."""
    if isinstance(value, (list, tuple)):
        return value[-1] if value else None
    return value


def _shown(value: Any) -> str:
    """Give a wrong value as it can stand in a message of one line."""
    if isinstance(value, str) and value.isprintable():
        return redacted(value)
    try:
        return redacted(repr(value))
    except ValueError:  # an integer of more than 4,300 digits, which TOML can write in hexadecimal
        return "a huge number"


def _texts(name: str, value: Any) -> list[str]:
    """Understand an option that may repeat; in TOML one text or an array of them."""
    return [_text(name, item) for item in (value if isinstance(value, (list, tuple)) else [value])]


def _number(name: str, value: Any, least: float, most: float, unit: str) -> float:
    value = _last(value)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise SettingsError(f"{name} {_shown(value)}: expected {unit} from {least:.12g} to {most:.12g}")
    return number


def _whole(name: str, value: Any, least: int, most: int, unit: str) -> int:
    number = _number(name, value, least, most, unit)
    if number != int(number):
        raise SettingsError(f"{name} {_shown(_last(value))}: expected a whole number")
    return int(number)


def interval(name: str, value: Any) -> float:
    """Understand the seconds between two fetches."""
    return _number(name, value, 0.05, 86400, "seconds")


def max_stale(name: str, value: Any) -> float:
    """Understand the seconds after which an old document is served no more."""
    return _number(name, value, 1, 10 * 365 * 86400, "seconds")


def _heartbeat(name: str, value: Any) -> float:
    return _number(name, value, 1, 3600, "seconds")


def _log_format(name: str, value: Any) -> str:
    text = _text(name, value)
    if text not in LOG_FORMATS:
        raise SettingsError(f"{name} {_shown(text)}: there are {' and '.join(LOG_FORMATS)}")
    return text


def _max_size(name: str, value: Any) -> int:
    return int(_number(name, value, 1, 2**30, "bytes"))


def _workers(name: str, value: Any) -> int:
    if _last(value) == "auto":
        return _usable_cores()
    return _whole(name, value, 1, MOST_WORKERS, "auto, or a number")


def _max_connections(name: str, value: Any) -> int | None:
    return None if _last(value) == "auto" else _whole(name, value, 1, 10**9, "auto, or a number")


def _max_connections_per_address(name: str, value: Any) -> int:
    return _whole(name, value, 1, 10**9, "a number")


def _ipv6_prefix_length(name: str, value: Any) -> int:
    return _whole(name, value, 1, 128, "bits")


def _usable_cores() -> int:
    """Give how many cores this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def _file(name: str, value: Any) -> Path:
    text = _text(name, value)
    if not text:
        raise SettingsError(f"{name}: expected a name")
    # twistd changes its folder (--rundir) after this; names are meant as the user typed them.
    return Path(text).absolute()


def _origins(name: str, value: Any) -> list[str]:
    origins = _texts(name, value)
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if origin not in ("*", "null") and (not scheme or not host or "/" in host or not origin.isascii()):
            raise SettingsError(
                f"{name} {redacted(repr(origin))}: an origin is * or such as https://example.org, without a path"
            )
    return origins


def _hosts(name: str, value: Any) -> list[str]:
    hosts = _texts(name, value)
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host):
            raise SettingsError(
                f"{name} {redacted(repr(host))}: a name is such as live.example.org, without a port, or *"
            )
    return hosts


#: Names that stand both at the top of a TOML file and on the command line, and what understands each.
CONVERTERS: dict[str, Callable[[str, Any], Any]] = {
    "http": _texts,
    "https": _texts,
    "admin": _text,
    "admin-host": _hosts,
    "source": _texts,
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
