"""More than one Redis: real Sentinels and a real cluster, whose servers are killed while readers ask."""

import re
import time
from dataclasses import dataclass, field

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from livestate.sources.redis.slots import slot_of
from tests.integration.certificates import Authority
from tests.integration.http import Client
from tests.integration.load import Background
from tests.integration.processes import files, folder_for, free_port, program, run, until
from tests.integration.redis_groups import SERVICE, Cluster, Sentinel, SentinelGroup
from tests.integration.servers import Livestate, RedisServer, redis_program


@dataclass
class Reader:
    """Asks each 50 ms, and keeps what it got."""

    client: Client
    wrong: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)

    def poll(self) -> None:
        """Send one request."""
        answer = self.client.get()
        if answer.status == 200:
            self.versions.append(answer.json())
            self.ages.append(int(answer["Livestate-Age"]))
        else:
            self.wrong.append(f"answered {answer.status}")


class GroupCase(SynchronousTestCase):
    """Readers beside what happens to the servers."""

    def setUp(self):
        version = re.search(r"v=(\d+)", run(redis_program(), "--version").stdout)
        if version is None or int(version[1]) < 7:
            raise SkipTest("needs a redis-server of version 7 or later on the path")

    def read(self, service: Livestate) -> None:
        """Begin to ask, with three readers."""
        self.readers = [Reader(service.client()) for _ in range(3)]
        self._polling = Background(self, *(reader.poll for reader in self.readers), pause=0.05)

    def assert_read(self, last: int) -> None:
        """See that the readers get the last document, had an answer always, and never an older document."""
        until(lambda: all(reader.versions[-1:] == [last] for reader in self.readers), "that all readers have the last")
        self._polling.stop()
        for reader in self.readers:
            reader.client.close()
            self.assertEqual(reader.wrong, [])
            self.assertEqual(reader.versions, sorted(reader.versions))

    def publish(self, url: str, value: int) -> None:
        """Write with `livestate publish`."""
        ran = run(program("livestate"), "publish", "-", "--to", url, stdin=str(value).encode())
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))


