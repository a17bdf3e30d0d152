"""A worker: the server, with a pipe for a source. It runs in a fork of the zygote, and ends with its process."""

import contextlib
import importlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, cast

from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogBeginner
from twisted.protocols.tls import TLSMemoryBIOFactory

from livestate.config.settings import Settings
from livestate.documents.document import Document
from livestate.documents.snapshot import Representation, Snapshot
from livestate.listeners.listener import close
from livestate.system.gc_tuning import tune_gc
from livestate.system.logs import LogFiles
from livestate.tls.contexts import ServerOptions
from livestate.web.site_service import SiteService
from livestate.workers.messages import (
    Alive,
    Changed,
    Confirmed,
    Drain,
    Hello,
    LogEntry,
    Ready,
    Reopen,
    Serve,
    ToWorker,
    for_worker,
)
from livestate.workers.pipe import Pipe
from livestate.workers.setup import Setup

#: Seconds between two signs of life.
BEAT = 1.0


class Supplied:
    """A document that the supervisor keeps up to date."""

    def __init__(self, reactor: Any, path: str, max_size: int, interval: float) -> None:
        self.document = Document(reactor, path, max_size)
        self._interval = interval

    def is_fresh(self) -> bool:
        """Tell whether the store has confirmed the document of late."""
        return self.document.is_fresh(self._interval)

    def change(self, news: Changed) -> None:
        """Take a version, or more content codings of the one that is there."""
        known = self.document.snapshot
        there = known.representations if known is not None and known.version == news.version else {}
        new = {coding: Representation(coding, body, etag) for coding, etag, body in news.representations}
        representations = MappingProxyType({**there, **new})
        snapshot = Snapshot(news.version, news.modified, representations, news.complete)
        self.document.restore(snapshot, self.document.confirmed, news.begun)


class Worker:
    """One process that serves."""

    def __init__(self, reactor: Any, settings: Settings, ports: Mapping[int, ServerOptions | None]) -> None:
        """:param ports: descriptors of the listening sockets, with the TLS settings of those that have any."""
        self._reactor = reactor
        self._descriptors = ports
        self._supplies = {
            wanted.path: Supplied(reactor, wanted.path, settings.max_size, wanted.interval)
            for wanted in settings.documents
        }
        self._log_files = LogFiles()
        self._serving = SiteService(reactor, settings, list(self._supplies.values()), self._log_files)
        self._ports: list[IListeningPort] = []
        self._pipe = Pipe(for_worker(), self._told, self._orphaned)
        self._beat = LoopingCall(self._report)
        self._beat.clock = reactor
        self._draining = False

    def start(self, end: socket.socket) -> None:
        """Say hello on the pipe, and wait for what it brings."""
        self._pipe.connect(self._reactor, end)
        globalLogBeginner.beginLoggingTo([cast(ILogObserver, self._say)], discardBuffer=True, redirectStandardIO=False)
        self._pipe.send(Hello(os.getpid()))
        self._serving.startService()
        self._beat.start(BEAT)

    def drain(self, ending: bool = False) -> None:
        """Accept no more, come to an end with all readers, and exit.

        :param ending: whether all of livestate does.
        """
        if self._draining:
            return
        self._draining = True
        for port in self._ports:
            close(self._reactor, port)
        self._serving.drain(ending).addBoth(lambda _: self._end())

    def _told(self, message: ToWorker) -> None:
        match message:
            case Confirmed(path, when):
                self._supplies[path].document.confirmed = when
            case Changed(path):
                self._supplies[path].change(message)
            case Serve():
                self._listen()
                self._pipe.send(Ready())
            case Reopen():
                self._log_files.reopen()
            case Drain(ending):
                self.drain(ending)

    def _listen(self) -> None:
        for descriptor, options in self._descriptors.items():
            site: Any = self._serving.site
            if options is not None:
                site = TLSMemoryBIOFactory(options, False, site, clock=self._reactor)
            with socket.socket(fileno=descriptor) as listening:
                self._ports.append(self._reactor.adoptStreamPort(descriptor, listening.family, site))

    def _report(self) -> None:
        # One who does not read what he is told need not be told more.
        if self._pipe.writable:
            self._pipe.send(Alive(self._serving.counts()))

    def _say(self, event: LogEvent) -> None:
        """Have the supervisor log what is worth it: of Twisted's own, what went wrong."""
        level = event.get("log_level", LogLevel.info)
        ours = str(event.get("log_namespace", "")).startswith("livestate")
        if (ours and level is not LogLevel.debug) or level in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            self._pipe.send(LogEntry(level.name, eventAsText(event, includeTimestamp=False, includeSystem=False)))

    def _orphaned(self) -> None:
        """Serve no more at once: nobody brings new documents."""
        self._end()

    def _end(self) -> NoReturn:
        self._log_files.flush()
        os._exit(0)


def run(setup: Setup, number: int, end: socket.socket, ports: Mapping[int, ServerOptions | None]) -> None:
    """Be worker `number`, counted from 0, until the end of the process.

    :param end: this worker's end of the pipe.
    :param ports: descriptors of the listening sockets, with the TLS settings of those that have any.
    """
    name(str(number + 1))
    importlib.import_module(setup.reactor).install()
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    worker = Worker(reactor, setup.settings, ports)
    # What the terminal or a service manager sends to all processes at once is the supervisor's affair.
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(worker.drain))
    worker.start(end)
    reactor.callWhenRunning(tune_gc)
    reactor.run(installSignalHandlers=False)


def name(what: str) -> None:
    """Name this process for `ps` and `top`, where the system lets it, in 5 signs at most."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"livestate/{what}", encoding="ascii")
