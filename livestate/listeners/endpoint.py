"""Server endpoints made from strports strings.

Every strports string works. For the types that livestate knows (`tcp:`, `ssl:`, `systemd:` and `unix:`), it does more.
It sets a large backlog by default, checks and loads certificates with their chain before the reactor runs, and creates
the development certificate. With `haproxy:` in front of any of them, connections begin with a header of the PROXY
protocol.

twistd changes its working directory (`--rundir`) between the first listeners and those that a reload adds. So file
names are made absolute here, with the directory in which livestate was started.
"""

import errno
import os
import re
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
from livestate.net.proxy_protocol import ProxyProtocolFactory
from livestate.tls.certificate import Certificate
from livestate.tls.development_certificate import DEVELOPMENT_FILE, make_development_certificate

log = Logger()

#: How many connections the kernel queues until they are accepted, unless the description sets `backlog=`. Twisted's
#: default of 50 overflows when a thousand clients reconnect at once. The kernel limits the number to net.core.somaxconn
#: (4096 since Linux 5.4).
BACKLOG = 4096

#: The arguments of `ssl:` (twisted.internet.endpoints, "ssl").
_SSL_ARGUMENTS = frozenset({"port", "interface", "backlog", "privateKey", "certKey", "extraCertChain"})

#: What a strports string begins with if a proxy connects to it with the PROXY protocol.
_PROXIED = "haproxy:"

#: What precedes the first argument without a name, and that argument.
_FIRST_BARE = re.compile(r"^([^:]*:(?:(?:\\.|[^\\:])*=(?:\\.|[^\\:])*:)*)((?:\\.|[^\\:=])+)(?=:|$)")

#: Those that name certificate files.
_CERTIFICATE_ARGUMENTS = ("privateKey", "certKey", "extraCertChain")


def make_endpoint(
    reactor: Any, option: str, description: str, directory: Path
) -> tuple[IStreamServerEndpoint, Certificate | None]:
    """Return the endpoint for a strports string, and its certificate if livestate loads one for it.

    :param option: the option that the string came from, such as `--http`.
    :param directory: the directory that file names are relative to.
    :raises Exception: when the string is invalid or cannot be used. strports and its plugins may raise anything;
        `describe_error` turns it into a message.
    """
    if description.startswith(_PROXIED):
        inner, certificate = make_endpoint(reactor, option, description.removeprefix(_PROXIED), directory)
        return _ProxiedEndpoint(reactor, inner), certificate
    kind, arguments = parse_strports(description)
    for name in _CERTIFICATE_ARGUMENTS:
        if name in arguments:
            arguments[name] = str(directory / arguments[name])
    if description.isdecimal():
        scheme = "ssl" if option == "--https" else "tcp"
        raise SettingsError(f"expected a strports string, such as {scheme}:{description}")
    if kind in ("tcp", "ssl") and "port" not in arguments:
        raise SettingsError(f"expected a port, such as {kind}:8080")
    if kind == "ssl":
        if option == "--http":
            raise SettingsError("a TLS endpoint belongs in --https")
        _check_bindable(arguments)
        return _ssl_endpoint(reactor, arguments, directory)
    if kind == "systemd":
        return _systemd_endpoint(reactor, option, description, arguments)
    if option == "--https" and kind in ("tcp", "tcp6", "unix", "fd"):
        raise SettingsError("this endpoint is not TLS; write ssl:PORT, or use --http")
    if kind == "unix":
        description = _absolute_unix(description, arguments, directory)
    if kind == "tcp":
        _check_bindable(arguments)
        if "backlog" not in arguments:
            description += f":backlog={BACKLOG}"
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint, None


def _check_bindable(arguments: dict[str, str]) -> None:
    """Ensure that the port is available, before twistd leaves the terminal and messages go only to the log.

    Binding is enough, and as strict as listening. It fails if anything listens on the port, including a child process
    that inherited the descriptor. It does not fail because of connections that an earlier run left behind, in any state
    from ESTABLISHED to TIME_WAIT, since Twisted's sockets have SO_REUSEADDR too. After a server without SO_REUSEADDR,
    the port is in use until TIME_WAIT is over (observed on Linux 6.18).

    :raises OSError: when the port is not available.
    """
    interface, port = arguments.get("interface", ""), _number(arguments, "port", 0, 65535)
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As Twisted does. Without it, lingering connections of an earlier run would look like a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((interface, port))


def _absolute_unix(description: str, arguments: dict[str, str], directory: Path) -> str:
    """Return the strports string of a Unix socket with an absolute path."""
    name = arguments.get("address", arguments.get("port", ""))  # port: the first bare argument
    path = directory / name
    if not path.parent.is_dir():
        raise SettingsError(f"there is no directory {path.parent}")
    if not name or Path(name).is_absolute():
        return description
    # Twisted's quoteStringArgument leaves the = alone.
    prefix = re.sub(r"[\\:=]", r"\\\g<0>", f"{directory}/")
    named, count = re.subn(r"(?<=:)address=", lambda match: match[0] + prefix, description, count=1)
    return named if count else _FIRST_BARE.sub(lambda match: match[1] + prefix + match[2], description, count=1)


