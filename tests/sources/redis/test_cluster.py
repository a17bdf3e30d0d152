"""Reading from a fake Redis Cluster, while slots move and nodes fail."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SourceError
from livestate.sources.redis.cluster import MAX_REDIRECTIONS, ClusterDeployment
from livestate.sources.redis.url import NodeAddress
from livestate.system.timeouts import with_timeout
from tests.redis_world import ClusterWorld
from tests.support import few, log_lines


class ClusterTests(SynchronousTestCase):
    """Four nodes, of which one has the key and two are in the URL."""

    def setUp(self):
        self.clock = Clock()
        self.world = ClusterWorld(self.clock)
        self.nodes = self.world.nodes
        self.deployment = self.make(self.nodes[0].address, self.nodes[1].address)

    def make(self, *seeds: NodeAddress) -> ClusterDeployment:
        servers: Any = self.world
        return ClusterDeployment(servers, seeds, b"k", max_size=1000, source="redis+cluster://n/")

    def run_it(self, coroutine):
        results: list[Any] = []
        with_timeout(0.8, coroutine, self.clock).addBoth(results.append)
        self.clock.pump([0.1] * 9)
        [result] = results
        if hasattr(result, "trap"):
            result.trap(SourceError)
            return str(result.value)
        return result

    def fetch(self):
        return self.run_it(self.deployment.read("GET", b"k"))

    def publish(self):
        return self.run_it(self.deployment.write(("MULTI",), ("SET", b"k", b"2"), ("PUBLISH", "c", b"k"), ("EXEC",)))

    def open(self):
        return [len(node.connections) for node in self.nodes]

    def test_steady(self):
        """While all is well there is one connection, to the node that has the key."""
        with log_lines() as lines:
            for _ in range(20):
                self.assertEqual(self.fetch(), b"1")
        self.assertEqual(self.open(), [1, 0, 0, 0])
        self.assertEqual(sum(node.connected for node in self.nodes), 3)
        self.assertEqual(
            [line.removeprefix("redis+cluster://n/: ") for line in lines],
            ["the key is on the node n:1", "reading from the node n:1"],
        )

    def test_moved(self):
        """If a node no longer has the key, its redirection is followed, and the new node is used from then on."""
        self.fetch()
        self.world.own(self.nodes[2])
        self.nodes[2].value = b"2"
        for _ in range(3):
            self.assertEqual(self.fetch(), b"2")
        self.assertEqual(self.open(), [0, 0, 1, 0])
        self.assertEqual(self.nodes[2].connected, 1)

    def test_ask(self):
        """While the slot is being moved the key is read where it is, but the slot's node is still asked first."""
        self.fetch()
        source, target = self.nodes[0], self.nodes[3]
        source.moves_to, target.takes = target.address, True
        self.assertEqual(self.fetch(), b"1")
        source.value, target.value = None, b"1"
        for _ in range(3):
            self.assertEqual(self.fetch(), b"1")
        self.assertEqual(self.open()[3], 0)
        self.world.own(target)
        source.moves_to, target.takes = None, False
        self.assertEqual(self.fetch(), b"1")
        self.assertEqual(self.open(), [0, 0, 0, 1])

    def test_publish(self):
        """A write goes in one transaction to the node that has the key, also after a redirection."""
        self.publish()
        self.assertEqual(self.world.written, [(1, "MULTI"), (1, "SET"), (1, "PUBLISH"), (1, "EXEC")])
        self.world.own(self.nodes[2])
        self.world.written.clear()
        self.publish()
        self.assertEqual(self.world.written[1:], [(3, "MULTI"), (3, "SET"), (3, "PUBLISH"), (3, "EXEC")])

    def test_publish_while_moving(self):
        """While the slot is being moved a write goes to the new node, and PUBLISH comes after SET."""
        source, target = self.nodes[0], self.nodes[3]
        source.moves_to, target.takes, source.value = target.address, True, None
        self.publish()
        commands = [command for port, command in self.world.written if port == 4]
        self.assertEqual(commands, ["ASKING", "SET", "ASKING", "PUBLISH"])
        self.assertEqual(target.value, b"2")

    def test_redirection_loop(self):
        """A loop of redirections raises SourceError after the maximum number of them."""
        self.nodes[0].owner, self.nodes[1].owner = self.nodes[1].address, self.nodes[0].address
        self.assertIn(f"the nodes redirected more than {MAX_REDIRECTIONS} times", self.fetch())
        self.assertLess(sum(node.connected for node in self.nodes), 2 * MAX_REDIRECTIONS)
        self.assertEqual(sum(self.open()), 0)

    def test_failover(self):
        """After a failover the new node is found, even if all nodes in the URL are gone."""
        self.fetch()
        self.nodes[0].kill()
        self.assertEqual(self.fetch(), "n:1: connection refused")
        self.nodes[1].kill()
        self.world.own(self.nodes[3])
        self.nodes[3].value = b"2"
        self.assertEqual(self.fetch(), b"2")
        self.assertEqual(self.open(), [0, 0, 0, 1])

    def test_hanging_nodes(self):
        """Nodes that hang do not delay the answer of another node."""
        for node in (0, 2, 3):
            self.nodes[node].hangs = True
        self.world.own(self.nodes[1])
        self.nodes[1].value = b"2"
        self.assertEqual(self.fetch(), b"2")
        self.assertEqual(self.open(), [0, 1, 0, 0])

    def test_no_node(self):
        """If no node can be reached, a fetch raises SourceError with the reason."""
        for node in self.nodes:
            node.kill()
        self.assertEqual(self.fetch(), "no node of the cluster could locate the key: connection refused")

    def test_down(self):
        """When the cluster is down, the error has its own message."""
        self.fetch()
        for node in self.nodes:
            node.down = "CLUSTERDOWN The cluster is down"
        self.assertIn("Redis answered: CLUSTERDOWN The cluster is down", self.fetch())
        self.assertEqual(sum(self.open()), 0)

    def test_listening(self):
        """The subscription connects to the node that has the key, and `moved` is called when that changes."""
        moved: list[None] = []
        self.deployment.moved = lambda: moved.append(None)
        unused: Any = None
        connection: Any = self.run_it(self.deployment.connect(unused))
        self.fetch()
        self.assertIs(connection._node, self.nodes[0])
        self.assertEqual(moved, [])
        self.world.own(self.nodes[2])
        self.fetch()
        self.assertEqual(len(moved), 1)
        connection = self.run_it(self.deployment.connect(unused))
        self.assertIs(connection._node, self.nodes[2])
        self.nodes[2].kill()
        self.world.own(self.nodes[3])
        self.assertEqual(self.run_it(self.deployment.connect(unused)), "connection refused")
        connection = self.run_it(self.deployment.connect(unused))
        self.assertIs(connection._node, self.nodes[3])

    @few
    @given(st.lists(st.tuples(st.sampled_from(["kill", "start", "own", "hang", "down", "recover"]), st.integers(0, 3)),
                    max_size=30))  # fmt: skip
    def test_whatever_nodes_do(self, events):
        """A fetch returns the right value or fails, leaves at most one connection, and succeeds after recovery."""
        self.setUp()
        for node in self.nodes:
            node.value = str(node.address.port).encode()
        for event, number in events:
            node = self.nodes[number]
            if event == "kill":
                node.kill()
            elif event == "own":
                self.world.own(node)
            elif event == "down":
                node.down = "CLUSTERDOWN"
            else:
                node.up = node.up or event in ("start", "recover")
                node.hangs = event == "hang"
                node.down = ""
            results: list[Any] = []
            with_timeout(0.8, self.deployment.read("GET", b"k"), self.clock).addBoth(results.append)
            self.clock.pump([0.1] * 9)
            if isinstance(results[0], bytes):
                self.assertEqual(int(results[0]), self.nodes[0].owner.port)
            self.assertLessEqual(sum(self.open()), 1)
        for node in self.nodes:
            node.up, node.hangs, node.down = True, False, ""
        self.assertEqual(int(self.fetch()), self.nodes[0].owner.port)
        self.assertEqual(sum(self.open()), 1)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    def test_cancelled(self):
        """A cancelled fetch leaves no connection open."""
        for node in self.nodes:
            node.hangs = True
        fetch = Deferred.fromCoroutine(self.deployment.read("GET", b"k"))
        self.assertEqual(self.open(), [1, 1, 0, 0])
        fetch.cancel()
        self.failureResultOf(fetch)
        self.assertEqual(sum(self.open()), 0)
