"""livestate behind the caches and proxies of etc/: Varnish, nginx, HAProxy and hitch, as Debian has them."""

import socket
import threading
import time
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.events import EventReader, document
from tests.integration.fronts import ACCEPTED, Front, Fronts
from tests.integration.http import Answer
from tests.integration.load import Wrk
from tests.integration.processes import LIMIT, program, run, until
from tests.integration.servers import Livestate
from tests.support import replace

#: Requests a second, for one document in one coding, that may come to livestate at most.
MOST = 1.5


def varnish_and_others(fronts: Fronts, port: int) -> list[Front]:
    """Start all that stands before Varnish, and Varnish."""
    varnish = fronts.varnish(port)
    return [varnish, fronts.haproxy(port, varnish), fronts.hitch(varnish)]


class Behind:
    """livestate, its document in a file, behind the fronts that the class names.

    The fronts of one class stand before the same cache, and so are looked at at once.
    """

    def begin(self, fronts: Fronts) -> list[Front]:
        """Start the fronts."""
        raise NotImplementedError

    def setUp(self: Any) -> None:
        self.fronts_of = Fronts(self)
        self.file = self.fronts_of.folder / "results.json"
        self.version = 0
        self.change()
        self.service = Livestate(self, f"--source=file:{self.file}")
        self.port = int(self.service.http.rpartition(":")[2])
        self.service.until_served()
        self.fronts = self.begin(self.fronts_of)
        self.ways = [(front, https) for front in self.fronts for https in (False, True) if self.url(front, https)]
        for front, https in self.ways:
            until(partial(self.answers, front, https), f"{front.name} answers")

    def url(self, front: Front, https: bool) -> str:
        return front.https if https else front.http

    def answers(self: Any, front: Front, https: bool) -> bool:
        try:
            return bool(self.get(front, https).status == 200)
        except OSError:
            return False

    def get(self, front: Front, https: bool, path: str = "/", method: str = "GET", **fields: str) -> Answer:
        client = front.client(https)
        try:
            return client.get(path, method, **fields)
        finally:
            client.close()

    def change(self: Any) -> int:
        """Put the next version of the document into the file."""
        self.version += 1
        replace(self.file, document(self.version))
        return int(self.version)

    def until_version(self: Any, version: int) -> None:
        """Wait until all fronts give a version, or a later one, in every coding."""
        for front, https in self.ways:
            for accepted in ("br", "zstd", "gzip", "identity"):
                got = partial(self.has, version, front, https, accepted)
                until(got, f"version {version} through {front.name} in {accepted}")

    def has(self, version: int, front: Front, https: bool, accepted: str) -> bool:
        return bool(self.get(front, https, Accept_Encoding=accepted).json()["version"] >= version)

    def counts(self: Any) -> dict[str, int]:
        """Give the answers that livestate has given, by kind."""
        # They are counted when the prepared answers are dropped, each second.
        time.sleep(1.1)
        answers: dict[str, int] = self.service.status()["answers"]
        return answers

    def test_once_a_second(self: Any) -> None:
        """Whatever the load, livestate is asked 1.5 times a second for each coding at most, and readers are up to date."""
        loads = [self.fronts_of.load(self.url(front, https), 10) for front, https in self.ways]
        begun, before = time.monotonic(), self.counts()
        # With a new version all the time, each answer is a whole one, counted by its coding.
        while time.monotonic() < begun + 8:
            time.sleep(0.2)
            self.change()
        version = self.change()
        self.until_version(version)
        took, seconds = time.monotonic() - begun - 8, time.monotonic() - begun
        self.assertLess(took, 6, "a change was not seen in time")
        results = [load.result() for load in loads]
        after = self.counts()
        asked = {kind: count - before.get(kind, 0) for kind, count in after.items()}
        for result in results:
            self.assertGreater(result.pop("requests"), 2000)
            self.assertEqual(set(result.values()), {0}, result)
        for coding in ("br", "zstd", "gzip", "identity"):
            self.assertTrue(0 < asked[coding] <= MOST * seconds, f"{asked} in {seconds} s")
        # Whatever did not change from one question to the next is answered 304, and is not counted by its coding.
        self.assertTrue(4 * 0.3 * seconds < sum(asked.values()) <= 4 * MOST * seconds, f"{asked} in {seconds} s")

    def test_away(self: Any) -> None:
        """While livestate is away, readers get the last document, readers of events come back; and it recovers."""
        readers = [EventReader(self, front, https=https) for front, https in self.ways]
        for reader in readers:
            reader.until_version(1)
        self.until_version(1)
        loads = [self.fronts_of.load(self.url(front, https), 9, 10) for front, https in self.ways]
        time.sleep(1)
        self.service.kill()
        for reader in readers:
            while reader.read():
                pass
        deadline = time.monotonic() + 3.5
        while time.monotonic() < deadline:
            for front, https in self.ways:
                for accepted in ("br", "zstd", "gzip", "identity"):
                    answer = self.get(front, https, Accept_Encoding=accepted)
                    self.assertEqual((answer.status, answer.json()["version"]), (200, 1), front)
        for front, https in self.ways:
            stream = self.get(front, https, "/events", Accept="text/event-stream")
            self.assertEqual((stream.status, stream.body), (200, b"retry: 3000\n\n"), front)
            self.assertEqual((stream["Content-Type"], stream["Cache-Control"]), ("text/event-stream", "no-store"))
            self.assertEqual(stream["Access-Control-Allow-Origin"], "*")
            self.assertEqual(self.get(front, https, "/other.json").status, 503, front)
        # At first it has nothing to serve, and says so.
        self.file.unlink()
        self.service.start()
        self.assertEqual(self.service.get().status, 503)
        for front, https in self.ways:
            for accepted in ("br", "zstd", "gzip", "identity"):
                self.assertTrue(self.has(1, front, https, accepted), front)
        self.until_version(self.change())
        for front, https in self.ways:
            until(partial(self.streams, front, https), f"events through {front.name}")
        for load in loads:
            result = load.result()
            self.assertGreater(result.pop("requests"), 1000)
            self.assertEqual(set(result.values()), {0}, result)

    def streams(self: Any, front: Front, https: bool) -> bool:
        reader = EventReader(self, front, https=https)
        reader.until(lambda: reader.ended or b"retry" in reader.received)
        return "no-store" in reader.head and b"retry: 3000" not in reader.received

    def test_events(self: Any) -> None:
        """Events come one by one, when they happen, whole or as patches; long polls are held until then."""
        targets = [(way, target) for way in self.ways for target in ("/events", "/events?delta=merge")]
        begun = time.monotonic()
        readers = [EventReader(self, front, target, https=https) for (front, https), target in targets]
        for _ in range(4):
            for reader in readers:
                reader.until_version(self.version)
            # livestate itself is slower by its poll, a second, at most; what is gathered would wait for a sign of
            # life, 15 s.
            self.assertLess(time.monotonic() - begun, 5)
            etag = self.service.until_body(document(self.version).encode())["ETag"]
            polls = [
                EventReader(self, front, "/", https=https, If_None_Match=etag, Prefer="wait=30")
                for front, https in self.ways
            ]
            self.service.until_status(long_polls=len(polls))
            begun = time.monotonic()
            self.change()
            for poll in polls:
                poll.until_end(document(self.version).encode())
                self.assertIn("preference-applied: wait=30", poll.head.lower())
        for reader in readers:
            reader.until_version(self.version)
            self.assertIn("text/event-stream", reader.head)
        kinds = [{kind for kind, _, _ in reader.events()} for reader in readers]
        self.assertEqual(kinds, [{"message"}, {"message", "patch"}] * len(self.ways))

    def test_meaning(self: Any) -> None:
        """Codings, entity tags, 304 and the fields that caches heed are through the front what livestate sends."""
        for accepted in ACCEPTED:
            self.service.get(Accept_Encoding=accepted)
        etags = {name: of["etag"] for name, of in self.service.status()["representations"].items()}
        self.assertEqual(len(set(etags.values())), 4)
        for front, https in self.ways:
            client = front.client(https)
            self.addCleanup(client.close)
            for accepted, coding in ACCEPTED.items():
                answer = client.get(Accept_Encoding=accepted)
                self.assertEqual(answer["ETag"], etags[coding], f"{front.name}: {accepted!r}")
                self.assertEqual(answer["Content-Encoding"] or "identity", coding)
                self.assertEqual(answer.document, document(1).encode())
                for etag in etags.values():
                    again = client.get(Accept_Encoding=accepted, If_None_Match=f'"other", {etag}')
                    self.assertEqual(again.status, 304 if etag == etags[coding] else 200, f"{front.name}: {accepted!r}")
                    self.assertEqual(again["ETag"], etags[coding])
            self.assertEqual(client.get()["ETag"], etags["identity"])
            direct, answer = self.service.get(Accept_Encoding="br"), client.get(Accept_Encoding="br")
            for name in ("Cache-Control", "Vary", "Link", "Content-Type", "Access-Control-Allow-Origin"):
                self.assertEqual(answer[name], direct[name], f"{front.name}: {name}")
            self.assertTrue(answer["Livestate-Age"].isdecimal())
            # By it the same document, changed twice in a second, would be taken for the same.
            since = client.get(If_Modified_Since=direct["Last-Modified"])
            self.assertEqual(since.status, 200, front.name)
            both = client.get(If_Modified_Since=answer["Last-Modified"], If_None_Match=etags["identity"])
            self.assertEqual(both.status, 304 if answer["Last-Modified"] else 200, front.name)
            head = client.get(method="HEAD", Accept_Encoding="br")
            self.assertEqual((head.status, head["ETag"], head.body), (200, etags["br"], b""))
            preflight = client.get(method="OPTIONS", Origin="https://example.org", Access_Control_Request_Method="GET")
            self.assertEqual((preflight.status, preflight["Access-Control-Allow-Origin"]), (204, "*"))
            module = client.get("/_live/livestate.js?1", Accept_Encoding="br")
            self.assertEqual(module.document, self.service.get("/_live/livestate.js").document)
            again = client.get("/_live/livestate.js", Accept_Encoding="br", If_None_Match=module["ETag"])
            self.assertEqual(again.status, 304, front.name)
            self.assertEqual(client.get("/nothing").status, 404)
            self.assertEqual(client.get(method="POST").status, 405)
            self.assertEqual(client.get("//").status, self.get(front, https, "//").status)
            self.check(self.url(front, https))

    def check(self: Any, url: str) -> None:
        """Have `livestate check` look at it."""
        ran = run(program("livestate"), "check", f"{url}/", "--cafile", self.fronts_of.cafile)
        self.assertEqual((ran.returncode, ran.stdout.splitlines()[-1:]), (0, ["no problems found"]), ran)

    def test_quiet(self: Any) -> None:
        """After a quiet period the first client gets the current document, in the content coding that it prefers."""
        self.until_version(1)
        version = self.change()
        self.service.until_body(document(version).encode())
        time.sleep(3.2)
        for accepted in ("gzip, deflate, br, zstd", "zstd", "gzip", "identity"):
            for front, https in self.ways:
                answer = self.get(front, https, Accept_Encoding=accepted)
                self.assertEqual(answer.json()["version"], version, f"{front.name} in {accepted}")
                self.assertEqual(answer["Content-Encoding"] or "identity", ACCEPTED.get(accepted, accepted), front.name)

    def test_frozen(self: Any) -> None:
        """A livestate that takes connections but does not answer keeps one reader of each coding waiting, and not long."""
        self.until_version(1)
        self.service.freeze()
        loads: list[Wrk] = []
        begun = time.monotonic()
        while time.monotonic() < begun + 6:
            # Not before the time is over in which the document may be given out while it is asked for anew.
            if not loads and time.monotonic() > begun + 3:
                loads = [self.fronts_of.load(self.url(front, https), 3) for front, https in self.ways]
            for front, https in self.ways:
                asked = time.monotonic()
                answer = self.get(front, https, Accept_Encoding="br")
                self.assertEqual((answer.status, answer.json()["version"]), (200, 1), front)
                self.assertLess(time.monotonic() - asked, 4, front)
        for load in loads:
            result = load.result()
            # If all waited for two seconds, there would be a hundred.
            self.assertGreater(result["requests"], 1000)
            self.assertEqual(result["refused"], 0)
        self.service.thaw()
        self.until_version(self.change())


