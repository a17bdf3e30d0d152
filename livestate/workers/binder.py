"""The listening sockets that workers accept from, bound and kept open by the supervisor.

A `Listener` is given a Binder in place of the reactor: what a strports string leads to is bound, and not served. For
TCP there is one socket for each worker (SO_REUSEPORT, socket(7)); all else, such as Unix sockets and those that systemd
gives, is one socket from which all workers accept.
"""

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from livestate.config.strports import parse_strports
from livestate.errors import SettingsError
from livestate.listeners.listener import Listener
from livestate.workers.setup import Port

#: Strports strings that lead to a socket, and to nothing around it.
_KINDS = frozenset({"tcp", "ssl", "unix", "systemd", "fd"})
_WHAT = "with --workers only tcp:, ssl:, unix:, systemd: and fd: can be served"


class Placeholder(Factory[Any]):
    """Stands for the public site, which is not in this process."""

    noisy = False

    def logPrefix(self) -> str:
        """Name it in Twisted's lines of what starts and stops."""
        return "documents"


class Binder:
    """Binds what one strports string leads to.

    What an endpoint may use of a reactor to listen is here; all else is the reactor's.
    """

    def __init__(self, reactor: Any, workers: int) -> None:
        """:param workers: how many TCP sockets are wanted."""
        #: The listening sockets, once bound.
        self.sockets: list[socket.socket] = []
        self._reactor = reactor
        self._workers = workers

    @staticmethod
    def check(option: str, description: str) -> None:
        """See that a strports string can be served by workers.

        :raises SettingsError: it cannot.
        """
        kind, _ = parse_strports(description)
        # What is no strports string at all is for the Listener to say.
        if kind not in _KINDS and not description.isdecimal():
            raise SettingsError(f"{option}={description}: {_WHAT}")

    def of(self, number: int) -> socket.socket:
        """Give what a worker, counted from 0, accepts from."""
        return self.sockets[number % len(self.sockets)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Bind a socket for each worker.

        :raises CannotListenError: they cannot be bound.
        """
        self._check(factory)
        made: list[socket.socket] = []
        try:
            for _ in range(self._workers):
                made.append(_bound(interface, made[0].getsockname()[1] if made else port, backlog))
        except OSError as error:
            for sock in made:
                sock.close()
            raise CannotListenError(interface, port, error) from None
        self.sockets = made
        return _Bound(made)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Bind a socket for each worker, whose affair TLS is."""
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> IListeningPort:
        """Bind one socket."""
        self._check(factory)
        return self._take(self._reactor.listenUNIX(address, factory, *args, **kwargs))

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> IListeningPort:
        """Take a socket that is there already."""
        self._check(factory)
        return self._take(self._reactor.adoptStreamPort(descriptor, family, factory))

    def _take(self, port: Any) -> IListeningPort:
        port.stopReading()
        self.sockets = [port.socket]
        return _Taken(port)

    @staticmethod
    def _check(factory: Any) -> None:
        # Around it there may be TLS, which is the workers' affair.
        if not isinstance(getattr(factory, "wrappedFactory", factory), Placeholder):
            raise SettingsError(_WHAT)


class BoundListener(Listener):
    """A Listener that binds for workers, and what it has bound."""

    def __init__(self, reactor: Any, workers: int, option: str, description: str) -> None:
        """:raises SettingsError: workers cannot serve that."""
        Binder.check(option, description)
        self.binder = Binder(reactor, workers)
        super().__init__(self.binder, option, description, Placeholder())

    def as_port(self) -> Port:
        """Tell a zygote what this is."""
        return Port(None if self.certificate is None else self.certificate.options.pem())


def _bound(interface: str, port: int, backlog: int) -> socket.socket:
    if ":" in interface:
        *_, address = socket.getaddrinfo(interface, port, socket.AF_INET6, socket.SOCK_STREAM)[0]
        sock = socket.socket(socket.AF_INET6)
    else:
        address = (interface, port)
        sock = socket.socket(socket.AF_INET)
    try:
        sock.setblocking(False)
        # As Twisted does: connections of an earlier run that linger are no reason to fail.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


@implementer(IListeningPort)
class _Taken:
    """Another's port, from which nobody is accepted here."""

    def __init__(self, port: IListeningPort) -> None:
        self._port = port

    def startListening(self) -> None:
        """It does already."""

    def stopListening(self) -> Any:
        """Close it."""
        return self._port.stopListening()

    def getHost(self) -> Any:
        """Give the address."""
        return self._port.getHost()


@implementer(IListeningPort)
class _Bound:
    """What an endpoint gives for bound sockets."""

    log = Logger()

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self.log.info("documents starting on {port}, for {count} workers", port=self.getHost().port, count=len(sockets))

    def startListening(self) -> None:
        """It is bound already."""

    def stopListening(self) -> Deferred[None] | None:
        """Close the sockets; workers that have them still accept what has arrived."""
        for sock in self._sockets:
            sock.close()
        return None

    def getHost(self) -> IPv4Address | IPv6Address:
        """Give the address."""
        first = self._sockets[0]
        kind = IPv6Address if first.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *first.getsockname()[:2])
