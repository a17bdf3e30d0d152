"""Everything that can befall a store, for every kind of store at once, seen by a reader and in the log.

One livestate serves a document from each of a real Redis, a MongoDB, an HTTP server, all behind proxies that do harm,
and a file. In each round every store that can fail in some way does so. Then

- readers have the last good document, and are told how old it is;
- the log has one line about each document, and no traceback;
- once the store is well again, readers have the new document within 2 s.

The same for longer, and counted: tests/soak/store_faults.py.
"""

import json
import re
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import faults
from tests.integration.faults import Fault, Proxy, instead
from tests.integration.processes import LIMIT, TERMINATED, files, folder_for, until
from tests.integration.servers import Livestate, RedisServer
from tests.integration.upstream import Upstream
from tests.mongodb_server import MongoServer

#: Seconds: the promise for a store that is well again.
RECOVERY = 2.0

GB = 2**30
#: What is no text and has no line end where Redis's protocol has one.
GARBAGE = bytes(range(128, 256)) * 20 + b"\r\n"
HTTP_GB = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GB
TIMEOUT = "no answer"
#: What may befall a fetch that is under way.
_UNDER_WAY = re.compile("no answer|reset|the connection was lost|closed")


def http(status: bytes, body: bytes = b"") -> Fault:
    """Give the fault of an HTTP server that answers so."""
    return instead(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def announce(connection: faults.Connection, data: bytes) -> None:
    """Announce a message of MongoDB's with 1 GB."""
    connection.send(struct.pack("<i", GB) + data[4:])


def cut_short(connection: faults.Connection, data: bytes) -> None:
    """Say that a message of MongoDB's is over when it has hardly begun."""
    connection.send(struct.pack("<i", 17) + data[4:])


#: Name -> for each kind of store that can fail so, how it does, and the reason that is logged.
CONNECTIONS: dict[str, dict[str, tuple[Fault | None, str]]] = {
    "silent": {
        "redis": (faults.silent, TIMEOUT),
        "http": (faults.silent, TIMEOUT),
        "mongodb": (faults.silent, TIMEOUT),
    },
    "one byte a second": {
        "redis": (faults.slow(), TIMEOUT),
        "http": (faults.slow(), TIMEOUT),
        "mongodb": (faults.slow(), TIMEOUT),
    },
    "reset in the middle": {
        "redis": (faults.reset_after(5), "the connection was lost"),
        "http": (faults.reset_after(60), "the connection was lost"),
        "mongodb": (faults.reset_after(20), "reset|closed"),
    },
    "1 GB announced": {
        "redis": (instead(b"$%d\r\n{" % GB), "1,073,741,824 bytes, and --max-size"),
        "http": (faults.flood(HTTP_GB, b" " * 65536), "more than 1,000,000 bytes"),
        "mongodb": (announce, "not MongoDB's protocol"),
    },
    "without an end": {
        "redis": (faults.flood(b"*1000\r\n", b"$65536\r\n" + b" " * 65536 + b"\r\n"), "the reply is too long"),
        "http": (faults.flood(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000), "the response head is too long"),
    },
    "garbage": {
        "redis": (instead(GARBAGE), "not a Redis reply"),
        "http": (instead(GARBAGE), "not an HTTP response"),
        "mongodb": (cut_short, "not MongoDB's protocol"),
    },
    "refused": {"redis": (None, "refused"), "http": (None, "refused"), "mongodb": (None, "refused")},
}


class Stores:
    """A store of each kind, behind a proxy where it has connections, and what each holds."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.redis, self.upstream, self.mongodb = RedisServer(case), Upstream(case), MongoServer()
        case.addCleanup(self.mongodb.remove)
        self.file = folder_for(case) / "results.json"
        self.collection: Any = self.mongodb.client().test.results
        case.addCleanup(self.collection.database.client.close)
        self.proxies = {
            "redis": Proxy(case, self.redis.port),
            "http": Proxy(case, self.upstream.server_port),
            "mongodb": Proxy(case, self.mongodb.port),
        }
        self.number = 0

    def sources(self) -> dict[str, str]:
        """Give the URL of each."""
        at = {kind: f"{kind}://127.0.0.1:{proxy.port}" for kind, proxy in self.proxies.items()}
        return {
            "redis": f"{at['redis']}/0?key=livestate&notify=results",
            "http": f"{at['http']}/results.json",
            "mongodb": f"{at['mongodb']}/test?collection=results",
            "file": f"file:{self.file}",
        }

    def heal(self) -> None:
        """Have all be reached again."""
        for proxy in self.proxies.values():
            proxy.heal()

    def blink(self) -> None:
        """Have all be gone for 0.3 s, and back for as long."""
        for proxy in self.proxies.values():
            proxy.refuse()
        time.sleep(0.3)
        self.heal()
        time.sleep(0.3)

    def put(self, text: bytes | None = None) -> bytes:
        """Put a new document, or `text` where it is not one for MongoDB, into each, and give it."""
        self.number += 1
        body = text or b'{"n":%d}' % self.number
        if self.redis.command("TYPE", "livestate") != b"string":
            self.redis.command("DEL", "livestate")
        self.redis.set(body)
        self.upstream.body, self.upstream.status = body, 200
        new = self.file.with_name("new")
        new.write_bytes(body)
        if self.file.is_dir():
            self.file.rmdir()
        new.replace(self.file)
        if text is None:
            self.collection.replace_one({"_id": 1}, {"n": self.number}, upsert=True)
        return body


class StoreFaultCase(SynchronousTestCase):
    """One livestate, and a store of each kind that is to fail."""

    def start(self, *options: str) -> bytes:
        """Start livestate, wait until each document is there, and give it."""
        self.stores = Stores(self)
        body = self.stores.put()
        sources = [f"--source=/{kind}={url}" for kind, url in self.stores.sources().items()]
        self.service = Livestate(self, *sources, "--max-size=1000000", *options)
        for kind in self.stores.sources():
            self.service.until_body(body, f"/{kind}")
            self.service.until_status(f"/{kind}", trouble=None)
        until(lambda: "listening for changes on" in self.service.log, "the subscription")
        self.memory, self.files = self.peak(), files(self.service.pid)
        return body

    def peak(self) -> int:
        """Give the most memory that livestate has had, in MB."""
        [kilobytes] = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.service.pid}/status").read_text())
        return int(kilobytes) // 1024

    def lines(self, mark: int) -> list[str]:
        """Give what was logged since `mark`, but for what is about the subscription."""
        return [line for line in self.service.log[mark:].splitlines() if "notification_trouble" not in line]

    def failing(self, kind: str, reason: str, before: dict[str, Any]) -> None:
        """Wait until a store has failed twice for `reason`."""

        deadline = time.monotonic() + LIMIT
        while True:
            status = self.service.status(f"/{kind}")
            trouble = status["trouble"] or "nothing"
            if status["failures"] >= before[kind] + 2 and re.search(reason, trouble):
                return
            assert time.monotonic() < deadline, f"{kind}: {trouble}, and not {reason}"
            time.sleep(0.02)

    def assert_kept(self, kinds: set[str], body: bytes, began: float) -> None:
        """See that readers have the last good document, with its age.

        :param kinds: those that have failed since `began`.
        """
        for kind in self.stores.sources():
            answer = self.service.get(f"/{kind}")
            elapsed = time.time() - began
            self.assertEqual((answer.status, answer.body), (200, body), kind)
            if kind in kinds:
                # Confirmed at some time in the second before it failed, at the latest by what was under way then.
                age = self.service.status(f"/{kind}")["age_seconds"]
                self.assertGreater(age, elapsed - 1, kind)
                self.assertLess(age, elapsed + 4, kind)
                self.assertApproximates(int(answer["Livestate-Age"]), age, 2)

    def assert_logged(self, mark: int, reasons: dict[str, list[str]], ended: bool) -> None:
        """See that each trouble, and its end if it has `ended`, is one line.

        A fetch that was under way as it began, or that this busy machine has slowed down too much, may be one more.
        """
        lines = self.lines(mark)
        for kind, wanted in reasons.items():
            shown = [line.partition(f" /{kind}: ")[2] for line in lines if f" /{kind}: " in line]
            if shown and "recovered" in shown[0]:
                del shown[0]
            kept = [line for line in shown if not _UNDER_WAY.search(line) or any(map(_UNDER_WAY.search, wanted))]
            if len(kept) < len(shown):
                troubles = [line for line in kept if "recovered" not in line]
                kept = [line for line, before in zip(troubles, ["", *troubles], strict=False) if line != before]
                kept += shown[-1:] if ended else []
            expected = [*wanted, "recovered after"] if ended else wanted
            self.assertEqual(len(kept), len(expected), (kind, expected, shown))
            for line, word in zip(kept, expected, strict=True):
                self.assertRegex(line, word)
        self.assertEqual([line for line in lines if not re.search(" /(redis|http|mongodb|file): ", line)], [])

    def assert_told(self, most: int) -> None:
        """See that what Redis tells of is heard again, and that this was not logged more than `most` times."""
        told = self.service.status("/redis")["notifications"]

        def publish() -> bool:
            self.stores.redis.command("PUBLISH", "results", "x")
            return bool(self.service.status("/redis")["notifications"] > told)

        until(publish, "the subscription to be back")
        lines = [line for line in self.service.log.splitlines() if "notification_trouble" in line and "redis:" in line]
        self.assertLess(len(lines), most)
        self.assertIn("listening for changes", lines[-1])

    def assert_nothing_left(self) -> None:
        """See that no connection, memory or traceback is left of it all."""
        until(lambda: files(self.service.pid) <= self.files + 2, "the connections are closed")
        self.assertLess(self.peak() - self.memory, 64, "MB")
        self.assertEqual(self.service.stop(), TERMINATED)
        self.assertNotIn("Traceback", self.service.log)


class StoreFaultTests(StoreFaultCase):
    """See the module."""

    def test_connections(self):
        """What can befall a connection: also where the store tells of changes on a second one."""
        body = self.start()
        for name, kinds in CONNECTIONS.items():
            mark, began = len(self.service.log), time.time()
            failures = {kind: self.service.status(f"/{kind}")["failures"] for kind in kinds}
            for kind, (fault, _) in kinds.items():
                if fault is None:
                    self.stores.proxies[kind].refuse()
                else:
                    self.stores.proxies[kind].fault = fault
            for kind, (_, reason) in kinds.items():
                self.failing(kind, reason, failures)
            self.assert_kept(set(kinds), body, began)
            body = self.stores.put()
            healed = time.monotonic()
            self.stores.heal()
            for kind in self.stores.sources():
                self.service.until_body(body, f"/{kind}")
                self.assertLess(time.monotonic() - healed, RECOVERY, (name, kind))
            self.assert_logged(mark, {kind: [reason] for kind, (_, reason) in kinds.items()}, ended=True)
        self.flap()
        self.assert_told(2 * (len(CONNECTIONS) + 6))
        self.assert_nothing_left()

    def flap(self) -> None:
        """All stores are gone and back each 0.3 s, for some seconds."""
        mark = len(self.service.log)
        for _ in range(6):
            self.stores.blink()
            for kind in self.stores.sources():
                self.assertEqual(self.service.get(f"/{kind}").status, 200)
        body, healed = self.stores.put(), time.monotonic()
        for kind in self.stores.sources():
            self.service.until_body(body, f"/{kind}")
            self.assertLess(time.monotonic() - healed, RECOVERY, kind)
        # Two lines for each time that it was noticed, at most.
        self.assertLessEqual(len(self.lines(mark)), 2 * 6 * 3)

    def test_contents(self):
        """What can be wrong with what a store says or holds: one after the other, without anything good between."""
        body = self.start("--interval=0.6")
        deep = b"[" * 100_000 + b"]" * 100_000
        steps: list[tuple[Callable[[], object], dict[str, str]]] = [
            (self.say(b"-LOADING Redis is loading the dataset in memory", http(b"503 Busy")), {"redis": "LOADING", "http": "answered 503"}),
            (self.say(b"-READONLY You can't write against a read only replica.", http(b"401 Who")), {"redis": "READONLY", "http": "answered 401"}),
            (self.say(b"-OOM command not allowed when used memory > 'maxmemory'.", http(b"302 There")), {"redis": "OOM", "http": "answered 302"}),
            (self.delete, {"redis": "no such key", "http": "answered 404", "mongodb": "no document", "file": "no such file"}),
            (self.other_type, {"redis": "WRONGTYPE", "http": "answered 410", "mongodb": "several", "file": "[Ii]s a directory"}),
            *(
                (lambda text=text: self.stores.put(text), dict.fromkeys(("redis", "http", "file"), reason))
                for text, reason in (
                    (b" ", "the document is empty"),
                    (b'"\xe9\xff"', "not UTF-8"),
                    (b'{"n":', "truncated"),
                    (deep, "nested too deeply"),
                    (b'{"n":NaN}', "malformed"),
                    (b"[" + b"1," * 50_000_000 + b"1]", "--max-size"),
                )
            ),
        ]  # fmt: skip
        mark, began = len(self.service.log), time.time()
        since: dict[str, float] = {}
        for act, reasons in steps:
            failures = {kind: self.service.status(f"/{kind}")["failures"] for kind in reasons}
            act()
            for kind, reason in reasons.items():
                since.setdefault(kind, began)
                self.failing(kind, reason, failures)
            self.assert_kept({"redis"}, body, began)
        said = {kind: [reasons[kind] for _, reasons in steps if kind in reasons] for kind in since}
        self.assert_logged(mark, said, ended=False)
        self.stores.collection.delete_many({"_id": 2})
        # Two members of one name are allowed by RFC 8259 section 4, and are for the reader to make sense of.
        for text in (b'{"n":1,"n":2}', None):
            body = self.stores.put(text)
            for kind in ("redis", "http", "file"):
                self.service.until_body(body, f"/{kind}")
        self.service.until_body(body, "/mongodb")
        self.assert_nothing_left()

    def say(self, error: bytes, answer: Fault) -> Callable[[], None]:
        """Give what has Redis say an error, and the HTTP server an answer."""

        def act() -> None:
            self.stores.proxies["redis"].fault = instead(error + b"\r\n")
            self.stores.proxies["http"].fault = answer

        return act

    def delete(self) -> None:
        """Take every document away."""
        self.stores.heal()
        self.stores.redis.command("DEL", "livestate")
        self.stores.upstream.status = 404
        self.stores.collection.delete_many({})
        self.stores.file.unlink()

    def other_type(self) -> None:
        """Put something else in its place."""
        self.stores.redis.command("RPUSH", "livestate", "1")
        self.stores.upstream.status = 410
        self.stores.collection.insert_many([{"_id": 1, "n": 1}, {"_id": 2, "n": 2}])
        self.stores.file.mkdir()


class DiskTests(SynchronousTestCase):
    """The disk that holds the last good document."""

    def test_full(self):
        """On a full disk the saved document stays as it was, whole, which is one line; saving goes on when it is not."""
        store, folder = RedisServer(self), folder_for(self)
        store.set("1")
        options = (f"--source={store.url}", f"--state-dir={folder}", "--interval=0.2")
        service = Livestate(self, *options)
        service.until_body(b"1")
        saved = folder / "%2F.saved"
        until(saved.exists, "the saved document")
        before, limits = saved.read_bytes(), resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
        # As good as a full disk: a file of livestate's has no more than 64 KB.
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (65536, limits[1]))
        large = json.dumps(list(range(40_000))).encode()
        store.set(large)
        service.until_body(large)
        until(lambda: "cannot save the document" in service.log, "the failure")
        time.sleep(2.2)
        self.assertEqual(service.log.count("cannot save the document"), 1, service.log)
        self.assertEqual((saved.read_bytes(), [file.name for file in folder.iterdir()]), (before, [saved.name]))
        self.assertEqual(service.get().body, large)
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, limits)
        until(lambda: "works again" in service.log, "the success")
        self.assertNotIn("Traceback", service.log)
        store.stop()
        service.kill()
        service.start()
        answer = service.get()
        self.assertEqual((answer.status, answer.body), (200, large))
