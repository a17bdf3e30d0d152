"""How many connections there may be, in all and of one address; those above are closed as they come.

Theory of operation. A site asks its Admission before it makes anything for a connection: the open ones are in a set
already, and their number is all that a limit in all needs. Only where there is a limit for each address are they
counted by address too.

An address is what one customer of a network has: of IPv6, that is a prefix, with as many addresses in it as he likes
(RFC 6177: a /64 at least). An IPv4 address that is written as one of IPv6 (RFC 4291 section 2.5.5.2), as on sockets
for both, is itself. Readers on Unix sockets have no address, and those behind a proxy all have the proxy's.
"""

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol
from twisted.logger import Logger

if TYPE_CHECKING:
    from livestate.web.http1.channel import LiveChannel

#: Seconds between two lines of the log about those who were refused, at least.
PAUSE = 60.0

#: Why a connection may be refused, and the option that says so.
REASONS = {"total": "--max-connections", "address": "--max-connections-per-address"}

_MAPPED = bytes(10) + b"\xff\xff"


class RefusedConnection(Protocol):
    """What a connection gets that is refused, where the transport has been made already."""

    def connectionMade(self) -> None:
        """End."""
        transport: Any = self.transport
        transport.abortConnection()


class ConnectionsByAddress(set["LiveChannel"]):
    """The open connections, counted by address as well."""

    def __init__(self, prefix: int) -> None:
        """:param prefix: how many bits of an IPv6 address count."""
        super().__init__()
        self._shift = 128 - prefix
        self._networks: dict[object, object] = {}
        self._counts: dict[object, int] = {}

    def add(self, channel: "LiveChannel") -> None:
        """Count one that has come."""
        super().add(channel)
        network = self._networks[channel] = self._network_of(channel.transport.getPeer())
        self._counts[network] = self._counts.get(network, 0) + 1

    def discard(self, channel: object) -> None:
        """Count one that has gone."""
        super().discard(channel)
        if channel in self._networks:
            network = self._networks.pop(channel)
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]

    def of(self, address: Any) -> int:
        """Give how many there are of the network that `address` is in; none of what has no network."""
        network = self._network_of(address)
        return 0 if network is None else self._counts.get(network, 0)

    def _network_of(self, address: Any) -> object:
        host: str | None = getattr(address, "host", None)
        if host is None or ":" not in host:
            return host
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        if packed.startswith(_MAPPED):
            return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :])
        return int.from_bytes(packed, "big") >> self._shift


class Admission:
    """Says who may connect to a site."""

    log = Logger()

    def __init__(self, clock: Any, most: int | None, most_of_address: int | None, prefix: int) -> None:
        """Set limits.

        :param most: connections in all; None: no limit. So `most_of_address`.
        :param prefix: how many bits of an IPv6 address count.
        """
        #: The open connections, for the site to keep.
        self.channels: set[LiveChannel] = set() if most_of_address is None else ConnectionsByAddress(prefix)
        #: How many connections were refused, by reason.
        self.refused = dict.fromkeys(REASONS, 0)
        self._most = most
        self._most_of_address = most_of_address
        self._seconds = clock.seconds
        self._told = dict(self.refused)
        self._silent_until = 0.0
        # livestate's own reactor closes a connection without a protocol before it has made anything for it. Twisted's
        # TLS makes a transport first, and knows of no connection without a protocol.
        self._refusal = None if hasattr(clock, "run_after_poll") else RefusedConnection

    def admits(self, address: Any) -> bool:
        """Tell whether one from `address` may connect, and count it if not."""
        channels = self.channels
        if self._most is not None and len(channels) >= self._most:
            self._refuse("total")
            return False
        if isinstance(channels, ConnectionsByAddress) and channels.of(address) >= (self._most_of_address or 0):
            self._refuse("address")
            return False
        return True

    def refusal(self) -> Protocol | None:
        """Give what `buildProtocol` gives for one that may not."""
        return None if self._refusal is None else self._refusal()

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        now = self._seconds()
        if now < self._silent_until:
            return
        self._silent_until = now + PAUSE
        new = {why: number - self._told[why] for why, number in self.refused.items()}
        self._told = dict(self.refused)
        self.log.warn(
            "connections were refused: {why}; this is said once a minute at most",
            why=", ".join(f"{number} by {REASONS[why]}" for why, number in new.items() if number),
        )


def share(limit: int | None, workers: int) -> int | None:
    """Give one worker's part of a limit, rounded up; the kernel deals connections out evenly, but for chance."""
    return limit if limit is None else -(-limit // workers)