class VarnishTests(Behind, SynchronousTestCase):
    """Varnish, alone, and behind HAProxy and hitch."""

    def begin(self, fronts: Fronts) -> list[Front]:
        return varnish_and_others(fronts, self.port)


class NginxTests(Behind, SynchronousTestCase):
    """nginx."""

    def begin(self, fronts: Fronts) -> list[Front]:
        return [fronts.nginx(self.port)]


class UpgradeTests(SynchronousTestCase):
    """A request for a WebSocket, of which the fronts understand nothing but that it is one."""

    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        threading.Thread(target=self.accept, daemon=True).start()
        fronts = Fronts(self)
        port = self.listener.getsockname()[1]
        self.fronts = [fronts.nginx(port), *varnish_and_others(fronts, port)]

    def accept(self) -> None:
        """Stand in for livestate: switch to a protocol that gives everything back."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(LIMIT)
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1) or b"\r\n\r\n"
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                if b"upgrade" in fields.get(b"connection", b"") and fields[b"upgrade"] == b"websocket":
                    answer = b"101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    answer += b"Sec-WebSocket-Accept: " + fields[b"sec-websocket-key"] + b"\r\n"
                else:
                    answer = b"200 OK\r\nContent-Length: 0\r\nConnection: close\r\n"
                connection.sendall(b"HTTP/1.1 " + answer + b"\r\n")
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                pass

    def test_both_directions(self) -> None:
        """It is passed on, and then every byte as it comes, in both directions."""
        key: Any = {"Sec_WebSocket_Key": "x3JJHMbDL1EzLkh9GBhXDw==", "Sec_WebSocket_Version": "13"}
        for front in self.fronts:
            for https in (False, True):
                if not (front.https if https else front.http):
                    continue
                reader = EventReader(self, front, https=https, Upgrade="websocket", Connection="Upgrade", **key)
                reader.until_end(b"\r\n\r\n")
                self.assertTrue(reader.head.startswith("HTTP/1.1 101 "), f"{front.name}: {reader.head}")
                # What is given back of the longest fits into the buffers on the way.
                for size in (1, 5, 50000):
                    reader.received = b""
                    sent = bytes(size - 1) + b"."
                    reader.socket.sendall(sent)
                    reader.until_end(sent)
