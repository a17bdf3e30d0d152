"""Fake Redis servers, Sentinels and cluster nodes, controlled by a test."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from livestate.errors import SourceError
from livestate.sources.redis.connection import ErrorReply, Login
from livestate.sources.redis.slots import SLOTS, slot_of
from livestate.sources.redis.url import NodeAddress


def refusal(text: str) -> ErrorReply:
    """Return the error that is raised when Redis answers with this one."""
    return ErrorReply(f"Redis answered: {text}", text)


class Connection:
    """A fake connection to one node."""

    def __init__(self, node: "Node") -> None:
        self.connected = 1
        self.asking = False
        self.queue: list[tuple[Any, ...]] | None = None
        self._node = node
        self._waiting: list[Deferred[None]] = []

    async def ask(self, *command: Any, refusal: str = "") -> Any:
        """Return the node's answer, or wait while it hangs."""
        if not self.connected:
            raise SourceError("Not connected")
        if self._node.hangs:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        return self._node.answer(self, command)

    def abort(self) -> None:
        """Close the connection, and fail the commands that wait."""
        self._node.connections.discard(self)
        self.connected = 0
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.errback(SourceError("Lost connection"))


class Node:
    """A fake server of Redis's protocol."""

    def __init__(self, world: "World", address: NodeAddress) -> None:
        self.address = address
        self.world = world
        self.up = True
        self.hangs = False
        #: If this is a list, each attempt to connect waits, and is appended to it.
        self.late: list[Deferred[None]] | None = None
        self.connections: set[Connection] = set()
        self.connected = 0

    async def connect(self, make_protocol: Callable[[], Any]) -> Any:
        """Connect, as RedisServer does, but without making a protocol."""
        self.connected += 1
        if self.late is not None:
            waiting: Deferred[None] = Deferred()
            self.late.append(waiting)
            await waiting
        if not self.up:
            raise SourceError("connection refused")
        connection = Connection(self)
        self.connections.add(connection)
        return connection

    def kill(self) -> None:
        """Stop the node, and close its connections."""
        self.up = False
        for connection in list(self.connections):
            connection.abort()

    def answer(self, connection: Connection, command: tuple[Any, ...]) -> Any:
        """Return the answer to one command."""
        raise NotImplementedError


class Sentinel(Node):
    """A Sentinel that reports the state of the world, unless `primary` or `epoch` is set."""

    primary: NodeAddress | None = None
    epoch: int | None = None

    def answer(self, connection: Connection, command: tuple[Any, ...]) -> Any:
        world = self.world
        _, what, service = command
        if service != "svc":
            if what == "GET-MASTER-ADDR-BY-NAME":
                return None
            raise refusal("ERR No such master with that name")
        if what == "GET-MASTER-ADDR-BY-NAME":
            host, port = self.primary or world.primary
            return [host.encode(), str(port).encode()]
        if what == "MASTER":
            return [b"name", b"svc", b"config-epoch", str(world.epoch if self.epoch is None else self.epoch).encode()]
        return [
            [b"ip", node.address.host.encode(), b"port", str(node.address.port).encode(), b"flags",
             b"slave" if node.address not in world.down else b"s_down,slave", b"master-link-status", b"ok"]
            for node in world.data if node.address != world.primary
        ]  # fmt: skip


class Data(Node):
    """A server that has the key."""

    primary = False
    linked = True
    #: The version of the value that it has; this is also its replication offset.
    version = 0

    def answer(self, connection: Connection, command: tuple[Any, ...]) -> Any:
        if command[0] == "ROLE":
            if self.primary:
                return [b"master", self.version, []]
            return [b"slave", b"h", 1, b"connected" if self.linked else b"connect", self.version]
        if command[0] == "GET":
            return str(self.version).encode()
        if not self.primary:
            raise refusal("READONLY You can't write against a read only replica.")
        self.world.written.append((self.address, command))
        return "OK"


class World:
    """A primary, two replicas and three Sentinels. Takes the place of `Servers`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.login = Login()
        self.sentinels = [Sentinel(self, NodeAddress("s", port)) for port in (1, 2, 3)]
        self.data = [Data(self, NodeAddress("d", port)) for port in (1, 2, 3)]
        self.data[0].primary = True
        self.primary = self.data[0].address
        self.epoch = 0
        self.down: set[NodeAddress] = set()
        self.written: list[Any] = []

    def at(self, address: NodeAddress) -> Any:
        return next(node for node in [*self.sentinels, *self.data] if node.address == address)

    def leader(self) -> Data:
        """Return the primary by the Sentinels' account."""
        node: Data = self.at(self.primary)
        return node

    def promote(self, node: Data) -> None:
        """Make a replica the new primary."""
        self.leader().primary = False
        node.primary = True
        self.primary = node.address
        self.epoch += 1

    def open(self) -> int:
        """Return the number of open connections."""
        return sum(len(node.connections) for node in [*self.sentinels, *self.data])


class ClusterNode(Node):
    """A node of a cluster, which knows the node that has the slot."""

    owner: NodeAddress
    #: The value of the key. A node without it that is moving the slot redirects to `moves_to`.
    value: bytes | None = None
    moves_to: NodeAddress | None = None
    takes = False
    down = ""

    def answer(self, connection: Connection, command: tuple[Any, ...]) -> Any:
        if command[:2] == ("CLUSTER", "SLOTS"):
            if self.down:
                raise refusal(self.down)
            nodes = [[node.address.host.encode(), node.address.port, b"id"] for node in self.world.nodes]  # type: ignore[attr-defined]
            nodes.sort(key=lambda node: node[1] != self.owner.port)
            return [[0, SLOTS - 1, *nodes]]
        asking, connection.asking = connection.asking, command == ("ASKING",)
        if command in (("ASKING",), ("MULTI",), ("EXEC",)) or command[0] == "PUBLISH":
            self.world.written.append((self.address.port, command[0]))
            return "OK"
        if self.down:
            raise refusal(self.down)
        slot = slot_of(b"k")
        if self.owner != self.address and not (self.takes and asking):
            raise refusal(f"MOVED {slot} {self.owner}")
        if self.moves_to and self.value is None:
            raise refusal(f"ASK {slot} {self.moves_to}")
        if command[0] == "SET":
            self.value = command[2]
            self.world.written.append((self.address.port, "SET"))
            return "OK"
        return self.value


class ClusterWorld(World):
    """Four nodes, of which the first has the slot of all keys."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.nodes = [ClusterNode(self, NodeAddress("n", port)) for port in (1, 2, 3, 4)]
        self.own(self.nodes[0])
        self.nodes[0].value = b"1"

    def own(self, node: ClusterNode) -> None:
        """Assign the slot to a node, and let all nodes know."""
        for each in self.nodes:
            each.owner = node.address

    def at(self, address: NodeAddress) -> Any:
        return next(node for node in self.nodes if node.address == address)

    def open(self) -> int:
        return sum(len(node.connections) for node in self.nodes)
