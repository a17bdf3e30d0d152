"""A worker: the server, with a pipe as its source. It runs in a fork of the zygote, until the process exits."""

import contextlib
import importlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogBeginner
from twisted.protocols.tls import TLSMemoryBIOFactory

from livestate.config.settings import Settings
from livestate.documents.confirmation import Confirmation
from livestate.listeners.listener import close
from livestate.system.gc_tuning import tune_gc
from livestate.system.logs import LogFiles
from livestate.system.periodic import PeriodicTask
from livestate.tls.contexts import ServerOptions
from livestate.web.site_service import SiteService
from livestate.workers.document_replica import DocumentReplica
from livestate.workers.messages import (
    Alive,
    AllConfirmed,
    Changed,
    Confirmed,
    Drain,
    Hello,
    LogEntry,
    Ready,
    Reopen,
    Serve,
    ToWorker,
    worker_decoder,
)
from livestate.workers.pipe import Pipe
from livestate.workers.setup import Setup

#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL = 1.0


class Worker:
    """One process that serves clients."""

    def __init__(self, reactor: Any, settings: Settings, ports: Mapping[int, ServerOptions | None]) -> None:
        """:param ports: descriptors of the listening sockets, with the TLS settings of those that use TLS."""
        self._reactor = reactor
        self._descriptors = ports
        self._replicas = {
            document.path: DocumentReplica(reactor, document.path, settings.max_size, document.interval)
            for document in settings.documents
        }
        #: By the number that the supervisor gives them.
        self._confirmations: dict[int, Confirmation] = {}
        self._log_files = LogFiles()
        self._service = SiteService(reactor, settings, list(self._replicas.values()), self._log_files)
        self._ports: list[IListeningPort] = []
        self._pipe = Pipe(worker_decoder(), self._message_received, self._supervisor_gone)
        self._heartbeat = PeriodicTask(reactor, self._send_heartbeat, "sending heartbeats to the supervisor")
        self._draining = False

    def start(self, sock: socket.socket) -> None:
        """Say hello on the pipe, and handle its messages from then on.

        :param sock: this worker's end of the pipe.
        """
        self._pipe.connect(self._reactor, sock)
        observer = cast(ILogObserver, self._forward_log)
        globalLogBeginner.beginLoggingTo([observer], discardBuffer=True, redirectStandardIO=False)
        self._pipe.send(Hello(os.getpid()))
        self._service.startService()
        self._heartbeat.start(HEARTBEAT_INTERVAL)

    def drain(self, shutdown: bool = False) -> None:
        """Stop accepting, close all connections in an orderly way, and exit.

        :param shutdown: whether all of livestate is stopping.
        """
        if self._draining:
            return
        self._draining = True
        for port in self._ports:
            close(self._reactor, port)
        self._service.drain(shutdown).addBoth(lambda _: self._exit())

    def _confirmation(self, number: int) -> Confirmation:
        """Return the one that the supervisor gives this number."""
        return self._confirmations.setdefault(number, Confirmation())

    def _message_received(self, message: ToWorker) -> None:
        match message:
            case Confirmed(path, when, shared):
                document = self._replicas[path].document
                document.confirmed = when
                document.confirmation = self._confirmation(shared) if shared else None
            case AllConfirmed(shared, when):
                self._confirmation(shared).confirm(when)
            case Changed(path):
                self._replicas[path].apply(message)
            case Serve():
                self._listen()
                self._pipe.send(Ready())
            case Reopen():
                self._log_files.reopen()
            case Drain(shutdown):
                self.drain(shutdown)

    def _listen(self) -> None:
        for descriptor, options in self._descriptors.items():
            site: Any = self._service.site
            if options is not None:
                site = TLSMemoryBIOFactory(options, False, site, clock=self._reactor)
            with socket.socket(fileno=descriptor) as listening:
                self._ports.append(self._reactor.adoptStreamPort(descriptor, listening.family, site))

    def _send_heartbeat(self) -> None:
        # A supervisor that does not read what it was sent needs no more of it.
        if self._pipe.writable:
            self._pipe.send(Alive(self._service.recent_counts()))

    def _forward_log(self, event: LogEvent) -> None:
        """Send a log event to the supervisor: any of livestate's above debug, and Twisted's from warn on."""
        level = event.get("log_level", LogLevel.info)
        ours = str(event.get("log_namespace", "")).startswith("livestate")
        if (ours and level is not LogLevel.debug) or level in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            self._pipe.send(LogEntry(level.name, eventAsText(event, includeTimestamp=False, includeSystem=False)))

    def _supervisor_gone(self) -> None:
        """Exit at once: without a supervisor, no new documents would arrive."""
        self._exit()

    def _exit(self) -> NoReturn:
        self._log_files.flush()
        os._exit(0)


def run(setup: Setup, number: int, sock: socket.socket, ports: Mapping[int, ServerOptions | None]) -> None:
    """Run worker `number`, counted from 0, until the process exits.

    :param sock: this worker's end of the pipe.
    :param ports: descriptors of the listening sockets, with the TLS settings of those that use TLS.
    """
    name_process(str(number + 1))
    importlib.import_module(setup.reactor).install()
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    worker = Worker(reactor, setup.settings, ports)
    # SIGINT and SIGHUP stay ignored, as in the zygote: a terminal or a service manager may send them to all processes,
    # and the supervisor handles them.
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(worker.drain))
    worker.start(sock)
    reactor.callWhenRunning(tune_gc)
    reactor.run(installSignalHandlers=False)


def name_process(suffix: str) -> None:
    """Show this process as `livestate/SUFFIX` in `ps` and `top`, where the system allows it.

    :param suffix: 5 characters at most.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"livestate/{suffix}", encoding="ascii")
