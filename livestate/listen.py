"""Listening as strports strings say, and saying in one line why one cannot.

Every strports string works. Of those livestate knows (`tcp:` and `ssl:`) it sees to more: a deep backlog where none
is given, certificates checked and loaded with their chain before the reactor runs, and the development certificate.
"""

import errno
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from livestate.certificate import Certificate
from livestate.errors import SettingsError
from livestate.settings import Settings, parse_strports
from livestate.tls import DEVELOPMENT_FILE, make_development_certificate

#: Connections the kernel holds until they are accepted, where the description names no number. Twisted's 50 overflow
#: when a thousand readers come back at once; the kernel lowers it to net.core.somaxconn (4096 since Linux 5.4).
BACKLOG = 4096

#: What the arguments of `ssl:` may be named (twisted.internet.endpoints, "ssl").
_SSL_ARGUMENTS = frozenset({"port", "interface", "backlog", "privateKey", "certKey", "extraCertChain"})

#: Those that say where a certificate is.
_CERTIFICATE_ARGUMENTS = ("privateKey", "certKey", "extraCertChain")


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
            self._endpoint, self.certificate = _endpoint(reactor, option, description)
        except Exception as error:  # what strports and its plugins raise for a string they cannot use may be anything
            raise SettingsError(f"{self._what}: {_explained(error)}") from None

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
                raise SettingsError(f"{self._what}: {_explained(reason)}")
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


def _endpoint(reactor: Any, option: str, description: str) -> tuple[IStreamServerEndpoint, Certificate | None]:
    kind, arguments = parse_strports(description)
    if description.isdecimal():
        meant = "ssl" if option == "--https" else "tcp"
        raise SettingsError(f"expected a strports string, such as {meant}:{description}")
    if kind in ("tcp", "ssl") and "port" not in arguments:
        raise SettingsError(f"expected a port, such as {kind}:8080")
    if kind == "ssl":
        if option == "--http":
            raise SettingsError("a TLS description belongs to --https")
        _probe(arguments)
        return _ssl_endpoint(reactor, arguments)
    if kind == "systemd":
        return _systemd_endpoint(reactor, option, description, arguments)
    if option == "--https" and kind in ("tcp", "tcp6", "unix", "fd"):
        raise SettingsError("that is not TLS; write ssl:PORT, or give it to --http")
    if kind == "unix":
        folder = Path(arguments.get("address", arguments.get("port", ""))).absolute().parent
        if not folder.is_dir():
            raise SettingsError(f"there is no folder {folder}")
    if kind == "tcp":
        _probe(arguments)
        if "backlog" not in arguments:
            description += f":backlog={BACKLOG}"
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint, None


def _probe(arguments: dict[str, str]) -> None:
    """See that the port can be had, before twistd leaves the terminal and the message would only be in the log.

    To bind is enough, and as strict as to listen: what listens there makes it fail, a descriptor of it in a child
    included. What an earlier run left behind does not, in any state from ESTABLISHED to TIME_WAIT, since Twisted's
    sockets have SO_REUSEADDR too; after a server without it the port is in use until TIME_WAIT is over (seen with
    Linux 6.18).

    :raises OSError: it cannot.
    """
    interface, port = arguments.get("interface", ""), _number(arguments, "port", 0, 65535)
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As Twisted does: without it, connections of an earlier run that linger would look like a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((interface, port))


def _ssl_endpoint(reactor: Any, arguments: dict[str, str]) -> tuple[SSL4ServerEndpoint, Certificate]:
    unknown = set(arguments) - _SSL_ARGUMENTS
    if unknown:
        raise SettingsError(f"ssl: has no argument {min(unknown)!r}; there are {', '.join(sorted(_SSL_ARGUMENTS))}")
    key, certificate = arguments.get("privateKey"), arguments.get("certKey")
    if key is None and certificate is None:
        key = certificate = _development_file()
    # One file may hold both, as Twisted has it.
    served = Certificate(key or certificate or "", certificate or key or "", arguments.get("extraCertChain"))
    endpoint = SSL4ServerEndpoint(
        reactor,
        _number(arguments, "port", 0, 65535),
        served,
        _number(arguments, "backlog", 1, 65535, BACKLOG),
        arguments.get("interface", ""),
    )
    return endpoint, served


