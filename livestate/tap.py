"""The twistd plugin `twistd livestate`: its options, and the function that makes the service from them.

No module imported here imports the reactor (a test checks that). When twistd parses the options there is no reactor
yet, and livestate installs its own.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from livestate import __version__
from livestate.config.option_help import description, option_help
from livestate.config.option_types import DirectoryName, FileName
from livestate.config.options import CONFIG, FILE_OPTIONS, OPTIONS, SOURCE
from livestate.config.paths import with_absolute_sources
from livestate.config.redaction import holds_secret, redacted
from livestate.config.settings import Settings, load_settings
from livestate.errors import LivestateError, SettingsError
from livestate.net.host_resolver import HostResolver
from livestate.service import LivestateService
from livestate.system.gc_tuning import tune_gc
from livestate.system.logs import LogFiles, choose_observer, file_observer
from livestate.system.open_files import raise_open_files
from livestate.system.systemd import ServiceManager

#: The end of `--help`. Not part of `longdesc`, which Twisted would wrap.
EXAMPLES = """
STRPORTS is where to listen, as for any Twisted server: tcp:8080, unix:/PATH/TO.sock,
tcp:8080:interface=127.0.0.1, ssl:8443, systemd:domain=INET:index=0, ...

Serve live JSON documents, polled once a second, to tens of thousands of clients:

  twistd -n livestate --source=demo:
      a simulated election night on http://localhost:8080/_live/; needs no store
  twistd -n livestate --https=ssl:8443
      the key "livestate" of the Redis on this machine, over HTTP and HTTPS
  twistd -n livestate --source=/a.json=file:a.json --source=/demo=demo:
      two documents

Sources (percent-encode special characters in a user name or password):

  redis://[[USER]:PASSWORD@]HOST[:6379]/[DB]?key=KEY   the value of a key
  rediss://...&cafile=CA.pem                           the same over TLS
  redis+unix:///PATH/TO.sock?key=KEY&db=DB             over a Unix socket
  redis+sentinel://HOST[:26379],HOST/SERVICE?key=KEY   behind Sentinels
  redis+cluster://HOST[:6379],HOST/?key=KEY            in a Redis Cluster
  mongodb://[USER:PASSWORD@]HOST/DB?collection=NAME&query={...}
  file:PATH    http://...    https://...    demo:

