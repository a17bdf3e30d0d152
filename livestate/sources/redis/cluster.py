"""A key in a Redis Cluster, read from the node that has the key's slot now.

A node that does not have the key names the node that does (MOVED, ASK). A node that has been cut off from the others
for the cluster's node timeout reports that too (CLUSTERDOWN). So any answer to a GET can be trusted, and no other node
needs to be asked to confirm it. Only when no node is known, at the start and after a failure, does livestate ask
several nodes at once for the slot's node (CLUSTER SLOTS): some of those in the URL and some of those discovered. The
first good answer counts.

    no node --CLUSTER SLOTS--> at a node --MOVED--> at another node
    at a node --ASK--> at the same node; only this command goes to the other one (the slot is being moved)
    at a node --any failure--> no node
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, FailureGroup, race
from twisted.logger import Logger

from livestate.errors import SourceError
from livestate.sources.redis.connection import ErrorReply, P, Servers
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.slots import Owners, owners_of, redirection, slot_of
from livestate.sources.redis.url import NodeAddress

#: The maximum number of redirections for one command. If its slot is being moved, two are normal.
MAX_REDIRECTIONS = 5

#: How many nodes are asked for the slot at once, of those in the URL and of those discovered.
_SAMPLE_SIZE = 4

#: The maximum size of a value in a reply to CLUSTER SLOTS, in bytes; more than any has.
_MAX_SIZE = 65536


class _Node(NamedTuple):
    address: NodeAddress
    connection: PersistentConnection


class ClusterDeployment:
    """Finds the node that has the key. See the module's docstring."""

    log = Logger()

    def __init__(
        self, servers: Servers, addresses: tuple[NodeAddress, ...], key: bytes, *, max_size: int, source: str
    ) -> None:
        """Prepare to read `key` from the cluster that the nodes at `addresses` belong to.

        :param max_size: the maximum size of a value in bytes.
        :param source: the name of the source, for log lines.
        """
        self.database = 0
        self.moved: Callable[[], None] = lambda: None
        self._servers = servers
        self._seeds = addresses
        self._discovered: tuple[NodeAddress, ...] = ()
        self._slot = slot_of(key)
        self._max_size = max_size
        self._source = source
        self._node: _Node | None = None
        #: The slot's node by the last answer to CLUSTER SLOTS, the node that was last read from, and the node that
        #: `connect` last connected to.
        self._owner: NodeAddress | None = None
        self._last_read: NodeAddress | None = None
        self._subscribed: NodeAddress | None = None

    async def connect(self, make_protocol: Callable[[], P]) -> P:
        """Connect a new protocol to the node that has the key."""
        address = self._node.address if self._node is not None else await self._find()
        try:
            protocol = await self._servers.at(address).connect(make_protocol)
        except BaseException:
            # The next read may be far off, so forget the node here: the next caller then looks for it again.
            if self._node is not None and self._node.address == address:
                self.disconnect()
            raise
        self._subscribed = address
        return protocol

    async def read(self, *command: object) -> object:
        """Send a command to the node that was read last, or find the node first, and return the answer."""
        if self._node is not None:
            try:
                return await self._follow(self._node, (command,))
            except SourceError:
                pass  # The search below shows whether the node is gone or the cluster is down.
        return await self._follow(self._make(await self._find()), (command,))

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Send commands to the node that has the key."""
        await self._follow(self._node or self._make(await self._find()), commands)

    def disconnect(self) -> None:
        """Close the connection."""
        node, self._node = self._node, None
        if node is not None:
            node.connection.drop()

    async def _follow(self, node: _Node, commands: tuple[tuple[object, ...], ...]) -> object:
        """Send commands to a node, following redirections. After any failure no node is known."""
        self._node = None
        try:
            for _ in range(MAX_REDIRECTIONS + 1):
                try:
                    answer = await node.connection.ask(*commands)
                except ErrorReply as error:
                    target = redirection(error.answer, node.address)
                    if target is None:
                        raise
                    if target.asking:
                        answer = await self._ask_once(target.address, commands)
                    else:
                        node = self._make(target.address)
                        continue
                self._use(node)
                return answer
        except SourceError as error:
            raise SourceError(f"{node.address}: {error}") from None
        raise SourceError(f"the nodes redirected more than {MAX_REDIRECTIONS} times")

    async def _ask_once(self, address: NodeAddress, commands: tuple[tuple[object, ...], ...]) -> object:
        """Send commands to the node that the slot is being moved to.

        In a transaction ASKING would be queued too, and come too late for the commands; so they are sent one by one.
        Subscribers of a channel still find the new value when they are notified, as PUBLISH comes after SET.
        """
        connection = PersistentConnection(self._servers.at(address), self._max_size)
        answer: object = None
        try:
            for command in commands:
                if command not in (("MULTI",), ("EXEC",)):
                    answer = await connection.ask(("ASKING",), command)
        finally:
            connection.drop()
        return answer

    async def _find(self) -> NodeAddress:
        """Return the address of the slot's node, by the first node that knows it.

        :raises SourceError: when no node does.
        """
        others = [address for address in self._discovered if address not in self._seeds]
        asked = [*_sample(self._seeds), *_sample(others)]
        queries = [Deferred.fromCoroutine(self._query_slots(address)) for address in asked]
        try:
            _, owners = await race(queries)
        except FailureGroup as group:
            for failure in group.failures:
                failure.trap(SourceError)
            troubles = sorted({str(failure.value) for failure in group.failures})
            raise SourceError(f"no node of the cluster could locate the key: {'; '.join(troubles)}") from None
        self._discovered = (*owners.others, owners.owner)
        if owners.owner != self._owner:
            self._owner = owners.owner
            self.log.info("{source}: the key is on the node {node}", source=self._source, node=str(owners.owner))
        return owners.owner

    async def _query_slots(self, address: NodeAddress) -> Owners:
        connection = PersistentConnection(self._servers.at(address), _MAX_SIZE)
        try:
            return owners_of(self._slot, await connection.ask(("CLUSTER", "SLOTS")), address)
        finally:
            connection.drop()

    def _use(self, node: _Node) -> None:
        """Send further commands to this node."""
        self._node = node
        if node.address != self._last_read:
            self._last_read = node.address
            self.log.info("{source}: reading from the node {node}", source=self._source, node=str(node.address))
        if self._subscribed not in (None, node.address):
            self._subscribed = None
            self.moved()

    def _make(self, address: NodeAddress) -> _Node:
        return _Node(address, PersistentConnection(self._servers.at(address), self._max_size))


def _sample(nodes: Sequence[NodeAddress]) -> list[NodeAddress]:
    """Return a random sample of the nodes, small enough to ask all of them at once."""
    return random.sample(nodes, min(len(nodes), _SAMPLE_SIZE))
