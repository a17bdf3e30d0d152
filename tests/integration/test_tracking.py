"""Many documents of one real Redis: changes are served at once without any configuration, whatever the server does."""

import random
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.processes import folder_for, until
from tests.integration.servers import Livestate, RedisServer

#: Seconds from a change until it is served: it takes milliseconds, and half a minute where nothing tells of it.
AT_ONCE = 5.0

#: Documents of one store.
COUNT = 200


class TrackingCase(SynchronousTestCase):
    """A Redis with many keys, and a livestate that polls seldom."""

    def serve(self, store: RedisServer, source: str = "", interval: float = 30, *options: str) -> Livestate:
        """Start a livestate with COUNT documents, of the keys d0, d1, ..., once all of them are served."""
        source = source or store.url
        config = folder_for(self) / "livestate.toml"
        mark = "&" if "?" in source else "?"
        config.write_text(
            f"interval = {interval}\n"
            + "".join(f'[[document]]\npath = "/{n}"\nsource = "{source}{mark}key=d{n}"\n' for n in range(COUNT))
        )
        for number in range(COUNT):
            store.set("0", f"d{number}")
        service = Livestate(self, f"--config={config}", *options)
        until(lambda: service.get("/_live/ready").status == 200, "all documents")
        return service

    def until_served(self, service: Livestate, number: int, value: str, seconds: float = AT_ONCE) -> None:
        """Wait until a value is served."""
        until(lambda: service.get(f"/{number}").body == value.encode(), f"{value} at /{number}", seconds)

    def until_trouble(self, service: Livestate, number: int, reason: str) -> None:
        """Wait until a document has an error, for this reason."""
        until(lambda: reason in (service.status(f"/{number}")["trouble"] or ""), reason)

    def change(self, store: RedisServer, service: Livestate, number: int, value: str) -> None:
        """Set a key, and check that it is served long before it would have been found by polling."""
        store.set(value, f"d{number}")
        self.until_served(service, number, value)


class TrackingTests(TrackingCase):
    """What Redis tells of."""

    def test_changes(self):
        """Keys that are set, deleted, have expired, or were renamed are read at once, by one connection for all."""
        store = RedisServer(self)
        service = self.serve(store)
        for number in random.sample(range(COUNT), 20):
            self.change(store, service, number, "1")
        self.change(store, service, 5, "2")
        self.change(store, service, 5, "3")
        store.command("DEL", "d7")
        until(lambda: service.status("/7")["trouble"], "the deleted key", AT_ONCE)
        store.command("PEXPIRE", "d8", "100")
        until(lambda: service.status("/8")["trouble"], "the expired key", AT_ONCE)
        self.change(store, service, 7, "4")
        store.set("5", "elsewhere")
        store.command("RENAME", "elsewhere", "d9")
        until(lambda: service.get("/9").body == b"5", "the renamed key", AT_ONCE)
        clients = store.command("CLIENT", "LIST").decode()
        self.assertEqual((clients.count(" flags=t "), clients.count(" sub=1 ")), (1, 1), clients)
        self.assertIsNone(service.status("/11")["trouble"])

    def test_everything(self):
        """FLUSHALL is noticed at once, and so is what is written after it."""
        store = RedisServer(self)
        service = self.serve(store)
        store.command("FLUSHALL")
        until(lambda: all(document["trouble"] for document in service.documents()), "that all are gone", AT_ONCE)
        self.assertEqual(service.get("/3").body, b"0")
        self.change(store, service, 3, "1")
        self.assertIsNone(service.status("/3")["trouble"])

    def test_addresses(self):
        """It works with a password, in another database, over TLS and over a Unix socket."""
        authority = Authority(folder_for(self))
        store = RedisServer(self, password="hush", authority=authority)
        sources = (
            f"redis://:hush@127.0.0.1:{store.port}/0",
            f"redis+unix://:hush@{store.socket}",
            f"rediss://:hush@127.0.0.1:{store.tls_port}/0?cafile={authority.certificate}",
        )
        for value, source in enumerate(sources, 1):
            service = self.serve(store, source)
            self.change(store, service, 5, str(value))
            service.stop()
            self.assertNotIn("Traceback", service.log)

    def test_bad_values(self):
        """A value of another type, one that is too large and a missing one are the trouble of their documents alone."""
        store = RedisServer(self)
        service = self.serve(store, interval=1)
        store.command("DEL", "d1", "d2")
        store.command("RPUSH", "d1", "x")
        store.set(b"[" + b"1" * 20_000_000 + b"]", "d3")
        for number, reason in ((1, "WRONGTYPE"), (2, "no such key"), (3, "--max-size")):
            self.until_trouble(service, number, reason)
        for value in range(1, 4):
            self.change(store, service, 4, str(value))
        time.sleep(2.5)
        troubled = {document["path"] for document in service.documents() if document["trouble"]}
        self.assertEqual(troubled, {"/1", "/2", "/3"})
        self.assertTrue(service.status("/5")["fresh"])
        store.command("DEL", "d1")
        for number in (1, 2, 3):
            self.change(store, service, number, "[1]")
        until(lambda: all(document["fresh"] for document in service.documents()), "that all are good")


