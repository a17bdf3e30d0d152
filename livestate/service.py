"""The whole of livestate as one service, and what each signal does.

- SIGTERM: stop accepting connections, drain the existing ones while still serving them, and exit with 0. A second
  SIGTERM closes the remaining ones at once. Once all are closed, another one ends the process at once.
- SIGINT (Ctrl-C): close all connections at once, and exit.
- SIGHUP: reopen the log files, and read options and certificates again. New connections get what has changed; existing
  ones are drained.
- SIGUSR2: replace the workers by new ones, which run the code that is now on disk.
"""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger

from livestate.config.options import RESTART_ONLY
from livestate.config.settings import Settings
from livestate.documents.registry import Registry
from livestate.documents.summary import summary
from livestate.errors import LivestateError
from livestate.listeners.listener import Listener
from livestate.system.exit_guard import guard_exit
from livestate.system.logs import LogFiles
from livestate.system.orphans import OrphanReaper
from livestate.system.periodic import PeriodicTask
from livestate.system.signals import Signals
from livestate.system.systemd import ServiceManager, SystemdNotifier
from livestate.tls.certificate import Certificate, reload_all
from livestate.web.admin.host_allowlist import HostAllowlist
from livestate.web.admin.site import AdminSite, admin_resources
from livestate.web.counts import Counts
from livestate.web.idle_timeout import IdleTimeouts
from livestate.web.in_process_server import InProcessServer
from livestate.web.resources.readiness import ServedDocument
from livestate.workers.supervisor import Supervisor

#: Seconds between two checks of the certificate files. They are loaded once two checks see the same files.
CERTIFICATE_CHECK_INTERVAL = 5.0

#: Seconds after the last connection in which the process ends, even if a disk does not respond. Together with a drain,
#: that is less than the 30 s after which Kubernetes kills a process.
EXIT_LIMIT = 10.0


class Server(Protocol):
    """What serves the clients: this process, or worker processes."""

    def certificates(self) -> Sequence[Certificate]:
        """Return the certificates in use."""

    def certificates_changed(self) -> Deferred[None]:
        """Serve the reloaded certificates; fire when that is done, or has failed."""

    def change(self, settings: Settings, documents: Iterable[ServedDocument]) -> Deferred[None]:
        """Serve by new settings; fire when that is done, or has failed.

        :raises LivestateError: when the settings cannot be used; nothing has changed.
        """

    def renew(self) -> Deferred[None]:
        """Run the code that is now on disk; fire when that is done, or has failed."""

    def reopen_logs(self) -> None:
        """Reopen the log files."""

    def drain(self) -> Deferred[None]:
        """Stop accepting connections, and drain the existing ones; fire when all are closed."""

    def abort_remaining(self) -> None:
        """Close all remaining connections at once."""

    def serving(self) -> bool:
        """Return whether all serving processes are ready."""

    def outdated(self) -> bool:
        """Return whether the last change has failed, so that the previous settings are still being served."""

    def trouble(self) -> str:
        """Return in a few words what is wrong with the serving processes; "" if nothing is."""

    def counts(self) -> Counts:
        """Return the counters of all serving processes."""

    def connections(self) -> int:
        """Return the number of open connections in all serving processes."""

    def workers(self) -> Sequence[Mapping[str, Any]] | None:
        """Return the state of each worker process; None if this process serves."""