def _ssl_endpoint(reactor: Any, arguments: dict[str, str], directory: Path) -> tuple[SSL4ServerEndpoint, Certificate]:
    unknown = set(arguments) - _SSL_ARGUMENTS
    if unknown:
        known = ", ".join(sorted(_SSL_ARGUMENTS))
        raise SettingsError(f"ssl: has no argument {min(unknown)!r}; its arguments are {known}")
    key, certificate = arguments.get("privateKey"), arguments.get("certKey")
    if key is None and certificate is None:
        if "extraCertChain" in arguments:
            # A certificate was intended, so the development certificate must not replace it.
            raise SettingsError("extraCertChain needs a certificate; set privateKey and certKey too")
        key = certificate = _development_file(directory)
    # As in Twisted, one file may hold both.
    loaded = Certificate(key or certificate or "", certificate or key or "", arguments.get("extraCertChain"))
    endpoint = SSL4ServerEndpoint(
        reactor,
        _number(arguments, "port", 0, 65535),
        loaded,
        _number(arguments, "backlog", 1, 65535, BACKLOG),
        arguments.get("interface", ""),
    )
    return endpoint, loaded


def _systemd_endpoint(
    reactor: Any, option: str, description: str, arguments: dict[str, str]
) -> tuple[IStreamServerEndpoint, Certificate | None]:
    """Return the endpoint of a socket that systemd passed.

    For --https, `description` names the certificate with the arguments of `ssl:`, because Twisted has no string for TLS
    on such a socket. There is no development certificate here: a service that systemd starts is not for development.
    """
    files = {name: arguments.pop(name) for name in _CERTIFICATE_ARGUMENTS if name in arguments}
    if option == "--https":
        if not {"privateKey", "certKey"} <= set(files):
            raise SettingsError(f"a certificate is required: {description}:privateKey=KEY.pem:certKey=FULLCHAIN.pem")
        if "port" in arguments:  # the first bare argument, which here is the domain
            arguments["domain"] = arguments.pop("port")
        description = ":".join(["systemd", *(f"{name}={quoteStringArgument(arguments[name])}" for name in arguments)])
    elif files:
        raise SettingsError("a TLS endpoint belongs in --https")
    try:
        inner = serverFromString(reactor, description)
    except (IndexError, KeyError):
        raise SettingsError(
            "systemd passed no such socket; start livestate through its socket unit, and select one of its sockets "
            "with index= (counted from 0) or name= (its FileDescriptorName)"
        ) from None
    with socket.socket(fileno=os.dup(inner.fileno)) as passed:
        if passed.family != inner.addressFamily:
            raise SettingsError(f"the socket that systemd passed has domain={passed.family.name.removeprefix('AF_')}")
    if not files:
        return inner, None
    loaded = Certificate(files["privateKey"], files["certKey"], files.get("extraCertChain"))
    return _TLSEndpoint(reactor, inner, loaded), loaded


@implementer(IStreamServerEndpoint)
class _TLSEndpoint:
    """TLS on the socket of another endpoint."""

    def __init__(self, reactor: Any, inner: IStreamServerEndpoint, certificate: Certificate) -> None:
        self._reactor = reactor
        self._inner = inner
        self._certificate = certificate

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Listen. livestate's own reactor runs TLS directly on the socket for such a factory."""
        wrapped = TLSMemoryBIOFactory(self._certificate, False, factory, clock=self._reactor)
        listening: Deferred[IListeningPort] = self._inner.listen(wrapped)
        return listening


@implementer(IStreamServerEndpoint)
class _ProxiedEndpoint:
    """Another endpoint, to which a proxy connects with the PROXY protocol."""

    def __init__(self, reactor: Any, inner: IStreamServerEndpoint) -> None:
        self._reactor = reactor
        self._inner = inner

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Listen. With TLS, the header is inside of it."""
        listening: Deferred[IListeningPort] = self._inner.listen(ProxyProtocolFactory(self._reactor, factory))
        return listening


def _development_file(directory: Path) -> str:
    """Return the path of the development certificate in `directory`, and create it if it is missing."""
    path = directory / DEVELOPMENT_FILE
    if not path.exists():
        fingerprint = make_development_certificate(path)
        log.warn(
            "created the self-signed development certificate {path}; browsers will warn about it. Its SHA-256 "
            "fingerprint is {fingerprint}. In production, use "
            "--https=ssl:PORT:privateKey=KEY.pem:certKey=FULLCHAIN.pem",
            path=str(path), fingerprint=fingerprint,
        )  # fmt: skip
    return str(path)


def _number(arguments: dict[str, str], name: str, minimum: int, maximum: int, default: int | None = None) -> int:
    text = arguments.get(name, default)
    try:
        number = int(str(text))
    except ValueError:
        number = minimum - 1
    if not minimum <= number <= maximum:
        raise SettingsError(f"{name} must be a number from {minimum} to {maximum}, not {text!r}")
    return number


_HINTS: dict[int, Callable[[], str]] = {
    errno.EADDRINUSE: lambda: "the port is in use; stop the process that uses it, or choose another port",
    errno.EACCES: lambda: f"user {os.geteuid()} has no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: lambda: "this machine has no such address",
}


def describe_error(error: BaseException) -> str:
    """Return a one-line message for an error in making or using an endpoint, with advice for the common ones."""
    if isinstance(error, OSError) and error.errno in _HINTS:
        return _HINTS[error.errno]()
    if isinstance(error, KeyError):
        return f"strports reports an unknown or missing argument: {error}"
    return str(error) or type(error).__name__
