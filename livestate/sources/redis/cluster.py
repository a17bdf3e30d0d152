"""A key in a Redis Cluster: it is read from the node that has the key's slot, wherever that is now.

A node that has not the key says who has (MOVED, ASK), and one that was cut off from the others for the cluster's
node timeout says so (CLUSTERDOWN): whatever a node answers a GET with can be believed, so nobody needs to be asked
beside. Only when there is no node to ask, at the start and after a failure, some of those that are named and those that
were heard of are asked at once where the slot is (CLUSTER SLOTS), and the first good answer counts.

    nowhere --CLUSTER SLOTS--> at a node --MOVED--> at another node
    at a node --ASK--> there still; this once the other node is asked (the slot is being moved)
    at a node --any failure--> nowhere
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

#: How often one question may be sent on. A slot that is moved while it is asked for takes two.
REDIRECTIONS = 5

#: How many nodes are asked at once where a slot is, of those that are named and of those that were heard of.
_ASKED = 4

#: Bytes: more than any value in a reply to CLUSTER SLOTS.
_MAX_SIZE = 65536


class _Node(NamedTuple):
    address: NodeAddress
    kept: PersistentConnection


class ClusterDeployment:
    """Finds the node to ask. See the module's docstring."""

    log = Logger()

    def __init__(
        self, servers: Servers, addresses: tuple[NodeAddress, ...], key: bytes, *, max_size: int, source: str
    ) -> None:
        """Ask those of `servers` that are at `addresses`, or that these tell of, for `key`.

        :param max_size: the most bytes a value may have.
        :param source: the name of what is read, in log lines.
        """
        self.database = 0
        self.moved: Callable[[], None] = lambda: None
        self._servers = servers
        self._named = addresses
        self._heard_of: tuple[NodeAddress, ...] = ()
        self._slot = slot_of(key)
        self._max_size = max_size
        self._source = source
        self._node: _Node | None = None
        #: The node that the cluster named last, the one that was asked last, and the one that `connect` gave last.
        self._told: NodeAddress | None = None
        self._last: NodeAddress | None = None
        self._heard: NodeAddress | None = None

    async def connect(self, make: Callable[[], P]) -> P:
        """Connect what `make` makes to the node that has the key."""
        address = self._node.address if self._node is not None else await self._find()
        try:
            protocol = await self._servers.at(address).connect(make)
        except BaseException:
            # The next read may be far off: who comes next looks for the node anew.
            if self._node is not None and self._node.address == address:
                self.disconnect()
            raise
        self._heard = address
        return protocol

    async def read(self, *command: object) -> object:
        """Ask the node that was asked before, or else look for it."""
        if self._node is not None:
            try:
                return await self._follow(self._node, (command,))
            except SourceError:
                pass  # Whether the node is gone, or the cluster in trouble, is seen anew.
        return await self._follow(self._make(await self._find()), (command,))

    async def write(self, *commands: tuple[object, ...]) -> None:
        """Give these commands to the node that has the key."""
        await self._follow(self._node or self._make(await self._find()), commands)

    def disconnect(self) -> None:
        """Drop the connection."""
        node, self._node = self._node, None
        if node is not None:
            node.kept.drop()

    async def _follow(self, node: _Node, commands: tuple[tuple[object, ...], ...]) -> object:
        """Ask a node, and those that it sends to; after any failure there is no node to ask."""
        self._node = None
        try:
            for _ in range(REDIRECTIONS + 1):
                try:
                    answer = await node.kept.ask(*commands)
                except ErrorReply as error:
                    there = redirection(error.answer, node.address)
                    if there is None:
                        raise
                    if there.asking:
                        answer = await self._ask_once(there.address, commands)
                    else:
                        node = self._make(there.address)
                        continue
                self._stay(node)
                return answer
        except SourceError as error:
            raise SourceError(f"{node.address}: {error}") from None
        raise SourceError(f"the nodes send on from one to the next, {REDIRECTIONS} times and more")

    async def _ask_once(self, address: NodeAddress, commands: tuple[tuple[object, ...], ...]) -> object:
        """Ask the node that a slot is being moved to.

        Within a transaction ASKING would be put off like the commands, too late for them: they are given singly. Those
        who are told then find the value in its place, as they would otherwise.
        """
        kept = PersistentConnection(self._servers.at(address), self._max_size)
        answer: object = None
        try:
            for command in commands:
                if command not in (("MULTI",), ("EXEC",)):
                    answer = await kept.ask(("ASKING",), command)
        finally:
            kept.drop()
        return answer

    async def _find(self) -> NodeAddress:
        """Ask where the slot is.

        :raises SourceError: no node says it.
        """
        others = [address for address in self._heard_of if address not in self._named]
        asked = [*_some(self._named), *_some(others)]
        questions = [Deferred.fromCoroutine(self._slots_of(address)) for address in asked]
        try:
            _, owners = await race(questions)
        except FailureGroup as group:
            for failure in group.failures:
                failure.trap(SourceError)
            troubles = sorted({str(failure.value) for failure in group.failures})
            raise SourceError(f"no node of the cluster says where the key is: {'; '.join(troubles)}") from None
        self._heard_of = (*owners.others, owners.owner)
        if owners.owner != self._told:
            self._told = owners.owner
            self.log.info("{source}: the key is at the node {node}", source=self._source, node=str(owners.owner))
        return owners.owner

    async def _slots_of(self, address: NodeAddress) -> Owners:
        kept = PersistentConnection(self._servers.at(address), _MAX_SIZE)
        try:
            return owners_of(self._slot, await kept.ask(("CLUSTER", "SLOTS")), address)
        finally:
            kept.drop()

    def _stay(self, node: _Node) -> None:
        """Ask this node from now on."""
        self._node = node
        if node.address != self._last:
            self._last = node.address
            self.log.info("{source}: reading from the node {node}", source=self._source, node=str(node.address))
        if self._heard not in (None, node.address):
            self._heard = None
            self.moved()

    def _make(self, address: NodeAddress) -> _Node:
        return _Node(address, PersistentConnection(self._servers.at(address), self._max_size))


def _some(nodes: Sequence[NodeAddress]) -> list[NodeAddress]:
    """Draw as many as are asked at once."""
    return random.sample(nodes, min(len(nodes), _ASKED))