class SentinelTests(GroupCase):
    """A primary, two replicas, and Sentinels."""

    def test_failover(self):
        """The primary is killed, comes back, and the roles are switched: readers notice nothing but the age."""
        group = SentinelGroup(self, password="hush", sentinel_password="quiet")
        url = group.url.replace("://", "://:hush@") + "&sentinel_password=quiet"
        first = group.primary()
        first.set("1")
        service = Livestate(self, f"--source={url}", "--interval=0.5")
        service.until_body(b"1")
        self.read(service)
        time.sleep(1)
        opened = files(service.pid)
        first.kill()
        second = group.until_primary_is_not(first)
        service.until_status(trouble=None)
        second.set("2")
        service.until_body(b"2")
        self.assertGreaterEqual(min(max(reader.ages) for reader in self.readers), 1)
        until(lambda: all(reader.ages[-1] == 0 for reader in self.readers), "that the document is fresh again")
        self.assertEqual(len(service.about()), 2, service.log)

        # It comes back empty and as a primary, by its own word, until the Sentinels have told it better.
        first.start()
        until(lambda: first.role() == "slave", "that the old primary has its new role", 60)
        second.set("3")
        service.until_body(b"3")
        group.until_well()
        group.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)
        third = group.until_primary_is_not(second)
        service.until_status(trouble=None)
        self.publish(url, 4)
        self.assertEqual(third.command("GET", "livestate"), b"4")
        service.until_body(b"4")
        until(lambda: files(service.pid) == opened, "that no more is open than at the start")
        self.assert_read(4)
        said = service.log + str(service.documents())
        self.assertNotIn("hush", said)
        self.assertNotIn("quiet", said)
        self.assertNotIn("Traceback", said)

    def test_replica(self):
        """Replicas are read and told of changes at once; one that is killed is replaced, and so is a primary that hangs."""
        group = SentinelGroup(self)
        url = f"{group.url}&read_from=prefer_replica&notify=news"
        group.primary().set("1")
        service = Livestate(self, f"--source={url}", "--interval=30")
        service.until_body(b"1")
        until(lambda: "listening for changes on" in service.log, "the subscription")
        self.read(service)
        self.publish(url, 2)
        service.until_body(b"2")
        read = self.read_from(service, group)
        self.assertIn(read, group.replicas())
        old = group.primary()
        read.kill()
        until(lambda: self.read_from(service, group) is not read, "that another server is read")
        self.publish(url, 3)
        service.until_body(b"3")
        read.start()
        old.freeze()
        self.addCleanup(old.thaw)
        group.until_primary_is_not(old)
        self.publish(url, 4)
        service.until_body(b"4")
        # It takes itself for the primary until the Sentinels have told it better.
        old.thaw()
        self.publish(url, 5)
        service.until_body(b"5")
        self.assert_read(5)
        self.assertNotIn("Traceback", service.log)

    def read_from(self, service: Livestate, group: SentinelGroup) -> RedisServer:
        """Give the server that is read by what the log says."""
        line = [line for line in service.log.splitlines() if ": reading from the " in line][-1]
        return next(server for server in group.servers if line.endswith(f":{server.port}"))

    def test_wrong(self):
        """Each thing that may be wrong is one log line that says what it is; TLS works, to Sentinel and server."""
        authority = Authority(folder_for(self))
        key, certificate = authority.issue("sentinel")
        files = f"tls-key-file {key}", f"tls-cert-file {certificate}", f"tls-ca-cert-file {authority.certificate}"
        # These rights are enough; beside them, a slot that is being moved takes ASKING.
        reader = "--user", "reader", "on", ">hush", "~*", "+get"
        options = "--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(free_port())
        node = RedisServer(self, authority=authority, options=(*options, *reader, "+cluster|slots"))
        node.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        store = RedisServer(self, authority=authority, options=(*reader, "+role"))
        store.set("1")
        sentinel = Sentinel(self, store, password="quiet", tls=(*files, "tls-auth-clients no"))
        plain = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}?sentinel_password=quiet"
        good = f"rediss+sentinel://reader:hush@127.0.0.1:{sentinel.tls_port}/{SERVICE}?sentinel_password=quiet&cafile="
        cases = {
            "/unknown": (plain.replace(SERVICE, "other"), "the Sentinels do not know the service 'other'"),
            "/nobody": (plain.replace(f":{sentinel.port}", ":1"), "cannot query the Sentinels: connection refused"),
            "/login": (plain.replace("quiet", "loud"), "cannot query the Sentinels: Redis rejected the login"),
            "/no-login": (plain.partition("?")[0], "NOAUTH Authentication required. (set &sentinel_password="),
            "/stranger": (good + str(Authority(folder_for(self)).certificate), "certificate"),
        }
        sources = [f"--source={path}={url}" for path, (url, _) in cases.items()]
        sources.append(f"--source={good}{authority.certificate}&read_from=prefer_replica")
        # A node that has met no other does not know its own address: it is the one where it was asked.
        cluster = f"rediss+cluster://reader:hush@127.0.0.1:{node.tls_port}/?cafile={authority.certificate}"
        service = Livestate(self, *sources, f"--source=/cluster={cluster}", "--interval=0.5")
        service.until_body(b"1")
        until(lambda: node.command("CLUSTER", "INFO").startswith(b"cluster_state:ok"), "the cluster")
        node.set("2")
        service.until_body(b"2", "/cluster")
        for path, (_, text) in cases.items():
            service.until_status(path, failures=lambda n: n >= 3)
            [line] = service.about(path)
            self.assertIn(text, line)
        [line] = [line for line in service.of_changes() if "no replica is usable" in line]
        self.assertIn("the Sentinels know of no healthy replica", line)
        for secret in ("quiet", "loud", "hush"):
            self.assertNotIn(secret, service.log + str(service.documents()))
        self.assertNotIn("Traceback", service.log)


class ClusterTests(GroupCase):
    """Three nodes, and a replica of the one that has the key."""

    def test_cluster(self):
        """The key's node is killed, and its slot moved: readers notice nothing but the age."""
        cluster = Cluster(self, replica=True)
        for key in ("", "livestate", "{a}b", "a{}b", "a{b}{c}", "a{{b}}", "é"):
            self.assertEqual(slot_of(key.encode()), cluster.servers[0].command("CLUSTER", "KEYSLOT", key))
        url = f"{cluster.url}&notify=news"
        first, second, third = cluster.owner(), cluster.servers[3], cluster.servers[1]
        if third is first:
            third = cluster.servers[2]
        first.set("1")
        service = Livestate(self, f"--source={url}", "--interval=0.5")
        service.until_body(b"1")
        self.read(service)
        first.kill()
        until(lambda: second.role() == "master", "a failover")
        service.until_status(trouble=None)
        until(lambda: second.command("CLUSTER", "INFO").startswith(b"cluster_state:ok"), "the cluster")
        self.publish(url, 2)
        service.until_body(b"2")

        cluster.begin_move(second, third)
        second.set("3")
        service.until_body(b"3")
        cluster.move_key(second, third)
        self.publish(url, 4)
        service.until_body(b"4")
        cluster.end_move(second, third)
        third.set("5")
        service.until_body(b"5")
        self.assert_read(5)
        self.assertEqual(len(service.about()), 2, service.log)
        self.assertNotIn("Traceback", service.log)
