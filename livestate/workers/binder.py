"""The listening sockets that workers accept from. The supervisor binds them and keeps them open.

A `Listener` gets a Binder instead of the reactor, so that the endpoint of its strports string is bound but not served.
A TCP endpoint becomes one socket for each worker (SO_REUSEPORT, socket(7)). Any other endpoint, such as a Unix socket
or a socket passed by systemd, is a single socket that all workers accept from.
"""

import socket
from pathlib import Path
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

#: The kinds of strports strings that lead to a plain socket, without a protocol around it.
_KINDS = frozenset({"tcp", "ssl", "unix", "systemd", "fd"})
_UNSUPPORTED = "--workers supports only tcp:, ssl:, unix:, systemd: and fd: listeners"


class Placeholder(Factory[Any]):
    """Stands in for the public site, which runs in the workers."""

    noisy = False

    def logPrefix(self) -> str:
        """Return the name that Twisted logs when a listener starts or stops."""
        return "documents"


class Binder:
    """Binds the endpoint of one strports string.

    It overrides the reactor methods that an endpoint may call to listen, and passes everything else on to the reactor.
    """

    def __init__(self, reactor: Any, workers: int) -> None:
        """:param workers: the number of TCP sockets to bind."""
        #: The listening sockets; empty until they are bound.
        self.sockets: list[socket.socket] = []
        self._reactor = reactor
        self._workers = workers

    @staticmethod
    def check(option: str, description: str) -> None:
        """Ensure that workers can serve a strports string.

        :raises SettingsError: when they cannot.
        """
        kind, _ = parse_strports(description)
        # The Listener reports what is not a strports string at all.
        if kind not in _KINDS and not description.isdecimal():
            raise SettingsError(f"{option}={description}: {_UNSUPPORTED}")

    def socket_for(self, number: int) -> socket.socket:
        """Return the socket that worker `number`, counted from 0, accepts from."""
        return self.sockets[number % len(self.sockets)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Bind one socket for each worker.

        :raises CannotListenError: when one of them cannot be bound.
        """
        self._check_factory(factory)
        bound: list[socket.socket] = []
        try:
            for _ in range(self._workers):
                bound.append(_bind(interface, bound[0].getsockname()[1] if bound else port, backlog))
        except OSError as error:
            for sock in bound:
                sock.close()
            raise CannotListenError(interface, port, error) from None
        self.sockets = bound
        return _BoundPort(bound)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Bind one socket for each worker; TLS happens in the workers."""
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: Any, *args: Any, **kwargs: Any) -> IListeningPort:
        """Bind one socket that all workers share."""
        self._check_factory(factory)
        return self._share(self._reactor.listenUNIX(address, factory, *args, **kwargs))

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any) -> IListeningPort:
        """Adopt a socket that is already bound; all workers share it."""
        self._check_factory(factory)
        return self._share(self._reactor.adoptStreamPort(descriptor, family, factory))

    def _share(self, port: Any) -> IListeningPort:
        port.stopReading()
        self.sockets = [port.socket]
        return _SharedPort(port)

    @staticmethod
    def _check_factory(factory: Any) -> None:
        # A TLS factory may be wrapped around it, and TLS happens in the workers.
        if not isinstance(getattr(factory, "wrappedFactory", factory), Placeholder):
            raise SettingsError(_UNSUPPORTED)


class BoundListener(Listener):
    """A Listener that binds sockets for workers; `binder` has these sockets."""

    def __init__(self, reactor: Any, workers: int, option: str, description: str, directory: Path) -> None:
        """:param directory: the directory that file names are relative to.
        :raises SettingsError: when workers cannot serve `description`.
        """
        Binder.check(option, description)
        self.binder = Binder(reactor, workers)
        super().__init__(self.binder, option, description, Placeholder(), directory)

    def as_port(self) -> Port:
        """Return the description of this listener for a zygote."""
        return Port(None if self.certificate is None else self.certificate.options.pem())


def _bind(interface: str, port: int, backlog: int) -> socket.socket:
    if ":" in interface:
        *_, address = socket.getaddrinfo(interface, port, socket.AF_INET6, socket.SOCK_STREAM)[0]
        sock = socket.socket(socket.AF_INET6)
    else:
        address = (interface, port)
        sock = socket.socket(socket.AF_INET)
    try:
        sock.setblocking(False)
        # Like Twisted: lingering connections of an earlier run must not make the bind fail.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


@implementer(IListeningPort)
class _SharedPort:
    """A port of Twisted's that accepts no connections in this process."""

    def __init__(self, port: IListeningPort) -> None:
        self._port = port

    def startListening(self) -> None:
        """Do nothing: the port is already listening."""

    def stopListening(self) -> Any:
        """Close the port."""
        return self._port.stopListening()

    def getHost(self) -> Any:
        """Return the address."""
        return self._port.getHost()


@implementer(IListeningPort)
class _BoundPort:
    """The sockets of all workers, as one port."""

    log = Logger()

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self.log.info("documents starting on {port}, for {count} workers", port=self.getHost().port, count=len(sockets))

    def startListening(self) -> None:
        """Do nothing: the sockets are already listening."""

    def stopListening(self) -> Deferred[None] | None:
        """Close the sockets; a worker still accepts the connections that have already arrived at its own copy."""
        for sock in self._sockets:
            sock.close()
        return None

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address."""
        first = self._sockets[0]
        kind = IPv6Address if first.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *first.getsockname()[:2])
