"""Endpoints of strports strings.

Every strports string works. Of those livestate knows (`tcp:`, `ssl:` and `systemd:`) it sees to more: a deep backlog
where none is given, certificates checked and loaded with their chain before the reactor runs, and the development
certificate.
"""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, quoteStringArgument, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from livestate.config.strports import parse_strports
from livestate.errors import SettingsError
from livestate.tls.certificate import Certificate
from livestate.tls.contexts import DEVELOPMENT_FILE, make_development_certificate

log = Logger()

#: Connections the kernel holds until they are accepted, where the description names no number. Twisted's 50 overflow
#: when a thousand readers come back at once; the kernel lowers it to net.core.somaxconn (4096 since Linux 5.4).
BACKLOG = 4096

#: What the arguments of `ssl:` may be named (twisted.internet.endpoints, "ssl").
_SSL_ARGUMENTS = frozenset({"port", "interface", "backlog", "privateKey", "certKey", "extraCertChain"})

#: Those that say where a certificate is.
_CERTIFICATE_ARGUMENTS = ("privateKey", "certKey", "extraCertChain")


def make_endpoint(reactor: Any, option: str, description: str) -> tuple[IStreamServerEndpoint, Certificate | None]:
    """Give the endpoint of a strports string, and the certificate that is served with it, where that is known.

    :param option: the option it came from: `--http`.
    :raises Exception: it makes no sense, or cannot be used; strports and its plugins raise anything. `describe_error` says
        what it means.
    """
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
        if "extraCertChain" in arguments:
            # Never a development certificate in place of one that was meant to be named.
            raise SettingsError("extraCertChain goes with a certificate: name privateKey and certKey too")
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
        log.warn(
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


def describe_error(error: BaseException) -> str:
    """Say what went wrong, and for the common ones what to do."""
    if isinstance(error, OSError) and error.errno in _HINTS:
        return _HINTS[error.errno]()
    if isinstance(error, KeyError):
        return f"strports knows or misses {error}"
    return str(error) or type(error).__name__
