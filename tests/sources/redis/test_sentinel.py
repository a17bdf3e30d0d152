"""Reading from fake Redis servers behind fake Sentinels, through failovers and failures."""

from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SourceError
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.role import role_of
from livestate.sources.redis.sentinel_deployment import CHECK_INTERVAL, REPLICA_TIMEOUT, RETRY_DELAY, SentinelDeployment
from livestate.sources.redis.sentinels import GRACE, TIMEOUT, Sentinels
from livestate.sources.redis.url import NodeAddress
from livestate.system.timeouts import with_timeout
from tests.redis_world import Data, World
from tests.support import few, log_lines


class SentinelCase(SynchronousTestCase):
    """Three Sentinels, a primary and two replicas."""

    def start(self, prefer_replica=False, service="svc"):
        self.clock = Clock()
        self.world = World(self.clock)
        servers: Any = self.world
        sentinels = Sentinels(self.clock, servers, tuple(node.address for node in self.world.sentinels), service)
        self.deployment = SentinelDeployment(
            self.clock,
            servers,
            sentinels,
            prefer_replica=prefer_replica,
            make_connection=partial(PersistentConnection, max_size=1000),
            source="redis+sentinel://s/svc",
        )

    def write(self, lag=()):
        """Write a new version to the primary and to its replicas, except those in `lag`."""
        version = self.world.leader().version + 1
        for node in self.world.data:
            if node.up and node not in lag and (node.primary or node.linked):
                node.version = version
        return version

    def fetch(self, timeout=0.8):
        """Start a fetch, as the poller does."""
        return with_timeout(timeout, self.deployment.read("GET", b"k"), self.clock)

    def version(self, timeout=0.8):
        """Fetch while time passes, and return the version, or the error message."""
        results: list[Any] = []
        self.fetch(timeout).addBoth(results.append)
        for _ in range(200):
            if results:
                break
            self.clock.advance(0.01)
        [result] = results
        if hasattr(result, "trap"):
            result.trap(SourceError)
            return str(result.value)
        return int(result)

    def read_from(self):
        """Return the node that is read from now."""
        return next(node for node in self.world.data if node.connections)


