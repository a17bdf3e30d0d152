"""Listening as strports strings say, and saying in one line why one cannot."""

import select
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.config.settings import Settings
from livestate.errors import SettingsError
from livestate.listeners.endpoint import BACKLOG, describe_error, make_endpoint
from livestate.tls.certificate import Certificate


class Listener(Service):
    """Serves one factory on one endpoint."""

    log = Logger()

    def __init__(self, reactor: Any, option: str, description: str, factory: Factory[Any]) -> None:
        """Understand a strports `description`.

        `certificate` is what is served with it, where that is livestate's affair.

        :param option: the option it came from, for messages: `--http`.
        :raises SettingsError: it makes no sense, its certificate cannot be used, or its port is taken.
        """
        self.port: IListeningPort | None = None
        self._what = f"{option}={description}"
        self._factory = factory
        self._reactor = reactor
        try:
            self._endpoint, self.certificate = make_endpoint(reactor, option, description)
        except Exception as error:  # what strports and its plugins raise for a string they cannot use may be anything
            raise SettingsError(f"{self._what}: {describe_error(error)}") from None

    def privilegedStartService(self) -> None:
        """Listen, while there still is the right to use low ports.

        :raises SystemExit: it cannot; the text is one line.
        """
        if self.port is None:
            try:
                self.listen()
            except SettingsError as error:
                line = f"livestate: {error}"
                self.log.critical("{line}", line=line)
                # Not an Exception: it passes through twistd, ends the process with 1 and prints the line.
                raise SystemExit(line) from None

    def listen(self) -> None:
        """Listen.

        :raises SettingsError: it cannot.
        """
        outcome: list[IListeningPort | Failure] = []
        listening: Deferred[IListeningPort] = self._endpoint.listen(self._factory)
        # All of Twisted's server endpoints answer at once.
        listening.addBoth(outcome.append)
        for result in outcome:
            if isinstance(result, Failure):
                error = result.value or Exception()
                reason: BaseException = error.socketError if isinstance(error, CannotListenError) else error
                raise SettingsError(f"{self._what}: {describe_error(reason)}")
            self.port = result

    def stopService(self) -> Deferred[None] | None:
        """Stop listening; connections stay, and who waits to be accepted is."""
        super().stopService()
        port, self.port = self.port, None
        return close(self._reactor, port) if port is not None else None


class Listeners(MultiService):
    """The public listeners, as the settings want them."""

    def __init__(self, make: Callable[[str, str], Listener]) -> None:
        """:param make: gives the Listener of an option and its strports string."""
        super().__init__()
        self._make = make
        self._listeners: dict[tuple[str, str], Listener] = {}

    def all(self) -> list[Listener]:
        """Give them, in the order of the settings."""
        return list(self._listeners.values())

    def certificates(self) -> list[Certificate]:
        """Give the certificates that are served."""
        return [listener.certificate for listener in self.all() if listener.certificate is not None]

    def prepare(self, settings: Settings) -> dict[tuple[str, str], Listener]:
        """Give what the settings want, made where it is not there already. If this runs, the new ones listen.

        :raises SettingsError: one cannot be had, and no new one listens.
        """
        wanted = [*(("--http", text) for text in settings.http), *(("--https", text) for text in settings.https)]
        prepared: dict[tuple[str, str], Listener] = {}
        try:
            for key in wanted:
                listener = prepared[key] = self._listeners.get(key) or self._make(*key)
                if self.running and listener.port is None:
                    listener.listen()
        except BaseException:
            self.forget(prepared)
            raise
        return prepared

    def forget(self, prepared: dict[tuple[str, str], Listener]) -> None:
        """Let go of what `prepare` gave."""
        for key, listener in prepared.items():
            if key not in self._listeners:
                listener.stopService()

    def change(self, prepared: dict[tuple[str, str], Listener]) -> None:
        """Have what `prepare` gave, and stop what is not wanted any more."""
        before, self._listeners = self._listeners, prepared
        for key, listener in before.items():
            if key not in prepared:
                listener.disownServiceParent()
        for key, listener in prepared.items():
            if key not in before:
                listener.setServiceParent(self)

    def close(self) -> None:
        """Stop all."""
        self.change({})


def close(reactor: Any, port: Any) -> Deferred[None] | None:
    """Stop listening, without a word lost of those who connected until now.

    The kernel resets connections that nobody has accepted. The port is closed a turn of the reactor later, and who has
    come until then is accepted too.
    """
    accept_waiting(port)
    reactor.callLater(0, accept_waiting, port)
    closed: Deferred[None] | None = port.stopListening()
    return closed


def accept_waiting(port: Any) -> None:
    """Accept all who wait at a port, as far as that is possible."""
    try:
        waiting = select.poll()
        waiting.register(port.fileno(), select.POLLIN)
    except (AttributeError, TypeError, ValueError, OSError):  # bound for others to accept from, or closed already
        return
    for _ in range(BACKLOG):
        if not waiting.poll(0):
            return
        port.doRead()
