"""Everything a user can set, checked and frozen.

Settings come from the command line and from a TOML file (`--config`); a name on the command line wins over the
same name in the file. Both go through the same converters here, once, and nobody below sees either of them.
A wrong value is a `SettingsError` that names the option as it is typed.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livestate.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What is served when no source is named: the key `livestate` of the Redis on this machine.
DEFAULT_SOURCE = "redis://127.0.0.1:6379/0?key=livestate"

#: Bytes a document may have where no other limit is set.
MAX_SIZE = 16 * 1024 * 1024

#: Serving processes at most: no machine has more cores.
MOST_WORKERS = 1024

#: How lines of the log are written: Twisted's classic text, or an object each.
LOG_FORMATS = ("text", "json")

#: Paths under this one are livestate's own.
RESERVED = "/_live"


@dataclass(frozen=True, slots=True)
class DocumentSettings:
    """One document: where it is served, where it comes from, and how often that is asked."""

    path: str
    source: str
    #: Seconds between two fetches.
    interval: float
    #: Seconds since the last good fetch after which 503 is answered instead of the old document; None: never.
    max_stale: float | None

    @property
    def events_path(self) -> str:
        """The path of the document's event stream, reserved beside it."""
        return events_path(self.path)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that one livestate was asked to do."""

    http: tuple[str, ...]
    https: tuple[str, ...]
    admin: str | None
    documents: tuple[DocumentSettings, ...]
    cors_origins: tuple[str, ...]
    #: Bytes.
    max_size: int
    state_dir: Path | None
    access_log: Path | None
    #: Seconds of silence after which a reader of events is sent a sign of life.
    heartbeat: float
    #: One of LOG_FORMATS.
    log_format: str
    #: Processes that serve.
    workers: int = 1


def load_settings(command_line: Mapping[str, Sequence[str]], config: str | None = None) -> Settings:
    """Make Settings of the options given on the command line and those in a TOML file.

    :param command_line: option names without dashes in front, and each one's values in order.
    :param config: the TOML file's name.
    :raises SettingsError: a value, name or combination that makes no sense, or a file that cannot be read.
    """
    values: dict[str, Any] = _read_toml(config) if config is not None else {}
    tables = values.pop("document", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{config}: documents are written as [[document]] tables")
    _refuse_unknown(values, set(_CONVERTERS), f"{config}: ")
    values.update(command_line)
    if "source" in command_line:
        tables = []

    def get(name: str, default: Any) -> Any:
        return _CONVERTERS[name](f"--{name}", values[name]) if name in values else default

    interval = get("interval", 1.0)
    max_stale = get("max-stale", None)
    documents = [_document_of_text(text, interval, max_stale) for text in get("source", [])]
    documents += [_document_of_table(table, interval, max_stale, f"{config}: [[document]] ") for table in tables]
    if not documents:
        documents = [DocumentSettings("/", DEFAULT_SOURCE, interval, max_stale)]
    _refuse_clashes(documents)
    settings = Settings(
        http=tuple(filter(None, get("http", ["tcp:8080"]))),
        https=tuple(filter(None, get("https", []))),
        admin=get("admin", "tcp:9180:interface=127.0.0.1") or None,
        documents=tuple(documents),
        cors_origins=tuple(get("cors-origin", ["*"])),
        max_size=get("max-size", MAX_SIZE),
        state_dir=get("state-dir", None),
        access_log=get("access-log", None),
        heartbeat=get("heartbeat", 15.0),
        log_format=get("log-format", "text"),
        workers=get("workers", 1),
    )
    if not settings.http and not settings.https:
        raise SettingsError("--http and --https are both off: there would be nothing to serve on")
    _refuse_shared_ports(settings)
    return settings


def events_path(path: str) -> str:
    """Give the path of the event stream of the document at `path`."""
    return path.rstrip("/") + "/events"


def parse_strports(description: str) -> tuple[str, dict[str, str]]:
    r"""Take a `tcp:` or `ssl:` strports string apart, as Twisted does (`twisted.internet.endpoints`).

    A backslash hides the sign behind it, and the first bare argument is the port.
    """
    parts: list[list[str]] = [[""]]
    signs = iter(description)
    for sign in signs:
        if sign == ":":
            parts.append([""])
        elif sign == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += next(signs, "") if sign == "\\" else sign
    arguments = {name: value for name, *values in parts[1:] for value in values}
    bare = [part[0] for part in parts[1:] if len(part) == 1]
    if bare:
        arguments.setdefault("port", bare[0])
    return parts[0][0], arguments


def _read_toml(name: str) -> dict[str, Any]:
    try:
        with open(name, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"--config {name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError and UnicodeDecodeError are ValueErrors, and so is a number of more than 4,300 digits.
        raise SettingsError(f"--config {name}: not TOML: {error}") from None


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in values:
        if name not in known:
            raise SettingsError(f"{where}unknown name {name!r}; there are {', '.join(sorted(known))}")


def _document_of_text(text: str, interval: float, max_stale: float | None) -> DocumentSettings:
    """Understand the `[PATH=]URL` of --source."""
    path, url = "/", text
    if text.startswith("/"):
        path, equals, url = text.partition("=")
        if not equals:
            raise SettingsError(f"--source {text}: expected [PATH=]URL; for a file write file:{text}")
    return DocumentSettings(_path("--source", path), _source("--source", url), interval, max_stale)


def _document_of_table(
    table: Mapping[str, Any], interval: float, max_stale: float | None, where: str
) -> DocumentSettings:
    _refuse_unknown(table, {"path", "source", "interval", "max-stale"}, where)
    if "source" not in table:
        raise SettingsError(f"{where}has no source")
    return DocumentSettings(
        path=_path(f"{where}path", table.get("path", "/")),
        source=_source(f"{where}source", table["source"]),
        interval=_interval(f"{where}interval", table.get("interval", interval)),
        max_stale=_max_stale(f"{where}max-stale", table["max-stale"]) if "max-stale" in table else max_stale,
    )


def _refuse_clashes(documents: Sequence[DocumentSettings]) -> None:
    """See that no two things are to be served at one path."""
    taken: dict[str, str] = {}
    for document in documents:
        for path, what in ((document.path, "a document"), (document.events_path, f"the events of {document.path}")):
            if path in taken:
                raise SettingsError(f"--source {document.path}: {path} is already {taken[path]}")
            taken[path] = what


def _refuse_shared_ports(settings: Settings) -> None:
    """See that no two listeners want one port. In the background it is too late to say so once they listen."""
    taken: dict[str, list[tuple[str, str]]] = {}
    listeners = [("--http", text) for text in settings.http] + [("--https", text) for text in settings.https]
    for option, text in [*listeners, ("--admin", settings.admin or "")]:
        kind, arguments = parse_strports(text)
        port, interface = arguments.get("port", ""), arguments.get("interface", "")
        if kind not in ("tcp", "ssl") or port.strip("0") == "":
            continue
        for other, where in taken.setdefault(port, []):
            if where == interface or (":" not in where + interface and {where, interface} & {"", "0.0.0.0"}):  # noqa: S104
                raise SettingsError(f"{option}={text}: the port is in use by {other}")
        taken[port].append((f"{option}={text}", interface))


def _path(name: str, value: Any) -> str:
    path = _text(name, value)
    if not path.startswith("/") or not path.isascii() or any(c in path for c in "?#%\\") or not path.isprintable():
        raise SettingsError(f"{name} {path!r}: a path begins with / and is plain ASCII without ? # % or \\")
    if " " in path or "//" in path or "." in path.split("/") or ".." in path.split("/"):
        raise SettingsError(f"{name} {path!r}: a path has no spaces, empty parts, or parts . and ..")
    if path == RESERVED or path.startswith(RESERVED + "/"):
        raise SettingsError(f"{name} {path!r}: {RESERVED}/ is livestate's own")
    return path


def _source(name: str, value: Any) -> str:
    url = _text(name, value)
    if ":" not in url:
        raise SettingsError(f"{name} {url!r}: a source is a URL such as redis://127.0.0.1:6379/0?key=livestate")
    return url


def _text(name: str, value: Any) -> str:
    value = _last(value)
    if not isinstance(value, str):
        raise SettingsError(f"{name}: expected a text, not {_shown(value)}")
    if len(value.splitlines()) > 1 or "\0" in value or value.endswith("\n"):
        raise SettingsError(f"{name} {value!r}: expected one line")
    return value


def _last(value: Any) -> Any:
    """Give the value that counts: the last of the command line's; in TOML there may be none."""
    if isinstance(value, (list, tuple)):
        return value[-1] if value else None
    return value


def _shown(value: Any) -> str:
    """Give a wrong value as it can stand in a message of one line."""
    if isinstance(value, str) and value.isprintable():
        return value
    try:
        return repr(value)
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


def _interval(name: str, value: Any) -> float:
    return _number(name, value, 0.05, 86400, "seconds")


def _max_stale(name: str, value: Any) -> float:
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
    number = _number(name, value, 1, MOST_WORKERS, "auto, or a number")
    if number != int(number):
        raise SettingsError(f"{name} {_shown(_last(value))}: expected a whole number")
    return int(number)


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
            raise SettingsError(f"{name} {origin!r}: an origin is * or such as https://example.org, without a path")
    return origins


#: Names that stand both at the top of a TOML file and on the command line, and what understands each.
_CONVERTERS: dict[str, Callable[[str, Any], Any]] = {
    "http": _texts,
    "https": _texts,
    "admin": _text,
    "source": _texts,
    "interval": _interval,
    "cors-origin": _origins,
    "max-stale": _max_stale,
    "max-size": _max_size,
    "state-dir": _file,
    "access-log": _file,
    "heartbeat": _heartbeat,
    "workers": _workers,
    "log-format": _log_format,
}