class FailureTests(TrackingCase):
    """Connections and servers that go."""

    def test_connections_are_killed(self):
        """Whichever of the two connections is lost, nothing is missed, also of what changes in between."""
        store = RedisServer(self)
        service = self.serve(store, interval=1)
        for value in range(1, 9):
            store.command("CLIENT", "KILL", "TYPE", "pubsub" if value % 2 else "normal", "SKIPME", "yes")
            number = random.randrange(COUNT)
            store.set(f"[{value}]", f"d{number}")
            self.until_served(service, number, f"[{value}]", 4)

    def test_restart(self):
        """After a restart of Redis, and after it hung, all documents are fresh and changes are served at once again."""
        store = RedisServer(self)
        service = self.serve(store, interval=1)
        store.stop()
        until(lambda: not service.status("/3")["fresh"], "that the store is away")
        self.assertEqual(service.get("/3").body, b"0")
        store.start()
        until(lambda: all(document["fresh"] for document in service.documents()), "that all are fresh")
        self.change(store, service, 3, "1")
        store.freeze()
        until(lambda: not service.status("/3")["fresh"], "that the store hangs")
        store.thaw()
        until(lambda: all(document["fresh"] for document in service.documents()), "that all are fresh")
        self.change(store, service, 4, "2")
        failures = [line for line in service.log.splitlines() if f"({COUNT} documents)" in line and "recovered" in line]
        self.assertLessEqual(len(failures), 4, service.log)
        self.assertNotIn("Traceback", service.log)

    def test_refused(self):
        """A user who may only GET is polled for, and that is logged once."""
        store = RedisServer(self, acl=("reader", "quiet"))
        service = self.serve(store, f"redis://reader:quiet@127.0.0.1:{store.port}/0", interval=1)
        self.change(store, service, 5, "1")
        time.sleep(2)
        self.change(store, service, 6, "2")
        lines = [line for line in service.log.splitlines() if "change notifications unavailable" in line]
        self.assertEqual(len(lines), 1, service.log)
        self.assertNotIn("quiet", service.log)

    def test_poll(self):
        """With notify=poll nothing is tracked, and changes are found within an interval."""
        store = RedisServer(self)
        service = self.serve(store, f"{store.url}?notify=poll", interval=1)
        self.change(store, service, 5, "1")
        self.assertIn("flags=N", store.command("CLIENT", "LIST").decode())
        self.assertNotIn("sub=1", store.command("CLIENT", "LIST").decode())
        self.assertNotIn("listening for changes", service.log)

    def test_workers(self):
        """Workers have every change at once, and know that what has not changed is fresh."""
        store = RedisServer(self)
        service = self.serve(store, "", 1, "--workers=2")
        time.sleep(4)
        for number in range(0, COUNT, 20):
            self.assertLessEqual(int(service.get(f"/{number}")["Livestate-Age"]), 2)
        for value in range(1, 6):
            number = random.randrange(COUNT)
            store.set(f"[{value}]", f"d{number}")
            self.until_served(service, number, f"[{value}]", AT_ONCE)
        store.stop()
        until(lambda: int(service.get("/3")["Livestate-Age"]) > 3, "that workers know that the store is away")
        self.assertEqual(service.get("/_live/ready").body, b"stale\n")