class LivestateService(MultiService):
    """The top-level service."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        log_files: LogFiles,
        load_settings: Callable[[], Settings],
        manager: ServiceManager,
    ) -> None:
        """Create and connect all parts; nothing runs before the service is started.

        :param load_settings: reads the options again.
        :param manager: the service manager to notify.
        :raises LivestateError: when a source, certificate, port or directory cannot be used.
        """
        super().__init__()
        self._reactor = reactor
        self._settings = settings
        self._load_settings = load_settings
        self._log_files = log_files
        self._registry = Registry(reactor, settings)
        server = (
            InProcessServer(reactor, settings, self._registry.documents(), log_files)
            if settings.workers == 1
            else Supervisor(reactor, settings, self._registry.documents())
        )
        self._server: Server = server
        actions: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self.shut_down, signal.SIGINT: self.shut_down_now,
            signal.SIGHUP: lambda: self._notifier.reload(self.reload),
            signal.SIGUSR2: lambda: self._notifier.reload(self.renew),
        }  # fmt: skip
        for part in (log_files, self._registry, server, Signals(reactor, actions), OrphanReaper(reactor)):
            part.setServiceParent(self)
        self._admin: AdminSite | None = None
        if settings.admin is not None:
            resources = admin_resources(
                self._registry.documents, self._server.counts, reactor.seconds, self._server.workers
            )
            admin = self._admin = AdminSite(resources, reactor, settings.admin_hosts)
            IdleTimeouts(reactor, lambda: admin.connections.open).setServiceParent(self)
            Listener(reactor, "--admin", settings.admin, admin).setServiceParent(self)
        self._notifier = SystemdNotifier(reactor, manager, self._is_ready, self._summary)
        self._notifier.setServiceParent(self)
        self._stopping = False
        self._skip_drain = False
        self._certificate_check = PeriodicTask(reactor, self._check_certificates, "checking the certificate files")

    def startService(self) -> None:
        """Start all parts."""
        super().startService()
        self._certificate_check.start(CERTIFICATE_CHECK_INTERVAL, now=False)

    def stopService(self) -> Deferred[None]:
        """Drain the connections, keeping the documents up to date until then, and stop all parts."""
        self._stopping = True
        self._certificate_check.stop()
        # This notifies the service manager now, not after the drain.
        self._notifier.disownServiceParent()
        done = self._server.drain().addCallback(lambda _: self._stop_all()).addCallback(lambda _: None)
        if self._skip_drain:
            self._server.abort_remaining()
        return done

    def _stop_all(self) -> Deferred[Any]:
        guard_exit(EXIT_LIMIT)
        return maybeDeferred(super().stopService)

    def shut_down(self) -> None:
        """Drain all connections and exit. A second call closes the remaining ones at once."""
        if self._stopping:
            self._skip_drain = True
            self._server.abort_remaining()
            return
        self._stopping = True
        self.log.info("shutting down: draining connections")
        # This calls stopService in the next iteration of the reactor.
        self._reactor.stop()

    def shut_down_now(self) -> None:
        """Close all connections and exit."""
        self._skip_drain = True
        self.shut_down()

    def reload(self) -> Deferred[None]:
        """Reopen the log files, read options and certificates again, and apply what has changed.

        :return: fires when the changes are served, or were rejected.
        """
        self._log_files.reopen()
        self._server.reopen_logs()
        if self._stopping:
            return succeed(None)
        # A change that could not be served last time is tried again.
        changed = self._server.outdated()
        try:
            settings = self._load_settings()
            for option in RESTART_ONLY:
                if getattr(settings, option.field) != getattr(self._settings, option.field):
                    raise LivestateError(f"--{option.name} cannot change without a restart")
            # Before the settings, so that listeners that stay get the new certificates.
            changed = reload_all(self._server.certificates()) or changed
            if settings == self._settings:
                return self._server.certificates_changed() if changed else succeed(None)
            prepared = self._registry.prepare(settings)
            served = self._server.change(settings, prepared.documents())
        except LivestateError as error:
            self.log.error("rejected the new configuration, keeping the current one: {error}", error=str(error))
            return self._server.certificates_changed() if changed else succeed(None)
        self._registry.commit(prepared)
        self._settings = settings
        if self._admin is not None:
            self._admin.hosts = HostAllowlist(settings.admin_hosts)
        self.log.info("the new configuration is in effect")
        return served

    def renew(self) -> Deferred[None]:
        """Run the code that is now on disk; fire when that is done, or has failed."""
        return succeed(None) if self._stopping else self._server.renew()

    def _is_ready(self) -> bool:
        """Return whether all serving processes are ready, and each source has answered or failed once."""
        return self._server.serving() and all(
            poller.document.snapshot is not None or poller.stats.error is not None
            for poller in self._registry.documents()
        )

    def _summary(self) -> str:
        return summary(self._registry.documents(), self._server.connections(), self._server.trouble())

    def _check_certificates(self) -> None:
        settled = [certificate for certificate in self._server.certificates() if certificate.settled()]
        if reload_all(settled):
            self._server.certificates_changed()
