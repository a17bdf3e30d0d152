"""livestate as a whole: its parts, put together, and what the signals do to them.

- SIGTERM: nobody is accepted any more, readers are let go at a bearable pace while they are served on, and then it ends
  with 0. A second one has the rest cut off at once.
- SIGINT (Ctrl-C): the same, with nobody waited for.
- SIGHUP: log files are opened anew, and the options and certificates are read again. What has changed is served to new
  connections, and those that are there are let go in the same way.
- SIGUSR2: workers with the code that is on disk now take the place of those that are there.
"""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from livestate.config.settings import Settings
from livestate.documents.registry import Registry
from livestate.documents.summary import summary
from livestate.errors import LivestateError
from livestate.listeners.listener import Listener
from livestate.system.logs import LogFiles
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

#: Seconds between two looks at the files of certificates; they are read when they were the same twice.
LOOK = 5.0

#: What a running livestate cannot change, by the names of the options.
FIXED = "admin", "workers", "log-format"


class Server(Protocol):
    """What faces the readers: this process, or others."""

    def certificates(self) -> Sequence[Certificate]:
        """Give those that are served."""

    def certificates_changed(self) -> Deferred[None]:
        """Serve those that were loaded anew; done when they are served, or cannot be."""

    def change(self, settings: Settings, supplies: Iterable[ServedDocument]) -> Deferred[None]:
        """Serve what `settings` say from now on; done as before.

        :raises LivestateError: that cannot be; nothing has changed.
        """

    def renew(self) -> Deferred[None]:
        """Run the code that is on disk; done as before."""

    def reopen_logs(self) -> None:
        """Open log files anew."""

    def drain(self) -> Deferred[None]:
        """Accept nobody any more, and come to an end with all readers."""

    def abort_remaining(self) -> None:
        """Come to that end at once."""

    def serving(self) -> bool:
        """Tell whether all that serve are there."""

    def outdated(self) -> bool:
        """Tell whether what was last to be served could not be, and what was before is."""

    def trouble(self) -> str:
        """Say in a few words what is wrong with those that serve; "" if nothing is."""

    def counts(self) -> Counts:
        """Give what was counted until now."""

    def workers(self) -> Sequence[Mapping[str, Any]] | None:
        """Tell of each serving process, where there are several."""


class LivestateService(MultiService):
    """All of livestate."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        log_files: LogFiles,
        reread: Callable[[], Settings],
        manager: ServiceManager,
    ) -> None:
        """Wire all parts as `settings` say; nothing runs before the service is started.

        :param reread: reads the options again.
        :param manager: who is told how it goes.
        :raises LivestateError: a source, certificate, port or folder cannot be used.
        """
        super().__init__()
        self._reactor = reactor
        self._settings = settings
        self._reread = reread
        self._log_files = log_files
        self._supplies = Registry(reactor, settings)
        front = (
            InProcessServer(reactor, settings, self._supplies.pollers(), log_files)
            if settings.workers == 1
            else Supervisor(reactor, settings, self._supplies.pollers())
        )
        self._front: Server = front
        actions: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self.end, signal.SIGINT: self.interrupt,
            signal.SIGHUP: lambda: self._notifier.reload(self.reload),
            signal.SIGUSR2: lambda: self._notifier.reload(self.renew),
        }  # fmt: skip
        for part in (log_files, self._supplies, front, Signals(reactor, actions)):
            part.setServiceParent(self)
        self._admin: AdminSite | None = None
        if settings.admin is not None:
            resources = admin_resources(
                self._supplies.pollers, self._front.counts, reactor.seconds, self._front.workers
            )
            admin = self._admin = AdminSite(resources, reactor, settings.admin_hosts)
            IdleTimeouts(reactor, lambda: admin.connections.open).setServiceParent(self)
            Listener(reactor, "--admin", settings.admin, admin).setServiceParent(self)
        self._notifier = SystemdNotifier(reactor, manager, self._is_ready, self._summary)
        self._notifier.setServiceParent(self)
        self._ending = False
        self._hurried = False
        self._look = LoopingCall(self._look_at_certificates)
        self._look.clock = reactor

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._look.start(LOOK, now=False)

    def stopService(self) -> Deferred[None]:
        """Let the readers go first, and keep the documents up to date until then."""
        self._ending = True
        if self._look.running:
            self._look.stop()
        # The manager is told now, not when the readers have left.
        self._notifier.disownServiceParent()
        stop = super().stopService
        done = self._front.drain().addCallback(lambda _: maybeDeferred(stop)).addCallback(lambda _: None)
        if self._hurried:
            self._front.abort_remaining()
        return done

    def end(self) -> None:
        """End, having let all readers go; when asked again, at once."""
        if self._ending:
            self._hurried = True
            self._front.abort_remaining()
            return
        self._ending = True
        self.log.info("ending: readers are let go")
        # What stops the service is called in the reactor's next turn.
        self._reactor.stop()

    def interrupt(self) -> None:
        """End, waiting for nobody."""
        self._hurried = True
        self.end()

    def reload(self) -> Deferred[None]:
        """Open the log files anew, read options and certificates again, and serve what has changed.

        :return: done when that is served, or was refused.
        """
        self._log_files.reopen()
        self._front.reopen_logs()
        if self._ending:
            return succeed(None)
        # What could not be served the last time is tried again.
        changed = self._front.outdated()
        try:
            settings = self._reread()
            for name in FIXED:
                attribute = name.replace("-", "_")
                if getattr(settings, attribute) != getattr(self._settings, attribute):
                    raise LivestateError(f"--{name} is changed by a restart")
            # Before the settings: what listens on afterwards does so with what is there now.
            changed = reload_all(self._front.certificates()) or changed
            if settings == self._settings:
                return self._front.certificates_changed() if changed else succeed(None)
            prepared = self._supplies.prepare(settings)
            served = self._front.change(settings, [supply.poller for supply in prepared.values()])
        except LivestateError as error:
            self.log.error("the new configuration is refused, and the one before stays: {error}", error=str(error))
            return self._front.certificates_changed() if changed else succeed(None)
        self._supplies.change(prepared)
        self._settings = settings
        if self._admin is not None:
            self._admin.hosts = HostAllowlist(settings.admin_hosts)
        self.log.info("the new configuration is in force")
        return served

    def renew(self) -> Deferred[None]:
        """Run the code that is on disk; done when it serves, or was refused."""
        return succeed(None) if self._ending else self._front.renew()

    def _is_ready(self) -> bool:
        """Tell whether all serve, and each source was asked: what it gave is there, or why it gave nothing."""
        return self._front.serving() and all(
            poller.document.snapshot is not None or poller.tally.trouble is not None
            for poller in self._supplies.pollers()
        )

    def _summary(self) -> str:
        return summary(self._supplies.pollers(), self._front.counts().connections, self._front.trouble())

    def _look_at_certificates(self) -> None:
        settled = [certificate for certificate in self._front.certificates() if certificate.settled()]
        if reload_all(settled):
            self._front.certificates_changed()
