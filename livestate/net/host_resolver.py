"""Looking up the names of stores, so that a name server that does not answer costs one thread and nothing else.

getaddrinfo cannot be called off, and may take half a minute (resolv.conf(5): 5 s for each of two tries at each of three
servers). Twisted runs it in the reactor's pool of ten threads, in which files are read and documents coded and saved as
well: a store that is asked each second would keep all of them, and the process could not end before they do. Here

- each lookup has a thread of its own, which does not hold up the end of the process;
- a name is looked up once at a time, and who asks meanwhile gets the same answer;
- an address is no name, and takes no thread;
- whatever getaddrinfo raises (where there are no open files left it is no gaierror), there is no such name just now.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

#: Seconds until a host's next address is tried beside the first. Twisted notices only then that the first one refused:
#: its 0.3 s is more than a fetch may take at short intervals, and stores are near.
ATTEMPT_DELAY = 0.02

#: What is looked up: the host, the port, the family of addresses and the type of socket.
Key = tuple[str, int, int, int]

#: What each family's addresses are called; with any other choice, those of both are looked for.
_FAMILIES = {frozenset([IPv4Address]): socket.AF_INET, frozenset([IPv6Address]): socket.AF_INET6}
_SOCKETS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


@implementer(IHostnameResolver)
class HostResolver:
    """The reactor's resolver."""

    def __init__(self, reactor: Any, getaddrinfo: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._reactor = reactor
        self._getaddrinfo = getaddrinfo
        self._waiting: dict[Key, list[IResolutionReceiver]] = {}

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
        resolution = _Resolution(hostName, lambda: self._leave(key, resolutionReceiver))
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            _tell([resolutionReceiver], self._look_up(key))
        elif key in self._waiting:
            self._waiting[key].append(resolutionReceiver)
        else:
            threading.Thread(target=self._look_up_in_thread, args=(key,), name="name", daemon=True).start()
            self._waiting[key] = [resolutionReceiver]
        return resolution

    def _look_up_in_thread(self, key: Key) -> None:
        found = self._look_up(key)
        self._reactor.callFromThread(self._found, key, found)

    def _look_up(self, key: Key) -> Any:
        try:
            return self._getaddrinfo(*key)
        except (OSError, UnicodeError):
            return []

    def _found(self, key: Key, found: Any) -> None:
        _tell(self._waiting.pop(key), found)

    def _leave(self, key: Key, receiver: IResolutionReceiver) -> None:
        # The thread goes on, and who asks next has what it finds.
        if receiver in self._waiting.get(key, ()):
            self._waiting[key].remove(receiver)


def _tell(receivers: list[IResolutionReceiver], found: Any) -> None:
    for receiver in receivers:
        for family, kind, _, _, address in found:
            semantics: Literal["TCP", "UDP"] = "TCP" if kind == socket.SOCK_STREAM else "UDP"
            if family == socket.AF_INET:
                receiver.addressResolved(IPv4Address(semantics, *address))
            elif family == socket.AF_INET6:
                receiver.addressResolved(IPv6Address(semantics, *address))
        receiver.resolutionComplete()


@implementer(IHostResolution)
class _Resolution:
    """One question."""

    def __init__(self, name: str, cancel: Callable[[], None]) -> None:
        self.name = name
        self._cancel = cancel

    def cancel(self) -> None:
        """Hear nothing more of it."""
        self._cancel()
