"""What `twistd livestate` understands, and how the parts are put together: the one place that knows them all.

No module imported here imports the reactor (a test sees to it): when the options are parsed there is none yet, and
livestate installs its own.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from livestate import __version__
from livestate.config.redaction import holds_secret, redacted
from livestate.config.settings import MAX_SIZE, Settings, load_settings
from livestate.errors import LivestateError, SettingsError
from livestate.net.host_resolver import HostResolver
from livestate.service import LivestateService
from livestate.system.gc_tuning import tune_gc
from livestate.system.logs import LogFiles, choose_observer, observer_for
from livestate.system.open_files import raise_open_files
from livestate.system.systemd import ServiceManager

#: What `--help` ends with; Twisted would wrap it.
EXAMPLES = """
Live JSON documents, each asked for once a second, served to very many readers:

  twistd -n livestate --source=demo:
      a made-up election on http://localhost:8080/_live/; needs nothing else
  twistd -n livestate --https=ssl:8443
      the key "livestate" of the Redis on this machine, over HTTP and HTTPS
  twistd -n livestate --source=/a.json=file:a.json --source=/demo=demo:
      two documents

Sources; in a user or a password, special characters are percent-encoded:

  redis://[[USER]:PASSWORD@]HOST[:6379]/[DB]?key=KEY   the value of a key
  rediss://...&cafile=CA.pem                           the same over TLS
  redis+unix:///PATH/TO.sock?key=KEY&db=DB             over a socket
  redis+sentinel://HOST[:26379],HOST/SERVICE?key=KEY   behind Sentinels
  redis+cluster://HOST[:6379],HOST/?key=KEY            in a Redis Cluster
  mongodb://[USER:PASSWORD@]HOST/DB?collection=NAME&query={...}
  file:PATH    http://...    https://...    demo:

Without -n it goes into the background and leaves twistd.pid and twistd.log in
this folder. SIGTERM ends it; SIGHUP reopens its logs, and reads its options and
certificates again. `twistd --help` has more options, to be given before the
word livestate. README.md has the details.
"""


class Options(usage.Options):
    """The options of `twistd livestate`."""

    log = Logger()

    synopsis = "[options]"
    longdesc = ""

    optParameters = [  # noqa: RUF012  # usage.Options has it so
        ["admin", None, None, "Where health, status and metrics are served, a strports string; empty: "
                              "nowhere. [default: tcp:9180:interface=127.0.0.1]"],
        ["interval", None, None, "Seconds between two questions to a source. [default: 1.0]"],
        ["max-stale", None, None, "Seconds without a good answer from the source after which 503 is answered instead "
                                  "of the old document. [default: never]"],
        ["max-size", None, None, f"Bytes a document may have. [default: {MAX_SIZE}]"],
        ["state-dir", None, None, "Folder in which the last good documents are saved, to be served after a restart "
                                  "while the source is down. [default: they are not saved]"],
        ["heartbeat", None, None, "Seconds of silence after which a reader of events is sent a sign of life. "
                                  "[default: 15]"],
        ["max-connections", None, None, "Connections of readers at most: a number, or auto for as many as open files "
                                        "allow. [default: auto]"],
        ["max-connections-per-address", None, None, "Those of one address at most. Not behind a proxy: all have its "
                                                    "address. [default: any number]"],
        ["ipv6-prefix-length", None, None, "Bits of an IPv6 address that count as one address there. [default: 64]"],
        ["workers", None, None, "Serving processes: a number, or auto for one a usable core. [default: 1]"],
        ["log-format", None, None, "How lines of the log are written: text, or json, an object each. [default: text]"],
        ["access-log", None, None, "File to which each request is logged, in the combined format. [default: none]"],
        ["config", None, None, "TOML file with any of these options; those given here win."],
    ]  # fmt: skip

    compData = usage.Completions(
        optActions={"config": usage.CompleteFiles("*.toml"), "state-dir": usage.CompleteDirs()}
    )

    def __init__(self) -> None:
        super().__init__()
        # Those of methods come with their line ends and margins.
        self.docs = {name: " ".join(text.split()) for name, text in self.docs.items()}
        self._repeated: dict[str, list[str]] = {}
        self.settings: Settings
        self.log_files: LogFiles

    def opt_http(self, description: str) -> None:
        """Where plain HTTP is served, a strports string; may repeat; empty: nowhere. [default: tcp:8080]"""
        self._repeated.setdefault("http", []).append(description)

    def opt_https(self, description: str) -> None:
        """Where HTTPS is served, a strports string; may repeat: ssl:8443:privateKey=key.pem:certKey=fullchain.pem.
        Without files, the key and certificate in server.pem, made for development if need be. [default: nowhere]
        """
        self._repeated.setdefault("https", []).append(description)

    def opt_source(self, source: str) -> None:
        """[PATH=]URL: where the document at PATH (default /) comes from; may repeat, one document each.
        [default: redis://127.0.0.1:6379/0?key=livestate]
        """
        self._repeated.setdefault("source", []).append(source)

    def opt_admin_host(self, name: str) -> None:
        """A name that health, status and metrics may be asked by, beside IP addresses, localhost and this machine's
        name; may repeat; *: any.
        """
        self._repeated.setdefault("admin-host", []).append(name)

    def opt_cors_origin(self, origin: str) -> None:
        """An origin whose pages may read the documents; may repeat. [default: *]"""
        self._repeated.setdefault("cors-origin", []).append(origin)

    def opt_version(self) -> NoReturn:
        """Show the version of livestate and exit."""
        print(f"livestate {__version__}")
        sys.exit(0)

    def getUsage(self, width: int | None = None) -> str:
        """Give the options and examples."""
        return super().getUsage(width) + EXAMPLES

    def parseOptions(self, options: Any = None) -> None:
        """Parse, and end the process with one line on standard error where that is not possible.

        twistd itself would print the whole help, and the reason below it.
        """
        try:
            super().parseOptions(options)
        except (usage.UsageError, LivestateError) as error:
            raise SystemExit(f"livestate: {error} (twistd livestate --help shows the options)") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse what is not an option."""
        if arguments:
            raise usage.UsageError(f"what is {redacted(repr(arguments[0]))}? All settings are options")

    def postOptions(self) -> None:
        """Check everything that can be checked without the reactor; choose the reactor, if the user did not."""
        self._check_folders_of_twistd()
        self.settings = self._load()
        self._folder = Path.cwd()
        _choose_reactor()
        self.log_files = LogFiles()
        self._choose_log()

    def reread(self) -> Settings:
        """Give the settings anew, of the same command line and of what the file says now.

        :raises LivestateError: they make no sense.
        """
        # twistd has changed its folder; names are meant as the user typed them.
        folder = Path.cwd()
        os.chdir(self._folder)
        try:
            return self._load()
        except OSError as error:
            raise SettingsError(f"{self._folder}: {error.strerror}") from None
        finally:
            os.chdir(folder)

    def warn_of_open_secrets(self) -> None:
        """Log where others on this machine can read a password: in the command line (ps), or in the file."""
        typed, config = self._repeated.get("source", []), self["config"]
        if any(map(holds_secret, typed)):
            self.log.warn(
                "the command line holds a password, and everyone on this machine can read it there (ps): write the "
                "source into a file, --config=FILE.toml, and chmod 600 that"
            )
        elif config is not None and any(holds_secret(document.source) for document in self.settings.documents):
            with contextlib.suppress(OSError):
                if os.stat(self._folder / config).st_mode & 0o007:
                    self.log.warn(
                        "{config} holds a password, and everyone on this machine can read it: chmod 600 it",
                        config=config,
                    )

    def _load(self) -> Settings:
        names = [str(name) for name, *_ in self.optParameters]
        single = {name: [self[name]] for name in names if name != "config" and self[name] is not None}
        return load_settings({**single, **self._repeated}, self["config"])

    def _check_folders_of_twistd(self) -> None:
        """Refuse a folder or a pidfile that twistd was told to use and would answer with a traceback."""
        parent: Mapping[str, Any] | None = getattr(self, "parent", None)
        if parent is None or parent.get("chroot"):
            return
        folder, pidfile = Path(parent.get("rundir") or "."), parent.get("pidfile")
        if not folder.is_dir():
            raise SettingsError(f"--rundir {folder}: there is no such folder")
        if pidfile and not os.access((folder / pidfile).parent, os.W_OK | os.X_OK):
            raise SettingsError(
                f"--pidfile {pidfile}: no file can be made there; name another, or none with --pidfile="
            )

    def _choose_log(self) -> None:
        """Where twistd would open its log file itself, give it one that SIGHUP opens anew; in JSON, if wanted."""
        parent: Mapping[str, Any] | None = getattr(self, "parent", None)
        log_format = self.settings.log_format
        if parent is None:
            return
        if parent.get("syslog") or parent.get("logger") is not None:
            if log_format != "text":
                raise SettingsError(
                    "--log-format: twistd was given --syslog or --logger, and these have formats of their own"
                )
            return
        name = parent.get("logfile") or ("" if parent.get("nodaemon") else "twistd.log")
        if name in ("", "-"):
            # To the terminal: twistd's own does for text, and refuses to without -n.
            if log_format == "text" or not parent.get("nodaemon"):
                return
            observer = observer_for(sys.stdout, log_format)
        else:
            try:
                observer = self.log_files.observer(Path(name).absolute(), log_format)
            except OSError as error:
                raise SettingsError(f"--logfile {name}: {error.strerror}") from None
        # twistd takes the dotted name of what gives the observer, as its --logger does.
        choose_observer(observer)
        parent["logger"] = "livestate.system.logs.chosen_observer"  # type: ignore[index]  # twistd's options are a dict


def makeService(options: Options) -> IService:
    """Put livestate together.

    :raises SystemExit: something that the options name cannot be used; the text is one line.
    """
    from twisted.internet import reactor as chosen  # noqa: PLC0415  # by now

    reactor: Any = chosen
    manager = ServiceManager.taken_from(os.environ, os.getpid())
    raise_open_files()
    reactor.installNameResolver(HostResolver(reactor))
    options.warn_of_open_secrets()
    try:
        service = LivestateService(reactor, options.settings, options.log_files, options.reread, manager)
    except LivestateError as error:
        raise SystemExit(f"livestate: {error}") from None
    reactor.callWhenRunning(tune_gc)
    return service


def _choose_reactor() -> None:
    """Install livestate's reactor where that is possible and the user named none.

    A reactor that is installed already was named by the user (`twistd --reactor=…` installs it at once).
    """
    if "twisted.internet.reactor" not in sys.modules and sys.platform == "linux":
        from livestate.net.reactor import install  # noqa: PLC0415  # Linux only

        install()