def _systemd_endpoint(
    reactor: Any, option: str, description: str, arguments: dict[str, str]
) -> tuple[IStreamServerEndpoint, Certificate | None]:
    """Take a socket from systemd; for --https, with the certificate that `description` names in the words of `ssl:`.

    Twisted has no string for TLS on such a socket. A certificate is not made where none is named: what systemd starts
    is not for development.
    """
    files = {name: arguments.pop(name) for name in _CERTIFICATE_ARGUMENTS if name in arguments}
    if option == "--https":
        if not {"privateKey", "certKey"} <= set(files):
            raise SettingsError(f"name the certificate: {description}:privateKey=KEY.pem:certKey=FULLCHAIN.pem")
        if "port" in arguments:  # the first bare argument, which here is the domain
            arguments["domain"] = arguments.pop("port")
        description = ":".join(["systemd", *(f"{name}={quoteStringArgument(arguments[name])}" for name in arguments)])
    elif files:
        raise SettingsError("a TLS description belongs to --https")
    try:
        inner = serverFromString(reactor, description)
    except (IndexError, KeyError):
        raise SettingsError(
            "systemd has passed no such socket: start livestate by its socket unit, and name one of its sockets by "
            "index=, counted from 0, or by name=, its FileDescriptorName"
        ) from None
    with socket.socket(fileno=os.dup(inner.fileno)) as passed:
        if passed.family != inner.addressFamily:
            raise SettingsError(f"that socket is one of domain={passed.family.name.removeprefix('AF_')}")
    if not files:
        return inner, None
    served = Certificate(files["privateKey"], files["certKey"], files.get("extraCertChain"))
    return _TLSEndpoint(reactor, inner, served), served


@implementer(IStreamServerEndpoint)
class _TLSEndpoint:
    """TLS on what another endpoint listens on."""

    def __init__(self, reactor: Any, inner: IStreamServerEndpoint, certificate: Certificate) -> None:
        self._reactor = reactor
        self._inner = inner
        self._certificate = certificate

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Listen; livestate's own reactor runs such a factory straight on the socket."""
        wrapped = TLSMemoryBIOFactory(self._certificate, False, factory, clock=self._reactor)
        listening: Deferred[IListeningPort] = self._inner.listen(wrapped)
        return listening


def _development_file() -> str:
    """Give the name of the file with a key and a certificate in this folder, made now if there is none."""
    path = Path(DEVELOPMENT_FILE).absolute()
    if not path.exists():
        fingerprint = make_development_certificate(path)
        Listener.log.warn(
            "made a self-signed development certificate, {path}: browsers will warn of it; its SHA-256 fingerprint is "
            "{fingerprint}. For real use: --https=ssl:PORT:privateKey=KEY.pem:certKey=FULLCHAIN.pem",
            path=str(path), fingerprint=fingerprint,
        )  # fmt: skip
    return str(path)


def _number(arguments: dict[str, str], name: str, least: int, most: int, default: int | None = None) -> int:
    text = arguments.get(name, default)
    try:
        number = int(str(text))
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise SettingsError(f"{name} is a number from {least} to {most}, not {text!r}")
    return number


_HINTS: dict[int, Callable[[], str]] = {
    errno.EADDRINUSE: lambda: "the port is in use; stop what uses it, or name another",
    errno.EACCES: lambda: f"user {os.geteuid()} may not use it; ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: lambda: "this machine has no such address",
}


def _explained(error: BaseException) -> str:
    """Say what went wrong, and for the common ones what to do."""
    if isinstance(error, OSError) and error.errno in _HINTS:
        return _HINTS[error.errno]()
    if isinstance(error, KeyError):
        return f"strports knows or misses {error}"
    return str(error) or type(error).__name__
