"""The main job: a key in a real Redis, read over HTTP and HTTPS while it changes."""

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.http import Answer, Client
from tests.integration.load import Background
from tests.integration.processes import TERMINATED, folder_for, free_port, until
from tests.integration.servers import Livestate, RedisServer

#: Seconds from a change until it is served: a beat of a second, and one more for a busy machine.
FRESH = 2.0

#: Long enough for a first fetch, which imports the driver, on a busy machine.
INTERVAL = "--interval=1"

#: Seconds: the promise for a store that comes (back) up.
RECOVERY = 2.0


def document(version: int) -> str:
    """Give a document that is large enough to be compressed."""
    return json.dumps({"version": version, "places": [{"name": f"place {n}", "votes": n * version} for n in range(50)]})


@dataclass
class Reader:
    """Polls on one connection as browsers do: with the entity tag of what it has."""

    client: Client
    coding: str
    seen: list[tuple[float, int]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    not_modified: int = 0
    etag: str = ""
    version: int = 0

    def poll(self) -> None:
        """Send one request."""
        etag = self.etag
        fields = {"Accept_Encoding": self.coding} | ({"If_None_Match": etag} if etag else {})
        answer = self.client.get(**fields)
        if answer.status == 304:
            self.not_modified += 1
            if answer["ETag"] != etag or answer.body:
                self.wrong.append(f"304 with {answer['ETag']} and {answer.body!r} to {etag}")
        elif answer.status == 200:
            self.etag, self.version = answer["ETag"], answer.json()["version"]
            if self.bodies.setdefault(self.etag, answer.body) != answer.body:
                self.wrong.append(f"two bodies with the tag {self.etag}")
            if answer["Content-Encoding"] != self.coding.replace("identity", ""):
                self.wrong.append(f"asked for {self.coding}, got {answer['Content-Encoding']}")
        else:
            self.wrong.append(f"answered {answer.status}")
        self.seen.append((time.monotonic(), self.version))


class ReadersTests(SynchronousTestCase):
    """A key that changes."""

    def test_every_reader_sees_every_change(self):
        """Readers over HTTP and HTTPS have each version or a newer one a beat later, and never go back to an older."""
        store = RedisServer(self)
        store.set(document(1))
        service = Livestate(self, f"--source={store.url}?key=livestate", https="")
        service.until_served()
        codings = ["identity", "gzip", "br", "zstd"]
        readers = [Reader(service.client(https), coding) for https in (False, True) for coding in codings]
        polling = Background(self, *(reader.poll for reader in readers), pause=0.02)
        written = {1: time.monotonic()}
        for version in range(2, 7):
            time.sleep(0.7 + version / 10)
            store.set(document(version))
            written[version] = time.monotonic()
        time.sleep(FRESH)
        polling.stop()
        for reader in readers:
            reader.client.close()
            self.assertEqual(reader.wrong, [])
            self.assertGreater(reader.not_modified, 10)
            self.assertTrue(all(before <= after for (_, before), (_, after) in pairwise(reader.seen)))
            for version, when in written.items():
                late = [second for second, seen in reader.seen if second > when + FRESH and seen < version]
                self.assertEqual(late, [], f"version {version} was not there {FRESH} s after it was written")
        tags = [set(reader.bodies) for reader in readers]
        self.assertEqual(tags[:4], tags[4:], "HTTP and HTTPS give the same tags")
        self.assertEqual(len(set.union(*tags)), sum(map(len, tags[:4])), "no two codings share a tag")

    def test_value_is_served_as_it_is(self):
        """Bytes come through unchanged, also where they look like a number or hold a zero byte as an escape."""
        store = RedisServer(self)
        service = Livestate(self, f"--source={store.url}?key=livestate", "--interval=0.1")
        for value in (b"7.0", b"1.50", b'"\\u0000 \xc3\xa9"', b"[]", b" \n{} "):
            store.set(value)
            service.until_body(value)


class AddressTests(SynchronousTestCase):
    """The ways to reach a Redis."""

    def serves(self, store: RedisServer, url: str, *, key: str = "livestate", database: int = 0) -> Livestate:
        """Have livestate serve `key`, and fail if it does not."""
        store.set('{"n":1}', key, database)
        service = Livestate(self, f"--source={url}", INTERVAL)
        service.until_body(b'{"n":1}')
        store.set('{"n":2}', key, database)
        service.until_body(b'{"n":2}')
        self.assertEqual(service.about(), [])
        return service

    def test_password(self):
        """A password is given, and shown nowhere."""
        store = RedisServer(self, password="hush hush:@/")
        service = self.serves(store, f"redis://:hush%20hush%3A%40%2F@127.0.0.1:{store.port}/0?key=livestate")
        self.assertNotIn("hush", service.status()["source"] + service.log)

    def test_acl_user(self):
        """A user of Redis's access lists who may do no more than GET and SELECT is enough."""
        store = RedisServer(self, acl=("reader", "quiet"))
        self.serves(store, f"redis://reader:quiet@127.0.0.1:{store.port}/0")

    def test_database(self):
        """The database's number is the path, the key's name the query."""
        store = RedisServer(self)
        store.set("0", "results:2026")
        self.serves(store, f"redis://127.0.0.1:{store.port}/7?key=results%3A2026", key="results:2026", database=7)

    def test_tls(self):
        """`rediss:` verifies the certificate against `cafile`, for a name and for an address."""
        authority = Authority(folder_for(self))
        store = RedisServer(self, authority=authority)
        for host in ("localhost", "127.0.0.1"):
            self.serves(store, f"rediss://{host}:{store.tls_port}/0?key=livestate&cafile={authority.certificate}")

    def test_tls_of_a_stranger(self):
        """A certificate that nobody trusted has signed is refused, in one log line that says so."""
        folder = folder_for(self)
        store = RedisServer(self, authority=Authority(folder))
        store.set("{}")
        stranger = Authority(folder, "stranger")
        for query in (f"?cafile={stranger.certificate}", ""):
            service = Livestate(self, f"--source=rediss://localhost:{store.tls_port}/0{query}", INTERVAL)
            service.until_status(failures=lambda n: n >= 4)
            self.assertEqual(service.get().status, 503)
            [line] = service.about()
            self.assertIn("certificate", line)
            self.assertNotIn("Traceback", service.log)

    def test_unix_socket(self):
        """`redis+unix:` reaches a socket, with a database and password."""
        store = RedisServer(self, password="quiet")
        self.serves(store, f"redis+unix://:quiet@{store.socket}?key=livestate&db=3", database=3)

    def test_wrong_login(self):
        """A wrong password is one log line without it, however often it is tried, and is mended without a restart."""
        store = RedisServer(self, password="right")
        store.set("{}")
        source = f"--source=redis://:incorrect@127.0.0.1:{store.port}/0"
        service = Livestate(self, source, INTERVAL)
        service.until_status(failures=lambda n: n >= 4)
        [line] = service.about()
        self.assertIn("rejected the login", line)
        self.assertNotIn("incorrect", service.log + str(service.status()) + str(service.get()))
        self.assertNotIn("Traceback", service.log)
        store.command("CONFIG", "SET", "requirepass", "incorrect")
        until(lambda: service.get().status == 200, "the password is right now", RECOVERY)


class OutageTests(SynchronousTestCase):
    """A Redis that comes and goes."""

    def setUp(self):
        self.store = RedisServer(self)
        self.store.set('{"n":1}')
        self.source = f"--source={self.store.url}?key=livestate"

    def assert_unready(self, answer: Answer) -> None:
        """See that an answer tells a client to come back."""
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer["Content-Type"], "application/problem+json")
        self.assertGreaterEqual(int(answer["Retry-After"]), 1)
        self.assertEqual(answer.json()["status"], 503)
        self.assertTrue(answer.json()["title"])

    def test_started_before_redis(self):
        """Before Redis is there: 503 and one log line; then the document, within 2 s."""
        self.store.stop()
        service = Livestate(self, self.source, https="")
        client = service.client(https=True)
        self.assert_unready(service.get())
        self.assert_unready(client.get())
        time.sleep(3)
        self.assert_unready(service.get())
        [line] = service.about()
        self.assertIn("nothing to serve yet", line)
        self.store.start()
        until(lambda: service.get().status == 200, "serving once Redis is there", RECOVERY)
        self.assertEqual(client.get().body, b'{"n":1}')
        self.assertEqual(len(service.about()), 2)
        self.assertIn("recovered", service.about()[1])
        self.assertNotIn("Traceback", service.log)
        client.close()

    def test_redis_stops(self):
        """While Redis is away the last document is served, ever older, and the new one within 2 s of its return."""
        service = Livestate(self, self.source)
        etag = service.until_served()["ETag"]
        self.store.stop()
        ages = []
        for _ in range(8):
            time.sleep(0.5)
            answer = service.get()
            self.assertEqual((answer.status, answer.body, answer["ETag"]), (200, b'{"n":1}', etag))
            ages.append(int(answer["Livestate-Age"]))
        self.assertEqual(ages, sorted(ages))
        self.assertGreaterEqual(ages[-1], 3)
        self.assertEqual(service.get("/_live/ready").body, b"stale\n")
        [line] = service.about()
        self.assertIn("serving the last good document", line)
        self.store.start()
        self.store.set('{"n":2}')
        until(lambda: service.get().body == b'{"n":2}', "the new one once Redis is back", RECOVERY)
        self.assertEqual(len(service.about()), 2)
        self.assertEqual(service.get("/_live/ready").body, b"ok\n")

    def test_redis_hangs(self):
        """A Redis that accepts and never answers stops nothing, and is noticed within 2 s of answering again."""
        service = Livestate(self, self.source, "--source=/other=demo:")
        service.until_served()
        service.until_served("/other")
        self.store.freeze()
        self.addCleanup(self.store.thaw)
        service.until_status(trouble="no answer within 0.8 s")
        changes = service.status("/other")["changes"]
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            self.assertEqual(service.get().body, b'{"n":1}')
            time.sleep(0.05)
        service.until_status("/other", changes=lambda n: n > changes)
        self.assertEqual(len(service.about()), 1)
        self.store.thaw()
        self.store.set('{"n":2}')
        until(lambda: service.get().body == b'{"n":2}', "the new one once Redis answers", RECOVERY)

    def test_hung_from_the_start(self):
        """With a Redis that hangs from the start, livestate answers 503, and ends at SIGTERM as ever."""
        self.store.freeze()
        self.addCleanup(self.store.thaw)
        service = Livestate(self, self.source)
        service.until_status(trouble="no answer within 0.8 s")
        self.assert_unready(service.get())
        self.assertEqual(service.stop(), TERMINATED)

    def test_not_redis(self):
        """Something else on the port, here a livestate, is one log line that says so."""
        other = Livestate(self, "--source=demo:")
        service = Livestate(self, f"--source=redis://127.0.0.1:{other.http.rpartition(':')[2]}/0", INTERVAL)
        service.until_status(failures=lambda n: n >= 4)
        [line] = service.about()
        self.assertIn("not a Redis reply", line)
        self.assertNotIn("Traceback", service.log)

    def test_nothing_there(self):
        """A refused connection is one log line that names the store and what is wrong."""
        service = Livestate(self, f"--source=redis://127.0.0.1:{free_port()}/0", INTERVAL)
        service.until_status(failures=lambda n: n >= 4)
        [line] = service.about()
        self.assertIn("redis://127.0.0.1", line)
        self.assertIn("refused", line)
