"""All settings, checked and frozen.

They come from the command line and from a TOML file (`--config`); an option on the command line overrides the one in
the file. Both are converted here, once, as the table of options says (`livestate.config.options`); the rest of the code
sees only `Settings`. A wrong value is a `SettingsError` that names the option as the user typed it.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livestate.config.options import (
    DOCUMENT_KEYS,
    DOCUMENT_OPTIONS,
    DOCUMENT_SOURCE,
    FILE_OPTIONS,
    PROCESS_OPTIONS,
    SOURCE,
    Option,
)
from livestate.config.redaction import redacted
from livestate.config.strports import parse_strports
from livestate.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class DocumentSettings:
    """One document. Its fields are the names in a [[document]] table."""

    path: str
    source: str
    #: Seconds.
    interval: float
    #: Seconds; None: never.
    max_stale: float | None

    @property
    def events_path(self) -> str:
        """The path of the document's event stream."""
        return events_path(self.path)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one livestate process. Its fields are the documents and the options for the whole process."""

    documents: tuple[DocumentSettings, ...]
    http: tuple[str, ...]
    https: tuple[str, ...]
    #: None: there is no admin listener.
    admin: str | None
    admin_hosts: tuple[str, ...]
    cors_origins: tuple[str, ...]
    max_size: int
    state_dir: Path | None
    access_log: Path | None
    heartbeat: float
    #: None: as many as open files allow.
    max_connections: int | None
    #: None: no limit.
    max_connections_per_address: int | None
    ipv6_prefix_length: int
    workers: int
    log_format: str


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
    _reject_unknown(options, FILE_OPTIONS, f"{config}: ")
    options.update(command_line)
    if SOURCE.name in command_line:
        tables = []

    def value(option: Option) -> Any:
        if option.name not in options:
            return option.default_value
        return option.convert(f"--{option.name}", options[option.name])

    defaults = {option.field: value(option) for option in DOCUMENT_OPTIONS}
    sources = value(SOURCE) if SOURCE.name in options else ()
    documents = [DocumentSettings(path, source, **defaults) for path, source in sources]
    documents += [_document(table, defaults, f"{config}: [[document]] ") for table in tables]
    if not documents:
        documents = [DocumentSettings(path, source, **defaults) for path, source in SOURCE.default_value]
    _reject_clashes(documents)
    settings = Settings(documents=tuple(documents), **{option.field: value(option) for option in PROCESS_OPTIONS})
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


def _reject_unknown(names: Iterable[str], known: Iterable[Option], where: str) -> None:
    names_known = sorted(option.name for option in known)
    for name in names:
        if name not in names_known:
            raise SettingsError(f"{where}unknown name {redacted(repr(name))}; known names are {', '.join(names_known)}")


def _document(table: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> DocumentSettings:
    """Return the settings of the document in a [[document]] table.

    :param defaults: the values at the top level, by the names of their fields.
    """
    _reject_unknown(table, DOCUMENT_KEYS, where)
    if DOCUMENT_SOURCE.name not in table:
        raise SettingsError(f"{where}has no source")
    values = {
        key.field: key.convert(f"{where}{key.name}", table[key.name])
        if key.name in table
        else defaults.get(key.field, key.default_value)
        for key in DOCUMENT_KEYS
    }
    return DocumentSettings(**values)


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
