"""A service that listens on one endpoint, and stops without losing a client."""

import select
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.errors import SettingsError
from livestate.listeners.endpoint import BACKLOG, describe_error, make_endpoint


class Listener(Service):
    """Serve one factory on one endpoint.

    :ivar port: the listening port, or None while not listening.
    :ivar certificate: the certificate, if livestate loads one for this endpoint; else None.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, option: str, description: str, factory: Factory[Any], directory: Path | None = None
    ) -> None:
        """Create the endpoint of a strports `description`, without listening yet.

        :param option: the option that the description came from, for messages, such as `--http`.
        :param directory: the directory that file names are relative to; None: the working directory.
        :raises SettingsError: when the description is invalid, its certificate cannot be used, or its port is in use.
        """
        self.port: IListeningPort | None = None
        self._label = f"{option}={description}"
        self._factory = factory
        self._reactor = reactor
        try:
            self._endpoint, self.certificate = make_endpoint(reactor, option, description, directory or Path.cwd())
        except Exception as error:  # for a string that they cannot use, strports and its plugins may raise anything
            raise SettingsError(f"{self._label}: {describe_error(error)}") from None

    def privilegedStartService(self) -> None:
        """Listen, while the process may still use ports below 1024.

        :raises SystemExit: with a message of one line, when it cannot listen.
        """
        if self.port is None:
            try:
                self.listen()
            except SettingsError as error:
                line = f"livestate: {error}"
                self.log.critical("{line}", line=line)
                # SystemExit is not an Exception, so it passes through twistd, which exits with 1 and prints the line.
                raise SystemExit(line) from None

    def listen(self) -> None:
        """Listen on the endpoint.

        :raises SettingsError: when that fails.
        """
        outcome: list[IListeningPort | Failure] = []
        listening: Deferred[IListeningPort] = self._endpoint.listen(self._factory)
        # The Deferreds of all of Twisted's server endpoints have already fired.
        listening.addBoth(outcome.append)
        for result in outcome:
            if isinstance(result, Failure):
                error = result.value or Exception()
                reason: BaseException = error.socketError if isinstance(error, CannotListenError) else error
                raise SettingsError(f"{self._label}: {describe_error(reason)}")
            self.port = result

    def stopService(self) -> Deferred[None] | None:
        """Stop listening. Open connections stay, and waiting ones are accepted first."""
        super().stopService()
        port, self.port = self.port, None
        return close(self._reactor, port) if port is not None else None


def close(reactor: Any, port: Any) -> Deferred[None] | None:
    """Stop listening, without losing a client that has already connected.

    When a port is closed, the kernel resets connections that have not been accepted. Twisted closes it one turn of the
    reactor later, so connections that arrive until then are accepted too.
    """
    accept_waiting(port)
    reactor.callLater(0, accept_waiting, port)
    closed: Deferred[None] | None = port.stopListening()
    return closed


def accept_waiting(port: Any) -> None:
    """Accept all connections that wait at a port, as far as possible."""
    try:
        poller = select.poll()
        poller.register(port.fileno(), select.POLLIN)
    except (AttributeError, TypeError, ValueError, OSError):  # only other processes accept from it, or it is closed
        return
    for _ in range(BACKLOG):
        if not poller.poll(0):
            return
        port.doRead()
