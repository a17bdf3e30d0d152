"""The table of options: each is declared here, once.

The command line (`livestate.tap`), the names and types in TOML files (`livestate.config.settings`), `--help`
(`livestate.config.option_help`), docs/options.md and the table in README.md (tests/option_pages.py) come from it.
"""

from dataclasses import dataclass
from typing import Any

from livestate.config.option_types import (
    AutoInteger,
    Choice,
    DirectoryName,
    DocumentPath,
    FileName,
    HostName,
    Integer,
    Number,
    OptionType,
    Origin,
    SourceAtPath,
    SourceUrl,
    Strports,
    usable_cores,
)

#: Bytes: the default size limit of a document.
MAX_SIZE = 16 * 1024 * 1024

#: The default source: the key `livestate` of the Redis on this machine.
DEFAULT_SOURCE = "redis://127.0.0.1:6379/0?key=livestate"


@dataclass(frozen=True, slots=True)
class Option:
    """One option."""

    #: The name, without leading dashes: the same on the command line and in TOML.
    name: str
    #: What stands for the value in the documentation.
    metavar: str
    type: OptionType
    #: What it means: a phrase, with code in backticks.
    help: str
    #: The default as the user would type it; None: there is none, and `without` says in words what holds instead.
    default: str | None = None
    without: str = "none"
    #: A value as the user would type it, for the documentation, where the default is not a good example.
    example: str = ""
    #: What else there is to know about it, for the reference page only: Markdown.
    details: str = ""
    #: The name in `Settings`, or in `DocumentSettings` if `per_document`; by default, `name` with underscores.
    attribute: str = ""
    #: Whether it may be given several times, or as an array in TOML. Its value is a tuple.
    repeatable: bool = False
    #: Whether each `[[document]]` may have its own value; the one at the top level is the default for all.
    per_document: bool = False
    #: Whether a reload (SIGHUP) applies a change. If not, it rejects it.
    reloadable: bool = True

    @property
    def field(self) -> str:
        """The name in `Settings` or `DocumentSettings`."""
        return self.attribute or self.name.replace("-", "_")

    @property
    def default_value(self) -> Any:
        """What the settings hold without the option."""
        if self.default is None:
            return () if self.repeatable else None
        return self.convert(f"--{self.name}", [self.default])

    def convert(self, name: str, value: Any) -> Any:
        """Return what the settings hold for `value`.

        :param name: the name as the user typed it.
        :param value: a list of strings from the command line, or any value from a TOML file. If the option is not
            repeatable, the last item of a list counts.
        :raises SettingsError: when the value is wrong.
        """
        values = value if isinstance(value, (list, tuple)) else [value]
        if self.repeatable:
            parsed = [self.type.parse(name, item) for item in values]
            return tuple(item for item in parsed if item is not None)
        return self.type.parse(name, values[-1] if values else None)


#: What `livestate.config.settings` makes the documents from: it is in no field of `Settings`.
SOURCE = Option(
    "source", "[PATH=]URL", SourceAtPath(),
    "the source of a document, which is served at PATH (default `/`)",
    default=DEFAULT_SOURCE,
    example="/results.json=file:/srv/results.json",
    details="[README.md](../README.md#sources) lists the kinds. On the command line it replaces all documents "
            "in the file. A URL that contains a password belongs in a file that others cannot read (`--config`).",
    repeatable=True,
)  # fmt: skip

#: Of the command line only.
CONFIG = Option(
    "config", "FILE.toml", FileName(),
    "these options in a TOML file, with more for each document (`[[document]]`); the command line takes precedence",
    without="",
    example="/etc/livestate/livestate.toml",
    details="`etc/livestate.toml` is an example. A reload (SIGHUP) reads the file again.",
)  # fmt: skip

