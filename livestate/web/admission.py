"""Limits on the number of connections, in total and per address. Connections above a limit are closed on arrival.

Theory of operation. A site asks its Admission before it creates anything for a connection. The total is the size of the
set of open connections, which the site keeps anyway. Connections are counted by address only if there is a limit per
address.

"Address" means whatever one customer of a network has. In IPv6 that is a prefix, in which the customer can use any
number of addresses (RFC 6177: at least a /64). An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), as seen on
dual-stack sockets, counts as the IPv4 address. Clients on Unix sockets have no address. Clients behind a proxy all have
the proxy's, unless it names them by the PROXY protocol (`haproxy:` listeners).
"""

import socket
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from livestate.web.http1.connections import OpenConnection

#: Minimum seconds between two log lines about refused connections.
LOG_INTERVAL = 60.0

#: The reasons for refusing a connection, and the option that sets each limit.
REASONS = {"total": "--max-connections", "address": "--max-connections-per-address"}

_MAPPED = bytes(10) + b"\xff\xff"


class RefusedConnection(Protocol):
    """The protocol of a refused connection whose transport exists already."""

    def connectionMade(self) -> None:
        """Close the connection."""
        transport: Any = self.transport
        transport.abortConnection()


class ConnectionsByAddress(set[OpenConnection]):
    """The set of open connections, which also counts them by address."""

    def __init__(self, prefix: int) -> None:
        """:param prefix: how many leading bits of an IPv6 address identify a client."""
        super().__init__()
        self._shift = 128 - prefix
        self._networks: dict[object, object] = {}
        self._counts: dict[object, int] = {}

    def add(self, connection: OpenConnection) -> None:
        """Add a new connection."""
        super().add(connection)
        network = self._networks[connection] = self._network_of(connection.transport.getPeer())
        self._counts[network] = self._counts.get(network, 0) + 1

    def discard(self, connection: object) -> None:
        """Remove a closed connection."""
        super().discard(connection)
        if connection in self._networks:
            network = self._networks.pop(connection)
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]

    def of(self, address: Any) -> int:
        """Return the number of connections from the network of `address`; 0 if it has none (a Unix socket)."""
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
    """Decides which clients may connect to a site."""

    log = Logger()

    def __init__(self, clock: Any, limit: int | None, limit_per_address: int | None, prefix: int) -> None:
        """Set the limits.

        :param limit: the maximum number of connections; None: no limit.
        :param limit_per_address: the same for each address.
        :param prefix: how many leading bits of an IPv6 address identify a client.
        """
        #: The open connections. The site adds and removes them.
        self.open: set[OpenConnection] = set() if limit_per_address is None else ConnectionsByAddress(prefix)
        #: How many connections were refused, by reason.
        self.refused = dict.fromkeys(REASONS, 0)
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._seconds = clock.seconds
        self._logged = dict(self.refused)
        self._silent_until = 0.0
        # livestate's own reactor closes a connection without a protocol before it has created anything for it.
        # Twisted's TLS creates a transport first, and cannot handle a connection without a protocol.
        self._refusal = None if hasattr(clock, "run_after_poll") else RefusedConnection

    def admits(self, address: Any) -> bool:
        """Return whether a client from `address` may connect. If not, count the refusal."""
        if not self.has_room():
            return False
        if isinstance(self.open, ConnectionsByAddress) and self.open.of(address) >= (self._limit_per_address or 0):
            self._refuse("address")
            return False
        return True

    def has_room(self, waiting: int = 0) -> bool:
        """Return whether the total allows another connection. If not, count the refusal.

        :param waiting: the number of connections that a proxy has opened without having named the client yet.
        """
        if self._limit is None or len(self.open) + waiting < self._limit:
            return True
        self._refuse("total")
        return False

    def refusal(self) -> Protocol | None:
        """Return what `buildProtocol` should return for a client that may not connect."""
        return None if self._refusal is None else self._refusal()

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        now = self._seconds()
        if now < self._silent_until:
            return
        self._silent_until = now + LOG_INTERVAL
        new = {why: number - self._logged[why] for why, number in self.refused.items()}
        self._logged = dict(self.refused)
        self.log.warn(
            "refused connections above the limit: {why}; logged once a minute at most",
            why=", ".join(f"{number} by {REASONS[why]}" for why, number in new.items() if number),
        )


def share_per_worker(limit: int | None, workers: int) -> int | None:
    """Return one worker's share of a limit, rounded up: the kernel spreads connections evenly, apart from chance."""
    return limit if limit is None else -(-limit // workers)
