"""A server in this process: the public listeners and the site behind them.

A change of the settings creates a new site. The listeners pass new connections to it, and the connections of the
previous site are drained. Listeners that stay are not touched.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from livestate.config.settings import Settings
from livestate.listeners.listener import Listener
from livestate.listeners.listeners import Listeners
from livestate.system.logs import LogFiles
from livestate.tls.certificate import Certificate
from livestate.web.counts import Counts, total
from livestate.web.resources.readiness import ServedDocument
from livestate.web.site import LiveSite
from livestate.web.site_service import SiteService


@implementer(IProtocolNegotiationFactory)
class _CurrentSite(Factory[Any]):
    """The factory of the listeners, which passes connections to the site of the current settings."""

    noisy = False

    def __init__(self, site: LiveSite) -> None:
        self.site = site

    def logPrefix(self) -> str:
        """Return the name of the site in Twisted's log lines about starting and stopping."""
        return self.site.logPrefix()

    def buildProtocol(self, addr: Any) -> Any:
        """Return a channel for a new connection."""
        return self.site.buildProtocol(addr)

    def has_room(self, waiting: int) -> bool:
        """Return whether the site can take another connection, in addition to `waiting` that are not open yet."""
        return self.site.has_room(waiting)

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that the site offers in TLS."""
        return self.site.acceptableProtocols()


class InProcessServer(MultiService):
    """Serves clients in this process."""

    log = Logger()

    def __init__(
        self, reactor: Any, settings: Settings, documents: Iterable[ServedDocument], log_files: LogFiles
    ) -> None:
        """Serve the documents of `settings`.

        :param documents: the documents, in the order of the settings.
        :raises SettingsError: a listener or the access log cannot be used.
        """
        super().__init__()
        self._reactor = reactor
        self._log_files = log_files
        self._site_service = SiteService(reactor, settings, list(documents), log_files)
        self._site_service.setServiceParent(self)
        self._current = _CurrentSite(self._site_service.site)
        self._listeners = Listeners(
            lambda option, text, directory: Listener(reactor, option, text, self._current, directory)
        )
        self._listeners.change(self._listeners.prepare(settings))
        self._listeners.setServiceParent(self)
        self._draining: dict[SiteService, Deferred[None]] = {}
        self._past = Counts()

    def certificates(self) -> Sequence[Certificate]:
        """Return the certificates that are served."""
        return self._listeners.certificates()

    def certificates_changed(self) -> Deferred[None]:
        """Do nothing: listeners ask their certificate for its context at each connection."""
        return succeed(None)

    def renew(self) -> Deferred[None]:
        """Log that new code takes more than one process."""
        self.log.warn("new code is loaded by a restart, or with --workers; keeping the current code")
        return succeed(None)

    def reopen_logs(self) -> None:
        """Do nothing: there are no other processes with log files."""

    def change(self, settings: Settings, documents: Iterable[ServedDocument]) -> Deferred[None]:
        """Serve the documents of the new `settings` from now on.

        :param documents: the documents, in the order of the settings.
        :raises SettingsError: a listener or the access log cannot be used. Nothing has changed then.
        """
        prepared = self._listeners.prepare(settings)
        try:
            site_service = SiteService(self._reactor, settings, list(documents), self._log_files)
        except BaseException:
            self._listeners.forget(prepared)
            raise
        previous, self._site_service = self._site_service, site_service
        site_service.setServiceParent(self)
        self._current.site = site_service.site
        self._listeners.change(prepared)
        self._drain(previous, stopping=False)
        return succeed(None)

    def drain(self) -> Deferred[None]:
        """Accept no more connections, and drain the open ones; the Deferred fires when none is left."""
        self._listeners.close()
        self._drain(self._site_service, stopping=True)
        return gatherResults(list(self._draining.values())).addCallback(lambda _: None)

    def abort_remaining(self) -> None:
        """Abort the connections that `drain` has not closed yet."""
        for site_service in list(self._draining):
            site_service.abort_remaining()

    def serving(self) -> bool:
        """Return whether all processes are serving: this one always is."""
        return True

    def outdated(self) -> bool:
        """Return whether an earlier change failed: it cannot fail here."""
        return False

    def trouble(self) -> str:
        """Return what is wrong with the serving processes: nothing, since this one is running."""
        return ""

    def counts(self) -> Counts:
        """Return the current counts, including those of previous sites."""
        return total([self._past, *(site_service.counts() for site_service in self._site_services())])

    def connections(self) -> int:
        """Return the number of open connections, including those that are draining."""
        return sum(site_service.connections() for site_service in self._site_services())

    def workers(self) -> Sequence[Mapping[str, Any]] | None:
        """Return None: there are no workers."""
        return None

    def _site_services(self) -> Iterable[SiteService]:
        return {self._site_service: None, **self._draining}

    def _drain(self, site_service: SiteService, stopping: bool) -> None:
        def drained(_: object) -> None:
            self._past = total([self._past, site_service.counts().past()])
            del self._draining[site_service]
            site_service.disownServiceParent()

        # Added first: the drain may be done at once.
        done: Deferred[None] = Deferred()
        self._draining[site_service] = done
        site_service.drain(stopping).addCallback(drained).chainDeferred(done)