class PrimaryTests(SentinelCase):
    """Reading from the primary."""

    def test_steady(self):
        """While all is well there is one connection to the primary and one to each Sentinel."""
        with log_lines() as lines:
            self.start()
            for _ in range(20):
                self.assertEqual(self.version(), self.world.data[0].version)
                self.write()
                self.clock.advance(1)
        self.assertEqual([node.connected for node in [*self.world.data, *self.world.sentinels]], [1, 0, 0, 1, 1, 1])
        self.assertEqual(
            [line.removeprefix("redis+sentinel://s/svc: ") for line in lines],
            ["the Sentinels name d:1 as the primary", "reading from the primary d:1"],
        )

    def test_failover(self):
        """While the primary is gone the error names it; the new one is read once the Sentinels name it."""
        self.start()
        self.version()
        self.world.data[0].kill()
        self.assertEqual(self.version(), "d:1: connection refused")
        self.world.promote(self.world.data[1])
        self.assertEqual(self.write(), self.version())

    def test_within_one_fetch(self):
        """No fetch fails when a primary is demoted and drops its clients, as in a manual failover."""
        self.start()
        self.version()
        self.world.promote(self.world.data[2])
        for connection in list(self.world.data[0].connections):
            connection.abort()
        self.assertEqual(self.write(), self.version())

    def test_demoted(self):
        """A primary that silently became a replica is no longer read, though its connection is still open."""
        self.start()
        self.version()
        self.world.promote(self.world.data[1])
        version = self.write(lag=[self.world.data[0]])
        self.assertEqual(self.version(), version)

    def test_role_is_checked(self):
        """A server that the Sentinels name as the primary, but that reports that it is a replica, is not read."""
        self.start()
        self.world.data[0].primary = False
        self.assertEqual(
            self.version(), "d:1: the Sentinels name it as the primary, but it reports that it is a replica"
        )
        self.assertEqual(self.world.open(), 3)

    def test_cut_off(self):
        """A primary that was cut off, but still reports that role, is dropped within a second and one fetch."""
        self.start()
        self.version()
        self.world.promote(self.world.data[1])
        self.world.data[0].primary = True
        self.write(lag=[self.world.data[0]])
        self.clock.advance(CHECK_INTERVAL)
        self.version()
        self.assertEqual(self.version(), self.world.data[1].version)
        self.assertEqual(self.world.data[0].connections, set())

    def test_newest_epoch(self):
        """If Sentinels disagree, the newest configuration epoch counts, whichever answers first."""
        self.start()
        for sentinel in self.world.sentinels[:2]:
            sentinel.primary, sentinel.epoch = self.world.data[0].address, 7
        self.world.promote(self.world.data[1])
        self.world.data[0].primary = True
        self.world.epoch = 8
        self.write(lag=[self.world.data[0]])
        self.world.sentinels[1].hangs = True
        self.assertEqual(self.version(), self.world.data[1].version)

    def test_silent(self):
        """While no Sentinel answers the primary is still read; the start and the end are logged once."""
        with log_lines() as lines:
            self.start()
            self.version()
            for sentinel in self.world.sentinels:
                sentinel.kill()
            for _ in range(20):
                version = self.write()
                self.clock.advance(CHECK_INTERVAL)
                self.assertEqual(self.version(), version)
            for sentinel in self.world.sentinels:
                sentinel.up = True
            self.clock.advance(CHECK_INTERVAL)
            self.version()
        self.assertEqual(len(lines), 4, lines)
        self.assertIn("cannot query the Sentinels: connection refused; still reading from d:1", lines[2])
        self.assertIn("the Sentinels respond again", lines[3])

    def test_no_sentinel(self):
        """A fetch raises SourceError if no Sentinel can be reached, or none knows the service."""
        self.start()
        for sentinel in self.world.sentinels:
            sentinel.up = False
        self.assertEqual(self.version(), "cannot query the Sentinels: connection refused")
        self.start(service="other")
        self.assertIn("the Sentinels do not know the service 'other'", self.version())

    def test_hanging_sentinels(self):
        """One hanging Sentinel causes no delay, and two cause a tenth of a second."""
        for hanging, seconds in ((1, 0), (2, GRACE)):
            self.start()
            for sentinel in self.world.sentinels[:hanging]:
                sentinel.hangs = True
            self.assertEqual(self.version(), 0)
            self.assertApproximates(self.clock.seconds(), seconds, 0.011)
            for _ in range(10):
                self.clock.advance(CHECK_INTERVAL)
                self.assertEqual(self.version(), 0)
            self.clock.advance(TIMEOUT)
            self.assertEqual(self.world.open(), 1 + 3 - hanging)

    def test_late_connections(self):
        """A Sentinel that is slow to connect ends up with one connection, however often it was asked meanwhile."""
        self.start()
        late = self.world.sentinels[0].late = []
        for _ in range(4):
            self.clock.advance(CHECK_INTERVAL)
            self.assertEqual(self.version(), 0)
        for waiting in late:
            if not waiting.called:
                waiting.callback(None)
        self.assertGreater(len(late), 2)
        self.assertEqual(len(self.world.sentinels[0].connections), 1)

    def test_closed_while_connecting(self):
        """`disconnect` cancels connections that are being made."""
        self.start()
        late = self.world.sentinels[0].late = []
        self.version()
        self.deployment.disconnect()
        self.assertTrue(all(waiting.called for waiting in late))
        self.assertEqual(self.world.open(), 0)

    def test_shorter_than_an_answer(self):
        """If a fetch times out before the Sentinels answer, the next one uses their answer."""
        self.start()
        for sentinel in self.world.sentinels[:2]:
            sentinel.hangs = True
        attempts = 0
        while True:
            attempts += 1
            results: list[Any] = []
            self.fetch(0.04).addBoth(results.append)
            self.clock.pump([0.01] * 5 + [0.2])
            if results == [b"0"]:
                break
            self.assertLess(attempts, 5)
        self.assertGreater(attempts, 1)

    def test_cancelled(self):
        """A cancelled fetch leaves nothing open but the persistent connections."""
        self.start()
        hanging = [*self.world.sentinels, self.world.data[0]]
        for count in range(1, 5):
            for node in hanging[-count:]:
                node.hangs = True
            fetch = self.fetch()
            self.clock.advance(0.8)
            self.failureResultOf(fetch)
            for node in hanging:
                node.hangs = False
        self.deployment.disconnect()
        self.assertEqual(self.world.open(), 0)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.assertEqual(self.version(), 0)

    def test_many_failovers(self):
        """A thousand failovers of all kinds leak neither connections nor timers."""
        self.start()
        self.version()
        for number in range(1000):
            old, new = self.world.leader(), self.world.data[(number + 1) % 3]
            if number % 3 == 0:
                old.kill()
            if number % 3 == 1:
                old.hangs = True
            self.version(0.1) if number % 3 != 1 else self.fetch(0.1).addErrback(lambda _: None)
            self.clock.advance(0.1)
            self.world.promote(new)
            self.clock.advance(CHECK_INTERVAL)
            old.up, old.hangs = True, False
            self.version()
            self.assertEqual(self.write(), self.version())
        self.assertEqual(self.world.open(), 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.deployment.disconnect()
        self.assertEqual(self.world.open(), 0)

    def test_roles(self):
        """Anything but the reply to ROLE of a primary or a replica is refused."""
        self.assertTrue(role_of([b"slave", b"h", 1, b"connected", 9]).linked)
        self.assertFalse(role_of([b"slave", b"h", 1, b"sync", -1]).linked)
        for reply in (None, [], [b"sentinel", []], [b"master"], b"master", [b"slave", b"h", 1, b"connected", b"x"]):
            self.assertRaises(SourceError, role_of, reply)


class WriteTests(SentinelCase):
    """Writing to the primary."""

    def publish(self):
        results: list[Any] = []
        Deferred.fromCoroutine(self.deployment.write(("SET", b"k", b"1"))).addBoth(results.append)
        return results[0]

    def test_primary(self):
        """A write goes to the primary even if replicas are read, and to the new primary after a failover."""
        self.start(prefer_replica=True)
        self.version()
        self.assertIsNone(self.publish())
        self.world.data[0].kill()
        self.assertIn("d:1: connection refused", str(self.publish().value))
        self.world.promote(self.world.data[2])
        self.assertIsNone(self.publish())
        self.assertEqual([address.port for address, _ in self.world.written], [1, 3])

    def test_demoted(self):
        """Nothing is written to a server that reports that it is a replica."""
        self.start()
        self.world.data[0].primary = False
        self.assertIn("it reports that it is a replica", str(self.publish().value))
        self.assertEqual(self.world.written, [])
        self.assertEqual(self.world.open(), 3)


class ListeningTests(SentinelCase):
    """The connection for the subscription."""

    def connect(self):
        results: list[Any] = []
        unused: Any = None
        Deferred.fromCoroutine(self.deployment.connect(unused)).addBoth(results.append)
        return results[0]

    def test_same_server(self):
        """It connects to the server that is read, also before the first fetch; `moved` is called when that changes."""
        for prefer_replica in (False, True):
            self.start(prefer_replica)
            moved: list[None] = []
            self.deployment.moved = lambda moved=moved: moved.append(None)  # type: ignore[misc]
            first = self.connect()
            self.version()
            self.assertIs(first._node, self.read_from())
            self.assertIs(self.connect()._node, first._node)
            self.assertEqual(moved, [])
            first._node.kill()
            if not prefer_replica:
                self.world.promote(self.world.data[1])
            self.version()
            self.assertEqual(len(moved), 1)
            self.assertIs(self.connect()._node, self.read_from())

    def test_failover(self):
        """If its server is gone it finds another one, even without a read in between."""
        for prefer_replica in (False, True):
            self.start(prefer_replica)
            self.version()
            gone = self.read_from()
            gone.kill()
            if not prefer_replica:
                self.world.promote(self.world.data[1])
            self.assertIn("connection refused", str(self.connect().value))
            found = self.connect()._node
            self.assertIsNot(found, gone)
            self.assertEqual(found.primary, not prefer_replica)

    def test_wrong_role(self):
        """It refuses a server with another role, and leaves nothing open."""
        self.start()
        self.world.data[0].primary = False
        self.assertIn("it reports that it is a replica", str(self.connect().value))
        self.assertEqual(self.world.open(), 3)


class ReplicaTests(SentinelCase):
    """Reading from replicas."""

    def start(self, prefer_replica=True, service="svc"):
        super().start(prefer_replica, service)

    def other(self):
        """Return the replica that is not read from."""
        return next(node for node in self.world.data if not node.primary and not node.connections)

    def test_sticks(self):
        """The same replica is read as long as it is healthy."""
        self.start()
        self.version()
        replica = self.read_from()
        self.assertFalse(replica.primary)
        for _ in range(20):
            self.clock.advance(1)
            self.assertEqual(self.version(), self.write(lag=[replica]) and replica.version)
        self.assertEqual(sum(node.connected for node in self.world.data), 1)

    def test_spread(self):
        """Several instances of livestate spread over the replicas."""
        chosen = set()
        for _ in range(40):
            self.start()
            self.version()
            chosen.add(self.read_from().address)
        self.assertEqual(len(chosen), 2)

    def test_another(self):
        """A replica is replaced when it is gone, loses its primary, is promoted, or reported down."""

        def gone(replica: Data) -> None:
            replica.kill()

        def unlinked(replica: Data) -> None:
            replica.linked = False

        def reported_down(replica: Data) -> None:
            self.world.down.add(replica.address)
            self.clock.advance(CHECK_INTERVAL)
            self.version()

        def promoted(replica: Data) -> None:
            self.world.promote(replica)

        for trouble in (gone, unlinked, reported_down, promoted):
            with log_lines() as lines:
                self.start()
                self.version()
                replica = self.read_from()
                trouble(replica)
                version = self.write()
                self.assertEqual(self.version(), version, trouble)
                self.assertIsNot(self.read_from(), replica)
                self.assertFalse(self.read_from().primary)
            self.assertEqual(len([line for line in lines if "reading from the replica" in line]), 2, lines)

    def test_hangs(self):
        """A hanging replica costs one fetch if it is in use, and a quarter of a second if it is being tried."""
        self.start()
        self.version()
        replica = self.read_from()
        replica.hangs = True
        fetch = self.fetch()
        self.clock.advance(0.8)
        self.failureResultOf(fetch)
        before = self.clock.seconds()
        self.assertEqual(self.version(), 0)
        self.assertLess(self.clock.seconds() - before, REPLICA_TIMEOUT + 0.02)

    def test_hang_longer_than_a_fetch(self):
        """If replicas hang for longer than a fetch may take, later fetches reach the primary."""
        self.start()
        for node in self.world.data[1:]:
            node.hangs = True
        succeeded = []
        for _ in range(4):
            results: list[Any] = []
            self.fetch(0.04).addBoth(results.append)
            self.clock.pump([0.01] * 5)
            succeeded.append(results[0] == b"0")
        self.assertEqual(succeeded, [False, False, True, True])

    def test_no_replica(self):
        """Without a usable replica the primary is read, with one log line, until a replica is usable again."""
        with log_lines() as lines:
            self.start()
            for node in self.world.data[1:]:
                node.linked = False
            for _ in range(10):
                self.clock.advance(1)
                self.assertEqual(self.version(), self.write() - 1)
            self.assertTrue(self.read_from().primary)
            self.world.data[1].linked = True
            for _ in range(round(RETRY_DELAY) + 2):
                self.write()
                self.clock.advance(1)
                self.assertEqual(self.version(), self.world.data[0].version)
            self.assertIs(self.read_from(), self.world.data[1])
        self.assertEqual(len(lines), 4, lines)
        self.assertIn("no replica is usable (d:", "".join(lines))
        self.assertIn("has lost its primary", "".join(lines))

    def test_never_older(self):
        """A replica that is behind the last value read is skipped, in favour of another one or the primary."""
        self.start()
        self.version()
        first, second = self.read_from(), self.other()
        version = self.write(lag=[second])
        self.assertEqual(self.version(), version)
        first.kill()
        self.assertEqual(self.version(), version)
        self.assertTrue(self.read_from().primary)
        for _ in range(round(RETRY_DELAY) + 2):
            self.clock.advance(1)
            self.assertEqual(self.version(), version)
        self.assertTrue(self.read_from().primary)
        version = self.write()
        for _ in range(round(RETRY_DELAY) + 2):
            self.clock.advance(1)
            self.assertEqual(self.version(), version)
        self.assertIs(self.read_from(), second)

    def test_primary_may_be_older(self):
        """If the primary itself has an older version, because a failover lost writes, that version is read."""
        self.start()
        self.version()
        self.write()
        self.assertEqual(self.version(), 1)
        for node in self.world.data:
            node.version = 0
        self.read_from().kill()
        self.assertEqual(self.version(), 0)

    @few
    @given(st.lists(st.tuples(st.sampled_from(["write", "lag", "kill", "unlink", "hang", "recover"]), st.integers(1, 2)),
                    max_size=30))  # fmt: skip
    def test_whatever_replicas_do(self, events):
        """While the primary is healthy no fetch returns an older version, and a replica is read once all recover."""
        self.start()
        latest = 0
        for event, number in events:
            node = self.world.data[number]
            if event == "write":
                self.write()
            elif event == "lag":
                self.write(lag=[node])
            elif event == "kill":
                node.kill()
            elif event == "unlink":
                node.linked = False
            else:
                node.hangs = event == "hang"
                node.up = node.linked = (node.up and node.linked) or event == "recover"
            results: list[Any] = []
            self.fetch().addBoth(results.append)
            self.clock.pump([0.05] * 20)
            if isinstance(results[0], bytes):
                self.assertGreaterEqual(int(results[0]), latest)
                latest = int(results[0])
        for node in self.world.data:
            node.up, node.hangs, node.linked = True, False, True
        version = self.write()
        for _ in range(round(RETRY_DELAY) + 2):
            self.clock.advance(1)
            self.version()
        self.assertEqual(self.version(), version)
        self.assertFalse(self.read_from().primary)
        self.assertEqual(self.world.open(), 4)

    def test_addresses(self):
        """Only replicas that the Sentinels report as healthy are used."""
        self.start()
        self.world.down.add(NodeAddress("d", 2))
        self.version()
        self.assertEqual(self.read_from().address, NodeAddress("d", 3))
