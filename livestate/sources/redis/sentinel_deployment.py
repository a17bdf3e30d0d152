"""A key in a Redis that Sentinels watch over: it is read from the primary, wherever that is now, or from a replica.

What the Sentinels say is a hint, and the server itself is asked for its role (ROLE) when it is connected to and after
each read: the value of a server with another role than the wanted one is not taken. Whatever fails, the Sentinels are
asked anew. They are asked once a second too (`LOOK_EACH`), beside the reads: a primary that was cut off believes in
itself, and only they know better. When they are silent, what is being read is read on, and the log says so.

With `read_from=prefer_replica` a replica is read, one and the same as long as it is well, since another may be further
behind. Which one is drawn by lot, so that several livestates spread. ROLE gives the offset in the stream of
replication: a replica that is behind what was read before is passed over, and so is one that has lost its primary.
Where none is left the primary is read, and replicas are tried again after `SHUN`.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.errors import LivestateError, SourceError
from livestate.sources.redis.connection import P, Servers
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.role import Role, check_role, role_of
from livestate.sources.redis.sentinels import Sentinels
from livestate.sources.redis.url import NodeAddress
from livestate.system.timeouts import with_timeout

#: Seconds from one look at what the Sentinels say to the next.
LOOK_EACH = 1.0

#: Seconds that a replica has to take a connection and tell its role: so that the primary, or another replica, can be
#: read within the same fetch of 0.8 s.
LONGEST_TRY = 0.25

#: Seconds for which a replica that could not be read is not tried again.
SHUN = 5.0


class _Server(NamedTuple):
    address: NodeAddress
    primary: bool
    kept: PersistentConnection

    async def ask(self, *commands: tuple[object, ...]) -> object:
        try:
            return await self.kept.ask(*commands)
        except SourceError as error:
            raise SourceError(f"{self.address}: {error}") from None


class SentinelDeployment:
    """Finds the server to read, and notices when it is another one. See the module's docstring."""

    log = Logger()

    def __init__(
        self,
        clock: Any,
        servers: Servers,
        sentinels: Sentinels,
        *,
        prefer_replica: bool,
        max_size: int,
        source: str,
    ) -> None:
        """Read from those of `servers` that `sentinels` name.

        :param max_size: the most bytes a value may have.
        :param source: the name of what is read, in log lines.
        """
        self.database = servers.login.database
        self.moved: Callable[[], None] = lambda: None
        self._clock = clock
        self._servers = servers
        self._sentinels = sentinels
        self._prefer_replica = prefer_replica
        self._max_size = max_size
        self._source = source
        self._lot = random.random()  # noqa: S311  # spreading load is no secret
        #: What is being read, if anything is.
        self._server: _Server | None = None
        #: The primary by the Sentinels' last word, the server that was read last, and the one that `connect` gave last.
        self._told: NodeAddress | None = None
        self._last: NodeAddress | None = None
        self._heard: NodeAddress | None = None
        #: How much of the stream of replication the server that was read last had, at least.
        self._offset = 0
        self._looking: Deferred[None] | None = None
        self._looked = -LOOK_EACH
        #: Replicas that could not be read, and until when they are passed over.
        self._shunned: dict[NodeAddress, float] = {}
        self._silent = self._alone = False

    async def connect(self, make: Callable[[], P]) -> P:
        """Connect what `make` makes to the server that is being read, or will be."""
        address, primary = self._server[:2] if self._server else (await self._candidates())[0]
        try:
            protocol = await self._servers.at(address).connect(make)
            try:
                check_role(role_of(await protocol.ask("ROLE")), primary)
            except BaseException:
                protocol.abort()
                raise
        except BaseException:
            # The next read may be far off: who comes next looks for another server.
            if self._server is not None and self._server.address == address:
                self._leave()
            if not primary:
                self._shunned[address] = self._clock.seconds() + SHUN
            raise
        self._heard = address
        return protocol

    async def read(self, *command: object) -> object:
        """Ask the server that was asked before, or else look for one."""
        self._look_if_due()
        while self._server is not None:
            try:
                return await self._read(self._server, command)
            except SourceError:
                pass  # It is left. Who takes its place is what the Sentinels are asked.
        return await self._find(command)

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Give these commands to the primary."""
        address = await self._sentinels.primary()
        server = self._server
        if server is None or (server.address, server.primary) != (address, True):
            server = self._make(address, True)
            self._stay(server)
        try:
            await self._see_role(server)
            await server.ask(*commands)
        except BaseException:
            self._leave()
            raise

    def disconnect(self) -> None:
        """Drop all connections."""
        self._leave()
        self._sentinels.disconnect()
        if self._looking is not None:
            self._looking.cancel()

    async def _read(self, server: _Server, command: tuple[object, ...]) -> object:
        """Read from a server, and see that it is still what it should be; after any failure it is left."""
        try:
            value = await server.ask(command)
            # Asked after the value was: the value is not newer than this offset.
            self._offset = (await self._see_role(server)).offset
        except BaseException:
            server.kept.drop()
            if self._server is server:
                self._server = None
            raise
        return value

    async def _see_role(self, server: _Server) -> Role:
        role = role_of(await server.ask(("ROLE",)))
        try:
            check_role(role, server.primary)
        except SourceError as error:
            raise SourceError(f"{server.address}: {error}") from None
        return role

    async def _candidates(self) -> list[tuple[NodeAddress, bool]]:
        """Give the servers to try, in this order, and whether each is the primary."""
        self._looked = self._clock.seconds()
        primary = await self._sentinels.primary()
        if primary != self._told:
            self._told = primary
            self.log.info(
                "{source}: the Sentinels name {primary} as the primary", source=self._source, primary=str(primary)
            )
        replicas = await self._sentinels.replicas() if self._prefer_replica else ()
        now = self._clock.seconds()
        self._shunned = {address: until for address, until in self._shunned.items() if until > now}
        drawn = sorted(set(replicas) - self._shunned.keys(), key=self._by_lot)
        return [*((address, False) for address in drawn), (primary, True)]

    async def _find(self, command: tuple[object, ...]) -> object:
        """Read from the first of the candidates that can be read, and stay with it.

        :raises SourceError: no Sentinel says where the primary is, or it cannot be read.
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
                self._stay(replica)
                return value
        server = self._make(primary, True)
        value = await self._read(server, command)
        self._stay(server)
        if self._prefer_replica and not self._alone:
            self._alone = True
            reason = "; ".join(troubles) or "the Sentinels know of none that is well"
            self.log.warn(
                "{source}: no replica can be read ({reason}): the primary is", source=self._source, reason=reason
            )
        return value

    async def _try(self, address: NodeAddress, troubles: list[str]) -> _Server | None:
        """Connect to a replica, and give it if it may be read; what is wrong is added to `troubles`."""
        replica = self._make(address, False)
        self._shunned[address] = self._clock.seconds() + SHUN
        try:
            role = await with_timeout(LONGEST_TRY, self._see_role(replica), self._clock)
        except SourceError as error:
            troubles.append(str(error))
        except DeferTimeout:
            troubles.append(f"{address}: no answer within {LONGEST_TRY:g} s")
        else:
            if role.offset >= self._offset:
                return replica
            troubles.append(f"{address}: behind what was read before")
        replica.kept.drop()
        return None

    def _look_if_due(self) -> None:
        """Ask the Sentinels, beside the reading, whether the server that is read is still the right one."""
        due = self._clock.seconds() >= self._looked + LOOK_EACH
        if self._server is not None and due and (self._looking is None or self._looking.called):
            self._looking = Deferred.fromCoroutine(self._look()).addErrback(self._looked_in_vain)

    async def _look(self) -> None:
        candidates = await self._candidates()
        if self._silent:
            self._silent = False
            self.log.info("{source}: the Sentinels answer again", source=self._source)
        server = self._server
        if server is not None and (server.address, server.primary) not in candidates:
            self._leave()
            self._listen_elsewhere(None)
        elif server is not None and server.primary:
            for address, _ in candidates[:-1]:
                replica = await self._try(address, [])
                if replica is not None:
                    self._stay(replica)
                    return

    def _looked_in_vain(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if not failure.check(LivestateError):
            self.log.failure("looking after {source} failed in a way that it should not", failure, source=self._source)
        elif self._server is not None and not self._silent:
            self._silent = True
            self.log.warn(
                "{source}: {trouble}; reading on from {server}, which says that it is what it was",
                source=self._source, trouble=str(failure.value), server=str(self._server.address),
            )  # fmt: skip

    def _stay(self, server: _Server) -> None:
        """Read from this server from now on."""
        if self._server is not server:
            self._leave()
        self._server = server
        self._shunned.pop(server.address, None)
        if not server.primary:
            self._alone = False
        if server.address != self._last:
            self._last = server.address
            kind = "primary" if server.primary else "replica"
            self.log.info(
                "{source}: reading from the {kind} {server}", source=self._source, kind=kind, server=str(server.address)
            )
        self._listen_elsewhere(server.address)

    def _listen_elsewhere(self, address: NodeAddress | None) -> None:
        """Tell the one that listens, unless it does so at this server."""
        if self._heard not in (None, address):
            self._heard = None
            self.moved()

    def _leave(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.kept.drop()

    def _make(self, address: NodeAddress, primary: bool) -> _Server:
        return _Server(address, primary, PersistentConnection(self._servers.at(address), self._max_size))

    def _by_lot(self, address: NodeAddress) -> float:
        return random.Random(f"{self._lot} {address}").random()  # noqa: S311  # as above