Without -n, twistd runs in the background and writes twistd.pid and twistd.log
to the current directory. SIGTERM stops it. SIGHUP reopens the log files and
reloads options and certificates. `twistd --help` shows the options of twistd
itself, which go before the word livestate. For details see README.md.
"""


class Options(usage.Options):
    """The options of `twistd livestate`."""

    log = Logger()

    synopsis = "[options]"

    optParameters = [  # noqa: RUF012  # usage.Options has it so
        [option.name, None, None, description(option)] for option in OPTIONS
    ]

    compData = usage.Completions(
        # The suffix is that of FILE.toml.
        optActions={
            option.name: usage.CompleteDirs()
            if isinstance(option.type, DirectoryName)
            else usage.CompleteFiles(f"*{Path(option.metavar).suffix}")
            for option in OPTIONS
            if isinstance(option.type, FileName)
        },
        multiUse=[option.name for option in OPTIONS if option.repeatable],
    )

    def __init__(self) -> None:
        super().__init__()
        self.settings: Settings
        self.log_files: LogFiles

    def __setitem__(self, name: str, value: str) -> None:
        """Append a value of an option. All are kept, in order; those of options that are not given are None."""
        super().__setitem__(name, [*(self.get(name) or ()), value])

    def opt_version(self) -> NoReturn:
        """Show the version of livestate and exit."""
        print(f"livestate {__version__}")
        sys.exit(0)

    def getUsage(self, width: int | None = None) -> str:
        """Return the help text: the options and the examples."""
        flags = {"help": "display this help and exit", "version": "show the version of livestate and exit"}
        return option_help(flags, width or shutil.get_terminal_size().columns) + EXAMPLES

    def parseOptions(self, options: Any = None) -> None:
        """Parse the options; on an error, exit with one line on standard error.

        twistd itself would print the whole help, and the reason below it.
        """
        try:
            super().parseOptions(options)
        except (usage.UsageError, LivestateError) as error:
            raise SystemExit(f"livestate: {error} (twistd livestate --help shows the options)") from None

    def parseArgs(self, *arguments: str) -> None:
        """Reject arguments that are not options."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {redacted(repr(arguments[0]))}; all settings are options")

    def postOptions(self) -> None:
        """Check everything that can be checked without a reactor, then install one unless the user chose it."""
        self._check_twistd_paths()
        self.settings = self._load()
        self._directory = Path.cwd()
        _install_reactor()
        self.log_files = LogFiles()
        self._configure_log()

    def reload(self) -> Settings:
        """Return the settings from the same command line and the current content of the configuration file.

        :raises LivestateError: when they are invalid.
        """
        # twistd has changed the directory; names are relative to the one in which they were typed.
        directory = Path.cwd()
        os.chdir(self._directory)
        try:
            return self._load()
        except OSError as error:
            raise SettingsError(f"{self._directory}: {error.strerror}") from None
        finally:
            os.chdir(directory)

    def warn_about_exposed_secrets(self) -> None:
        """Log a warning if other users of this machine can read a password on the command line (ps) or in the file."""
        config = self._config()
        if any(map(holds_secret, self[SOURCE.name] or ())):
            self.log.warn(
                "the command line contains a password, and every user of this machine can see it (ps); move the source "
                "to a configuration file (--config=FILE.toml) and chmod 600 that"
            )
        elif config is not None and any(holds_secret(document.source) for document in self.settings.documents):
            with contextlib.suppress(OSError):
                if os.stat(self._directory / config).st_mode & 0o007:
                    self.log.warn(
                        "{config} contains a password, and every user of this machine can read it; chmod 600 it",
                        config=config,
                    )

    def _load(self) -> Settings:
        typed = {option.name: self[option.name] for option in FILE_OPTIONS if self[option.name] is not None}
        return with_absolute_sources(load_settings(typed, self._config()))

    def _config(self) -> str | None:
        names = self[CONFIG.name]
        return None if names is None else names[-1]

    def _check_twistd_paths(self) -> None:
        """Reject a --rundir or --pidfile that twistd cannot use, before twistd fails with a traceback."""
        parent: Mapping[str, Any] | None = getattr(self, "parent", None)
        if parent is None or parent.get("chroot"):
            return
        directory, pidfile = Path(parent.get("rundir") or "."), parent.get("pidfile")
        if not directory.is_dir():
            raise SettingsError(f"--rundir {directory}: no such directory")
        if pidfile and not os.access((directory / pidfile).parent, os.W_OK | os.X_OK):
            raise SettingsError(
                f"--pidfile {pidfile}: cannot create a file there; name another path, or pass --pidfile= for none"
            )

    def _configure_log(self) -> None:
        """Replace twistd's log file by one that SIGHUP can reopen, and that is in JSON if the settings say so."""
        parent: Mapping[str, Any] | None = getattr(self, "parent", None)
        log_format = self.settings.log_format
        if parent is None:
            return
        if parent.get("syslog") or parent.get("logger") is not None:
            if log_format != "text":
                raise SettingsError(
                    "--log-format cannot be used with twistd's --syslog or --logger, which have their own formats"
                )
            return
        name = parent.get("logfile") or ("" if parent.get("nodaemon") else "twistd.log")
        if name in ("", "-"):
            # The terminal: twistd's own observer is good enough for text, and without -n twistd rejects a terminal.
            if log_format == "text" or not parent.get("nodaemon"):
                return
            observer = file_observer(sys.stdout, log_format)
        else:
            try:
                observer = self.log_files.observer(Path(name).absolute(), log_format)
            except OSError as error:
                raise SettingsError(f"--logfile {name}: {error.strerror}") from None
        # Like its --logger option, twistd expects the dotted name of a function that returns the observer.
        choose_observer(observer)
        parent["logger"] = "livestate.system.logs.chosen_observer"  # type: ignore[index]  # twistd's options are a dict


def makeService(options: Options) -> IService:
    """Return the service that runs livestate.

    :raises SystemExit: when something that the options name cannot be used; the text is one line.
    """
    from twisted.internet import reactor as chosen  # noqa: PLC0415  # installed by now

    reactor: Any = chosen
    manager = ServiceManager.from_environment(os.environ, os.getpid())
    raise_open_files()
    reactor.installNameResolver(HostResolver(reactor))
    options.warn_about_exposed_secrets()
    try:
        service = LivestateService(reactor, options.settings, options.log_files, options.reload, manager)
    except LivestateError as error:
        raise SystemExit(f"livestate: {error}") from None
    reactor.callWhenRunning(tune_gc)
    return service


def _install_reactor() -> None:
    """Install livestate's own reactor, on Linux, unless the user chose another one.

    If a reactor is installed already, the user chose it: `twistd --reactor=…` installs it at once.
    """
    if "twisted.internet.reactor" not in sys.modules and sys.platform == "linux":
        from livestate.net.reactor import install  # noqa: PLC0415  # Linux only

        install()
