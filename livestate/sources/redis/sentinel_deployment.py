"""A key in a Redis behind Sentinels, read from the current primary or from a replica.

What the Sentinels say is only a hint. livestate asks the server itself for its role (ROLE) when it connects and after
each read, and does not accept a value from a server with the wrong role. After any failure it asks the Sentinels again.
It also asks them once a second (`CHECK_INTERVAL`), independently of the reads, because a primary that was cut off still
considers itself the primary and only the Sentinels know better. While they are silent, livestate continues to read from
the same server and logs that.

With `read_from=prefer_replica` it reads from a replica, and stays with it as long as it is healthy, since another may
be further behind. The choice is random, so that several livestates spread over the replicas. ROLE also reports the
offset in the replication stream: a replica that is behind the last value read is skipped, and so is one that has lost
its primary. If no replica is left, livestate reads from the primary, and tries replicas again after `RETRY_DELAY`.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.errors import LivestateError, SourceError
from livestate.sources.redis.connection import P, RedisServer, Servers, UnusableValue
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.role import Role, check_role, role_of
from livestate.sources.redis.sentinels import Sentinels
from livestate.sources.redis.url import NodeAddress
from livestate.system.timeouts import with_timeout

#: Seconds between two checks with the Sentinels.
CHECK_INTERVAL = 1.0

#: The timeout in seconds for connecting to a replica and asking its role. It leaves enough time to read from another
#: replica or the primary within the same fetch, whose timeout is 0.8 s.
REPLICA_TIMEOUT = 0.25

#: Seconds until a replica that could not be read is tried again.
RETRY_DELAY = 5.0


class _Server(NamedTuple):
    address: NodeAddress
    primary: bool
    connection: PersistentConnection

    async def ask(self, *commands: tuple[object, ...]) -> object:
        try:
            return await self.connection.ask(*commands)
        except UnusableValue:
            raise
        except SourceError as error:
            raise SourceError(f"{self.address}: {error}") from None


class SentinelDeployment:
    """Finds the server to read from, and notices when that changes. See the module's docstring."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        servers: Servers,
        sentinels: Sentinels,
        *,
        prefer_replica: bool,
        make_connection: Callable[[RedisServer], PersistentConnection],
        source: str,
    ) -> None:
        """Prepare to read from the servers that `sentinels` name.

        :param prefer_replica: whether to read from a replica as long as one is healthy.
        :param make_connection: makes the connection to the server that is read.
        :param source: the name of the source, for log lines.
        """
        self.database = servers.login.database
        self.moved: Callable[[], None] = lambda: None
        self._clock = clock
        self._servers = servers
        self._sentinels = sentinels
        self._prefer_replica = prefer_replica
        self._make_connection = make_connection
        self._source = source
        self._seed = random.random()  # noqa: S311  # spreading load is no secret
        #: The server that is read from, if any.
        self._server: _Server | None = None
        #: The primary that the Sentinels named last, the server that was read last, and the one that `connect` last
        #: connected to.
        self._primary: NodeAddress | None = None
        self._last_read: NodeAddress | None = None
        self._subscribed: NodeAddress | None = None
        #: A lower bound of the replication offset that belongs to the last value read.
        self._offset = 0
        self._checking: Deferred[None] | None = None
        self._last_check = -CHECK_INTERVAL
        #: Replicas that could not be read, and the time until which they are skipped.
        self._skipped: dict[NodeAddress, float] = {}
        #: Whether it has been logged that no Sentinel responds, and that no replica is usable.
        self._sentinels_silent = self._no_replica = False

    async def connect(self, make_protocol: Callable[[], P]) -> P:
        """Connect a new protocol to the server that is read from, or will be."""
        address, primary = self._server[:2] if self._server else (await self._candidates())[0]
        try:
            protocol = await self._servers.at(address).connect(make_protocol)
            try:
                check_role(role_of(await protocol.ask("ROLE")), primary)
            except BaseException:
                protocol.abort()
                raise
        except BaseException:
            # The next read may be far off, so forget the server here: the next caller then looks for another one.
            if self._server is not None and self._server.address == address:
                self._drop_server()
            if not primary:
                self._skipped[address] = self._clock.seconds() + RETRY_DELAY
            raise
        self._subscribed = address
        return protocol

    async def read(self, *command: object) -> object:
        """Send a command to the server that was read last, or find another one, and return the answer."""
        self._check_if_due()
        while self._server is not None:
            try:
                return await self._read(self._server, command)
            except UnusableValue:
                raise
            except SourceError:
                pass  # The server has been dropped; the Sentinels know which one replaces it.
        return await self._find(command)

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Send commands to the primary."""
        address = await self._sentinels.primary()
        server = self._server
        if server is None or (server.address, server.primary) != (address, True):
            server = self._make(address, True)
            self._use(server)
        try:
            await self._check_role(server)
            await server.ask(*commands)
        except BaseException:
            self._drop_server()
            raise

    def disconnect(self) -> None:
        """Close all connections."""
        self._drop_server()
        self._sentinels.disconnect()
        if self._checking is not None:
            self._checking.cancel()

    async def _read(self, server: _Server, command: tuple[object, ...]) -> object:
        """Read from a server, and check that it still has its role. After any failure the server is dropped."""
        try:
            value = await server.ask(command)
            # As the role is asked for after the value, the value is not newer than this offset.
            self._offset = (await self._check_role(server)).offset
        except UnusableValue:
            raise
        except BaseException:
            server.connection.drop()
            if self._server is server:
                self._server = None
            raise
        return value

    async def _check_role(self, server: _Server) -> Role:
        role = role_of(await server.ask(("ROLE",)))
        try:
            check_role(role, server.primary)
        except SourceError as error:
            raise SourceError(f"{server.address}: {error}") from None
        return role

    async def _candidates(self) -> list[tuple[NodeAddress, bool]]:
        """Return the servers to try, in order, and whether each is the primary."""
        self._last_check = self._clock.seconds()
        primary = await self._sentinels.primary()
        if primary != self._primary:
            self._primary = primary
            self.log.info(
                "{source}: the Sentinels name {primary} as the primary", source=self._source, primary=str(primary)
            )
        replicas = await self._sentinels.replicas() if self._prefer_replica else ()
        now = self._clock.seconds()
        self._skipped = {address: until for address, until in self._skipped.items() if until > now}
        shuffled = sorted(set(replicas) - self._skipped.keys(), key=self._shuffle_key)
        return [*((address, False) for address in shuffled), (primary, True)]

    async def _find(self, command: tuple[object, ...]) -> object:
        """Read from the first usable candidate, and use it from then on.

        :raises SourceError: when no Sentinel names the primary, or nothing can be read.
        """
        *replicas, (primary, _) = await self._candidates()
        troubles: list[str] = []
        for address, _ in replicas:
            replica = await self._try(address, troubles)
            if replica is not None:
                try:
                    value = await self._read(replica, command)
                except SourceError as error:
                    troubles.append(str(error))
                    continue
                self._use(replica)
                return value
        server = self._make(primary, True)
        value = await self._read(server, command)
        self._use(server)
        if self._prefer_replica and not self._no_replica:
            self._no_replica = True
            reason = "; ".join(troubles) or "the Sentinels know of no healthy replica"
            self.log.warn(
                "{source}: no replica is usable ({reason}); reading from the primary",
                source=self._source, reason=reason,
            )  # fmt: skip
        return value

    async def _try(self, address: NodeAddress, troubles: list[str]) -> _Server | None:
        """Connect to a replica, and return it if it is usable.

        :param troubles: the list to add the reason to when it is not.
        """
        replica = self._make(address, False)
        self._skipped[address] = self._clock.seconds() + RETRY_DELAY
        try:
            role = await with_timeout(REPLICA_TIMEOUT, self._check_role(replica), self._clock)
        except SourceError as error:
            troubles.append(str(error))
        except DeferTimeout:
            troubles.append(f"{address}: no answer within {REPLICA_TIMEOUT:g} s")
        else:
            if role.offset >= self._offset:
                return replica
            troubles.append(f"{address}: behind the last value read")
        replica.connection.drop()
        return None

    def _check_if_due(self) -> None:
        """Start a check with the Sentinels, in the background, if the last one was long enough ago."""
        due = self._clock.seconds() >= self._last_check + CHECK_INTERVAL
        if self._server is not None and due and (self._checking is None or self._checking.called):
            self._checking = Deferred.fromCoroutine(self._check()).addErrback(self._check_failed)

    async def _check(self) -> None:
        """Ask the Sentinels whether the server that is read from is still the right one."""
        candidates = await self._candidates()
        if self._sentinels_silent:
            self._sentinels_silent = False
            self.log.info("{source}: the Sentinels respond again", source=self._source)
        server = self._server
        if server is not None and (server.address, server.primary) not in candidates:
            self._drop_server()
            self._subscribe_elsewhere(None)
        elif server is not None and server.primary:
            for address, _ in candidates[:-1]:
                replica = await self._try(address, [])
                if replica is not None:
                    self._use(replica)
                    return

    def _check_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if not failure.check(LivestateError):
            self.log.failure(
                "unexpected error while checking the Sentinels of {source}; retrying", failure, source=self._source
            )
        elif self._server is not None and not self._sentinels_silent:
            self._sentinels_silent = True
            self.log.warn(
                "{source}: {trouble}; still reading from {server}, which reports the same role as before",
                source=self._source, trouble=str(failure.value), server=str(self._server.address),
            )  # fmt: skip

    def _use(self, server: _Server) -> None:
        """Read from this server in future."""
        if self._server is not server:
            self._drop_server()
        self._server = server
        self._skipped.pop(server.address, None)
        if not server.primary:
            self._no_replica = False
        if server.address != self._last_read:
            self._last_read = server.address
            kind = "primary" if server.primary else "replica"
            self.log.info(
                "{source}: reading from the {kind} {server}", source=self._source, kind=kind, server=str(server.address)
            )
        self._subscribe_elsewhere(server.address)

    def _subscribe_elsewhere(self, address: NodeAddress | None) -> None:
        """Call `moved`, unless the subscription is on this server already."""
        if self._subscribed not in (None, address):
            self._subscribed = None
            self.moved()

    def _drop_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.connection.drop()

    def _make(self, address: NodeAddress, primary: bool) -> _Server:
        return _Server(address, primary, self._make_connection(self._servers.at(address)))

    def _shuffle_key(self, address: NodeAddress) -> float:
        return random.Random(f"{self._seed} {address}").random()  # noqa: S311  # spreading load
