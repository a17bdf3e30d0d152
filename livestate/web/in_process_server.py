"""One process that does it all: the public listeners, and what serves readers behind them.

New settings are served by a new site. The listeners give new connections to it, and those of the one before are
drained; listeners that stay are not touched.
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
class _Current(Factory[Any]):
    """The site of the day."""

    noisy = False

    def __init__(self, site: LiveSite) -> None:
        self.site = site

    def logPrefix(self) -> str:
        """Name it in Twisted's lines of what starts and stops."""
        return self.site.logPrefix()

    def buildProtocol(self, addr: Any) -> Any:
        """Give a new connection its channel."""
        return self.site.buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        """Offer in TLS what the site does."""
        return self.site.acceptableProtocols()


class InProcessServer(MultiService):
    """Serves readers in this process."""

    log = Logger()

    def __init__(
        self, reactor: Any, settings: Settings, supplies: Iterable[ServedDocument], log_files: LogFiles
    ) -> None:
        """Serve the documents of `settings`, which `supplies` bring, in the same order.

        :raises SettingsError: a listener or the access log cannot be used.
        """
        super().__init__()
        self._reactor = reactor
        self._log_files = log_files
        self._serving = SiteService(reactor, settings, list(supplies), log_files)
        self._serving.setServiceParent(self)
        self._current = _Current(self._serving.site)
        self._listeners = Listeners(lambda option, text: Listener(reactor, option, text, self._current))
        self._listeners.change(self._listeners.prepare(settings))
        self._listeners.setServiceParent(self)
        self._leaving: dict[SiteService, Deferred[None]] = {}
        self._past = Counts()

    def certificates(self) -> Sequence[Certificate]:
        """Give those that are served."""
        return self._listeners.certificates()

    def certificates_changed(self) -> Deferred[None]:
        """Nothing is to be done: listeners ask their certificate each time."""
        return succeed(None)

    def renew(self) -> Deferred[None]:
        """Say that new code takes more than one process."""
        self.log.warn("new code is loaded by a restart, or with --workers")
        return succeed(None)

    def reopen_logs(self) -> None:
        """There are no other processes with log files."""

    def change(self, settings: Settings, supplies: Iterable[ServedDocument]) -> Deferred[None]:
        """Serve what `settings` say from now on.

        :raises SettingsError: a listener or the access log cannot be used; nothing has changed.
        """
        prepared = self._listeners.prepare(settings)
        try:
            serving = SiteService(self._reactor, settings, list(supplies), self._log_files)
        except BaseException:
            self._listeners.forget(prepared)
            raise
        before, self._serving = self._serving, serving
        serving.setServiceParent(self)
        self._current.site = serving.site
        self._listeners.change(prepared)
        self._let_go(before, ending=False)
        return succeed(None)

    def drain(self) -> Deferred[None]:
        """Accept nobody any more, and come to an end with all readers."""
        self._listeners.close()
        self._let_go(self._serving, ending=True)
        return gatherResults(list(self._leaving.values())).addCallback(lambda _: None)

    def abort_remaining(self) -> None:
        """Come to that end at once."""
        for serving in list(self._leaving):
            serving.abort_remaining()

    def serving(self) -> bool:
        """Tell that this process is there."""
        return True

    def outdated(self) -> bool:
        """Tell that what serves is made as it was last to be."""
        return False

    def trouble(self) -> str:
        """Say that nothing is wrong with what serves: this process answers."""
        return ""

    def counts(self) -> Counts:
        """Give what was counted until now."""
        return total([self._past, *(serving.counts() for serving in {self._serving: None, **self._leaving})])

    def workers(self) -> Sequence[Mapping[str, Any]] | None:
        """Tell that there are none."""
        return None

    def _let_go(self, serving: SiteService, ending: bool) -> None:
        def gone(_: object) -> None:
            self._past = total([self._past, serving.counts().past()])
            del self._leaving[serving]
            serving.disownServiceParent()

        # First noted: it may be over at once.
        done: Deferred[None] = Deferred()
        self._leaving[serving] = done
        serving.drain(ending).addCallback(gone).chainDeferred(done)
