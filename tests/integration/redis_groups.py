"""Several real Redis servers: with Sentinels, and as a cluster."""

import redis
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import Child, folder_for, free_port, until
from tests.integration.servers import RedisServer, redis_program

#: The service's name at the Sentinels.
SERVICE = "results"


class Sentinel:
    """One Sentinel process."""

    def __init__(
        self,
        case: SynchronousTestCase,
        primary: RedisServer,
        *,
        password: str = "",
        server_password: str = "",
        tls: tuple[str, ...] = (),
    ) -> None:
        self._case = case
        self._folder = folder_for(case)
        self._child: Child | None = None
        self.port = free_port()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.tls_port if tls else primary.port} {1 if tls else 2}",
            f"sentinel down-after-milliseconds {SERVICE} 1200",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"] if password else []
        lines += [f"sentinel auth-pass {SERVICE} {server_password}"] if server_password else []
        self.tls_port = free_port()
        lines += [f"tls-port {self.tls_port}", "tls-replication yes", *tls] if tls else []
        (self._folder / "sentinel.conf").write_text("\n".join([*lines, ""]))
        self._client = redis.Redis(port=self.port, password=password or None, socket_timeout=5)
        case.addCleanup(self._client.close)
        self.start()

    def start(self) -> None:
        """Start, also again after a stop, and wait until it responds."""
        arguments = [redis_program(), str(self._folder / "sentinel.conf"), "--sentinel"]
        self._child = Child(self._case, arguments, self._folder)
        self._child.wait_for(self._answers, "the Sentinel")
        # By default it checks the servers' roles every 10 s, and informs the others every 2 s: too slow for a test.
        self.command("SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "300")

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self._child is not None
        self._child.kill()

    def primary(self) -> int:
        """Return the port of the primary that this Sentinel knows."""
        return int(self._client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def well(self, replicas: int, sentinels: int) -> bool:
        """Return whether it knows so many replicas and Sentinels, itself included, and all of them are up."""
        others = self._client.sentinel_master(SERVICE)["num-other-sentinels"]  # type: ignore[index]
        listed = self._client.sentinel_slaves(SERVICE)
        linked = [one for one in listed if one.get("master-link-status") == "ok" and not one["is_sdown"]]
        return len(linked) == replicas and others == sentinels - 1

    def command(self, *command: str) -> object:
        """Run a command, and return its reply."""
        answer: object = self._client.execute_command(*command)
        return answer

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


class SentinelGroup:
    """A primary, two replicas and three Sentinels, which notice a dead primary after 1.2 s."""

    def __init__(
        self,
        case: SynchronousTestCase,
        *,
        password: str = "",
        sentinel_password: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        options = ("--repl-ping-replica-period", "1", "--repl-diskless-sync-delay", "0", *options)
        options += ("--masterauth", password) if password else ()
        primary = RedisServer(case, password=password, options=options)
        copying = (*options, "--replicaof", f"127.0.0.1 {primary.port}")
        self.servers = [primary, *(RedisServer(case, password=password, options=copying) for _ in range(2))]
        self.sentinels = [
            Sentinel(case, primary, password=sentinel_password, server_password=password) for _ in range(3)
        ]
        self.until_well()

    @property
    def hosts(self) -> str:
        """The Sentinels' addresses, as in a URL."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        """The URL of database 0, without passwords."""
        return f"redis+sentinel://{self.hosts}/{SERVICE}?key=livestate"

    def primary(self) -> RedisServer:
        """Wait until all Sentinels agree on the primary, and return it."""

        def agreed() -> RedisServer | None:
            ports = {sentinel.primary() for sentinel in self.sentinels}
            return next((server for server in self.servers if {server.port} == ports), None)

        server = until(agreed, "that the Sentinels agree")
        assert server is not None
        return server

    def replicas(self) -> list[RedisServer]:
        """Return the replicas."""
        primary = self.primary()
        return [server for server in self.servers if server is not primary]

    def until_primary_is_not(self, old: RedisServer) -> RedisServer:
        """Wait until another server is the primary, and return it."""
        until(lambda: all(sentinel.primary() != old.port for sentinel in self.sentinels), "a failover")
        primary = self.primary()
        until(lambda: primary.role() == "master", "that it takes its role")
        return primary

    def until_well(self) -> None:
        """Wait until the Sentinels know each other and two replicas that are connected to the primary."""
        until(lambda: all(sentinel.well(2, 3) for sentinel in self.sentinels), "three servers and their Sentinels", 60)


class Cluster:
    """Three primaries of a Redis Cluster, and optionally a replica of the one that has the key."""

    def __init__(
        self,
        case: SynchronousTestCase,
        key: str = "livestate",
        *,
        replica: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *options)
        options += ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
        # By default the bus is at the port plus 10,000, where the kernel takes ports for outgoing connections.
        buses = [free_port() for _ in range(4 if replica else 3)]
        self.servers = [RedisServer(case, options=(*options, "--cluster-port", str(bus))) for bus in buses]
        for server, (first, last) in zip(self.servers, ((0, 5460), (5461, 10922), (10923, 16383)), strict=False):
            server.command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for epoch, server in enumerate(self.servers, 1):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for server, bus in zip(self.servers[1:], buses[1:], strict=True):
            self.servers[0].command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        self.slot = int(self.servers[0].command("CLUSTER", "KEYSLOT", key))
        if replica:
            until(lambda: all(self._knows(server, 4) for server in self.servers), "that the nodes know each other")
            self.servers[3].command("CLUSTER", "REPLICATE", self.id_of(self.owner()))
            until(lambda: self.servers[3].command("ROLE")[3:4] == [b"connected"], "the replica")
        until(lambda: all(self._well(server) for server in self.servers), "the cluster")

    @property
    def hosts(self) -> str:
        """The nodes' addresses, as in a URL."""
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    @property
    def url(self) -> str:
        """The URL of the key."""
        return f"redis+cluster://{self.hosts}/?key=livestate"

    def owner(self) -> RedisServer:
        """Return the node that has the slot."""
        ranges = self.servers[-1].command("CLUSTER", "SLOTS")
        [port] = [node[1] for first, last, node, *_ in ranges if first <= self.slot <= last]
        return next(server for server in self.servers if server.port == port)

    def id_of(self, server: RedisServer) -> str:
        """Return a node's id in the cluster."""
        name: bytes = server.command("CLUSTER", "MYID")
        return name.decode()

    def begin_move(self, source: RedisServer, target: RedisServer) -> None:
        """Start to move the slot. From now on a node that no longer has the key redirects to the other."""
        target.command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.id_of(source))
        source.command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.id_of(target))

    def move_key(self, source: RedisServer, target: RedisServer, key: str = "livestate") -> None:
        """Move the key to the other node."""
        source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    def end_move(self, source: RedisServer, target: RedisServer) -> None:
        """Assign the slot to its new owner. The other nodes learn of it by themselves."""
        for server in (target, source):
            server.command("CLUSTER", "SETSLOT", self.slot, "NODE", self.id_of(target))

    def _knows(self, server: RedisServer, count: int, state: str = "") -> bool:
        info: bytes = server.command("CLUSTER", "INFO")
        return f"cluster_state:{state}" in info.decode() and f"cluster_known_nodes:{count}\r" in info.decode()

    def _well(self, server: RedisServer) -> bool:
        return self._knows(server, len(self.servers), "ok")