#: Every option of the command line, in the order in which the documentation lists them.
OPTIONS = (
    Option(
        "http", "STRPORTS", Strports(),
        "where to serve plain HTTP; empty: nowhere",
        default="tcp:8080",
        details="A Twisted strports string of any kind: `tcp:8080:interface=127.0.0.1`, `unix:/run/livestate.sock`, "
                "`systemd:domain=INET6:index=0`. Colons in a value are escaped: `tcp:8080:interface=\\:\\:1`.",
        repeatable=True,
    ),
    Option(
        "https", "STRPORTS", Strports(),
        "where to serve HTTPS: `ssl:443:privateKey=key.pem:certKey=fullchain.pem`; without files, as in `ssl:8443`, it "
        "uses a development key and certificate in `server.pem`, created if missing",
        without="nowhere",
        example="ssl:443:privateKey=key.pem:certKey=fullchain.pem",
        details="A replaced certificate is picked up without a reload. [TLS](tls.md) has the details.",
        repeatable=True,
    ),
    Option(
        "admin", "STRPORTS", Strports(),
        "where to serve health, readiness, status and metrics; empty: nowhere",
        default="tcp:9180:interface=127.0.0.1",
        reloadable=False,
    ),
    Option(
        "admin-host", "NAME", HostName(),
        "a host name accepted by the admin listener, in addition to IP addresses, `localhost` and this machine's name; "
        "`*`: any",
        example="livestate.monitoring.svc",
        attribute="admin_hosts",
        repeatable=True,
    ),
    SOURCE,
    Option(
        "interval", "SECONDS", Number(0.05, 86400, "seconds"),
        "seconds between two polls of a source",
        default="1.0",
        details="A poll may take 0.8 of it, 10 s at most. [Tuning](tuning.md#how-fresh) says what it costs.",
        per_document=True,
    ),
    Option(
        "cors-origin", "ORIGIN", Origin(),
        "an origin whose pages may read the documents",
        default="*",
        example="https://example.org",
        details="With origins other than `*`, caches store one more response for each origin that asks.",
        attribute="cors_origins",
        repeatable=True,
    ),
    Option(
        "max-stale", "SECONDS", Number(1, 10 * 365 * 86400, "seconds"),
        "seconds without a good answer from the source after which the answer is 503 instead of the old document",
        without="never",
        example="600",
        per_document=True,
    ),
    Option(
        "max-size", "BYTES", Integer(1, 2**30, "bytes"),
        "maximum size of a document; larger ones are refused",
        default=str(MAX_SIZE),
    ),
    Option(
        "state-dir", "DIRECTORY", DirectoryName(),
        "where to save the last good documents, to serve them after a restart while the source is down",
        without="not saved",
        example="/var/lib/livestate",
    ),
    Option(
        "heartbeat", "SECONDS", Number(1, 3600, "seconds"),
        "seconds of silence after which an event stream gets a heartbeat",
        default="15",
        details="Keep it below the shortest idle timeout between livestate and the clients.",
    ),
    Option(
        "max-connections", "N", AutoInteger(10**9, lambda: None),
        "maximum number of client connections; further ones are closed at once. `auto`: as many as the limit on open "
        "files allows, minus a hundred",
        default="auto",
        details="With workers, each gets its share.",
    ),
    Option(
        "max-connections-per-address", "N", Integer(1, 10**9),
        "maximum number of client connections from one address; do not use behind a proxy, because all connections "
        "have its address",
        without="no limit",
        example="500",
        details="With workers, each gets twice its share, because the kernel distributes connections at random.",
    ),
    Option(
        "ipv6-prefix-length", "BITS", Integer(1, 128, "bits"),
        "leading bits of an IPv6 address that count as one address for that limit",
        default="64",
    ),
    Option(
        # No machine has more cores than the maximum.
        "workers", "N", AutoInteger(1024, usable_cores),
        "number of serving processes; `auto`: one per usable core",
        default="1",
        details="With 1, the process that polls also serves. More need Linux.",
        reloadable=False,
    ),
    Option(
        "log-format", "FORMAT", Choice("text", "json"),
        "format of the log: `text`, or `json` for one JSON object per line, which is Twisted's event with its text in "
        "`log_text`",
        default="text",
        reloadable=False,
    ),
    Option(
        "access-log", "FILE", FileName(),
        "log every request to this file, in the combined format",
        without="off",
        example="/var/log/livestate/access.log",
        details="SIGHUP reopens it.",
    ),
    CONFIG,
)  # fmt: skip

#: The options that may also be at the top level of a TOML file.
FILE_OPTIONS = tuple(option for option in OPTIONS if option is not CONFIG)

#: The options whose values are fields of `Settings`.
PROCESS_OPTIONS = tuple(option for option in FILE_OPTIONS if option is not SOURCE and not option.per_document)

#: The options that each document may have for itself.
DOCUMENT_OPTIONS = tuple(option for option in OPTIONS if option.per_document)

#: What a `[[document]]` must have.
DOCUMENT_SOURCE = Option("source", "URL", SourceUrl(), "the URL of the source", example="file:/srv/results.json")

#: The names in a `[[document]]`, whose values are the fields of `DocumentSettings`.
DOCUMENT_KEYS = (
    Option("path", "PATH", DocumentPath(), "where the document is served", default="/", example="/results.json"),
    DOCUMENT_SOURCE,
    *DOCUMENT_OPTIONS,
)

#: The options that a reload cannot change.
RESTART_ONLY = tuple(option for option in OPTIONS if not option.reloadable)
