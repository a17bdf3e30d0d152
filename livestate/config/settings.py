"""All settings, checked and frozen.

They come from the command line and from a TOML file (`--config`); an option on the command line overrides the one in
the file. Both pass through the same converters here, once; the rest of the code sees only `Settings`. A wrong value is
a `SettingsError` that names the option as the user typed it.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livestate.config import option_types
from livestate.config.redaction import redacted
from livestate.config.strports import parse_strports
from livestate.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The default source: the key `livestate` of the Redis on this machine.
DEFAULT_SOURCE = "redis://127.0.0.1:6379/0?key=livestate"

#: Bytes: the default size limit of a document.
MAX_SIZE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DocumentSettings:
    """One document: its path, its source, and how often the source is polled."""

    path: str
    source: str
    #: Seconds between two polls.
    interval: float
    #: Seconds since the last good fetch after which the answer is 503 instead of the old document; None: never.
    max_stale: float | None

    @property
    def events_path(self) -> str:
        """The path of the document's event stream."""
        return events_path(self.path)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one livestate process."""

    http: tuple[str, ...]
    https: tuple[str, ...]
    admin: str | None
    documents: tuple[DocumentSettings, ...]
    cors_origins: tuple[str, ...]
    #: Bytes: larger documents are refused.
    max_size: int
    state_dir: Path | None
    access_log: Path | None
    #: Seconds of silence after which an event stream gets a heartbeat.
    heartbeat: float
    #: One of livestate.config.option_types.LOG_FORMATS.
    log_format: str
    #: The number of serving processes.
    workers: int = 1
    #: Client connections in total (None: as many as open files allow), and from one address (None: no limit).
    max_connections: int | None = None
    max_connections_per_address: int | None = None
    #: Leading bits of an IPv6 address that count as one address for that limit.
    ipv6_prefix_length: int = 64
    #: Host names accepted by the admin listener in addition to this machine's own; `*`: any.
    admin_hosts: tuple[str, ...] = ()


def load_settings(command_line: Mapping[str, Sequence[str]], config: str | None = None) -> Settings:
    """Return the settings from the command line and a TOML file.

    :param command_line: the values of each option in order, by the option's name without leading dashes.
    :param config: the name of the TOML file.
    :raises SettingsError: when a value, a name or a combination is invalid, or the file cannot be read.
    """
    options: dict[str, Any] = _read_toml(config) if config is not None else {}
    tables = options.pop("document", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{config}: expected documents as [[document]] tables")
    _reject_unknown(options, set(option_types.CONVERTERS), f"{config}: ")
    options.update(command_line)
    if "source" in command_line:
        tables = []

    def get(name: str, default: Any) -> Any:
        return option_types.CONVERTERS[name](f"--{name}", options[name]) if name in options else default

    interval = get("interval", 1.0)
    max_stale = get("max-stale", None)
    documents = [_document_of_text(text, interval, max_stale) for text in get("source", [])]
    documents += [_document_of_table(table, interval, max_stale, f"{config}: [[document]] ") for table in tables]
    if not documents:
        documents = [DocumentSettings("/", DEFAULT_SOURCE, interval, max_stale)]
    _reject_clashes(documents)
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
        max_connections=get("max-connections", None),
        max_connections_per_address=get("max-connections-per-address", None),
        ipv6_prefix_length=get("ipv6-prefix-length", 64),
        admin_hosts=tuple(get("admin-host", [])),
    )
    if not settings.http and not settings.https:
        raise SettingsError("--http and --https are both off; name at least one listener")
    _reject_shared_ports(settings)
    return settings


def events_path(path: str) -> str:
    """Return the path of the event stream of the document at `path`."""
    return path.rstrip("/") + "/events"


def _read_toml(name: str) -> dict[str, Any]:
    try:
        with open(name, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"--config {name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        # ValueError includes TOMLDecodeError, UnicodeDecodeError, and numbers of more than 4,300 digits.
        raise SettingsError(f"--config {name}: not TOML: {error}") from None


def _reject_unknown(names: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise SettingsError(
                f"{where}unknown name {redacted(repr(name))}; known names are {', '.join(sorted(known))}"
            )


def _document_of_text(text: str, interval: float, max_stale: float | None) -> DocumentSettings:
    """Parse the `[PATH=]URL` of --source."""
    path, url = "/", text
    if text.startswith("/"):
        path, equals, url = text.partition("=")
        if not equals or "://" in path:
            hint = "" if "://" in text else f"; for a file write file:{text}"
            raise SettingsError(f"--source {redacted(text)}: expected [PATH=]URL{hint}")
    return DocumentSettings(
        option_types.document_path("--source", path), option_types.source_url("--source", url), interval, max_stale
    )


def _document_of_table(
    table: Mapping[str, Any], interval: float, max_stale: float | None, where: str
) -> DocumentSettings:
    _reject_unknown(table, {"path", "source", "interval", "max-stale"}, where)
    if "source" not in table:
        raise SettingsError(f"{where}has no source")
    return DocumentSettings(
        path=option_types.document_path(f"{where}path", table.get("path", "/")),
        source=option_types.source_url(f"{where}source", table["source"]),
        interval=option_types.interval(f"{where}interval", table.get("interval", interval)),
        max_stale=option_types.max_stale(f"{where}max-stale", table["max-stale"])
        if "max-stale" in table
        else max_stale,
    )


def _reject_clashes(documents: Sequence[DocumentSettings]) -> None:
    """Reject two documents, or a document and an event stream, at the same path."""
    taken: dict[str, str] = {}
    for document in documents:
        for path, what in ((document.path, "a document"), (document.events_path, f"the events of {document.path}")):
            if path in taken:
                raise SettingsError(f"--source {document.path}: {path} is already used by {taken[path]}")
            taken[path] = what


def _reject_shared_ports(settings: Settings) -> None:
    """Reject two listeners on the same port, before twistd detaches from the terminal and no one sees the error."""
    taken: dict[str, list[tuple[str, str]]] = {}
    everywhere = {"", "0.0.0.0"}  # noqa: S104  # compared with, not listened on
    listeners = [("--http", text) for text in settings.http] + [("--https", text) for text in settings.https]
    for option, text in [*listeners, ("--admin", settings.admin or "")]:
        kind, arguments = parse_strports(text)
        port, interface = arguments.get("port", ""), arguments.get("interface", "")
        if kind not in ("tcp", "ssl") or port.strip("0") == "":
            continue
        for other, where in taken.setdefault(port, []):
            if where == interface or (":" not in where + interface and {where, interface} & everywhere):
                raise SettingsError(f"{option}={text}: the port is already in use by {other}")
        taken[port].append((f"{option}={text}", interface))
