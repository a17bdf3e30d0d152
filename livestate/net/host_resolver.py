"""Resolve host names so that an unresponsive name server costs one thread and nothing else.

getaddrinfo cannot be cancelled and may take half a minute (resolv.conf(5): 5 s for each of two attempts at each of
three servers). Twisted runs it in the reactor's pool of ten threads, which also reads files and compresses and saves
documents. A store that is polled every second would block all of them, and the process could not exit before they are
done. Therefore:

- Each lookup has its own daemon thread, which does not delay the exit of the process.
- Only one lookup of a name runs at a time. Requests that arrive meanwhile get its result.
- An IP address needs no lookup and no thread.
- If getaddrinfo fails, the name has no addresses for now. (Out of open files, it does not raise gaierror.)
"""

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

#: Seconds until the next address of a host is tried while the first attempt is still pending. Twisted notices a refused
#: connection only at that moment. Its default of 0.3 s is longer than a fetch may take at short intervals, and stores
#: are nearby.
ATTEMPT_DELAY = 0.02

#: The arguments of a lookup: host, port, address family and socket type.
Key = tuple[str, int, int, int]

#: The address family of each choice of Twisted's address types; any other choice means both families.
_FAMILIES = {frozenset([IPv4Address]): socket.AF_INET, frozenset([IPv6Address]): socket.AF_INET6}
_SOCKETS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


@implementer(IHostnameResolver)
class HostResolver:
    """A resolver to install in the reactor.

    :param getaddrinfo: called with host, port, family and socket type; in a thread, unless the host is an IP address.
    """

    def __init__(self, reactor: Any, getaddrinfo: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._reactor = reactor
        self._getaddrinfo = getaddrinfo
        self._receivers: dict[Key, list[IResolutionReceiver]] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See IHostnameResolver."""
        family = _FAMILIES.get(frozenset(addressTypes or ()), socket.AF_UNSPEC)
        key = hostName, portNumber, family, _SOCKETS[transportSemantics]
        resolution = _Resolution(hostName, lambda: self._remove_receiver(key, resolutionReceiver))
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            _deliver([resolutionReceiver], self._look_up(key))
        elif key in self._receivers:
            self._receivers[key].append(resolutionReceiver)
        else:
            threading.Thread(target=self._look_up_in_thread, args=(key,), name="resolver", daemon=True).start()
            self._receivers[key] = [resolutionReceiver]
        return resolution

    def _look_up_in_thread(self, key: Key) -> None:
        addresses = self._look_up(key)
        self._reactor.callFromThread(self._finish, key, addresses)

    def _look_up(self, key: Key) -> Any:
        try:
            return self._getaddrinfo(*key)
        except (OSError, UnicodeError):
            return []

    def _finish(self, key: Key, addresses: Any) -> None:
        _deliver(self._receivers.pop(key), addresses)

    def _remove_receiver(self, key: Key, receiver: IResolutionReceiver) -> None:
        # The thread continues, and the next request for the same name gets its result.
        if receiver in self._receivers.get(key, ()):
            self._receivers[key].remove(receiver)


def _deliver(receivers: list[IResolutionReceiver], addresses: Any) -> None:
    for receiver in receivers:
        for family, socket_type, _, _, address in addresses:
            semantics: Literal["TCP", "UDP"] = "TCP" if socket_type == socket.SOCK_STREAM else "UDP"
            if family == socket.AF_INET:
                receiver.addressResolved(IPv4Address(semantics, *address))
            elif family == socket.AF_INET6:
                receiver.addressResolved(IPv6Address(semantics, *address))
        receiver.resolutionComplete()


@implementer(IHostResolution)
class _Resolution:
    """A running lookup of one name, for one receiver."""

    def __init__(self, name: str, cancel: Callable[[], None]) -> None:
        self.name = name
        self._cancel = cancel

    def cancel(self) -> None:
        """Stop notifying the receiver."""
        self._cancel()
