"""Files and other servers as sources, several documents at once, and what outlives a restart."""

import json
import os
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.processes import TERMINATED, folder_for, until
from tests.integration.servers import Livestate, RedisServer
from tests.integration.upstream import Upstream
from tests.support import replace


class FileTests(SynchronousTestCase):
    """`file:`."""

    def setUp(self):
        self.folder = folder_for(self)
        self.file = self.folder / "results.json"

    def replace(self, content: str) -> None:
        """Put a new file under the old name, as editors and publishers do."""
        replace(self.file, content)

    def test_changes(self):
        """A change by rename or in place is served an interval later, also where size and time stay the same."""
        self.replace("[1]")
        service = Livestate(self, "--source=file:results.json", "--interval=0.2", folder=self.folder)
        service.until_body(b"[1]")
        self.replace("[2]")
        until(lambda: service.get().body == b"[2]", "the renamed file", 1.2)
        before = self.file.stat()
        self.file.write_text("[3]")
        os.utime(self.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        until(lambda: service.get().body == b"[3]", "the file written in place", 1.2)
        self.file.unlink()
        service.until_status(trouble="no such file")
        self.assertEqual(service.get().body, b"[3]")
        self.replace("[4]")
        service.until_body(b"[4]")
        self.assertEqual(len(service.about()), 2, service.about())

    def test_half_written(self):
        """A file that is written in place, slowly, is never served half-written."""

        def text(version: int) -> str:
            return json.dumps({"version": version, "votes": [version] * 60000})

        self.replace(text(1))
        service = Livestate(self, f"--source=file:{self.file}", "--interval=0.05")
        service.until_served()
        stop = threading.Event()

        def write() -> None:
            version = 1
            while not stop.is_set():
                version += 1
                content = text(version)
                with open(self.file, "w", encoding="utf-8", buffering=1) as file:
                    for start in range(0, len(content), len(content) // 10 + 1):
                        file.write(content[start : start + len(content) // 10 + 1])
                        file.flush()
                        time.sleep(0.02)
                time.sleep(0.2)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        client = service.client()
        versions = set()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            answer = client.get(Accept_Encoding="gzip")
            self.assertEqual(answer.status, 200)
            document = answer.json()
            self.assertEqual(document["votes"], [document["version"]] * 60000)
            versions.add(document["version"])
            time.sleep(0.01)
        client.close()
        stop.set()
        writer.join(10)
        self.assertGreater(len(versions), 3)
        self.assertGreater(service.status()["refusals"], 0, "not once was it read half-written: the test shows nothing")

    def test_not_a_file(self):
        """A folder, a FIFO and a device are refused at once, in one line, and stop nothing."""
        os.mkfifo(self.folder / "fifo")
        for name in ("/dev/zero", str(self.folder), f"{self.folder}/fifo"):
            service = Livestate(self, f"--source=file:{name}", "--source=/other=demo:", "--interval=0.2")
            service.until_status(failures=lambda n: n >= 3)
            service.until_served("/other")
            self.assertEqual(service.get().status, 503)
            self.assertEqual(len(service.about()), 1, service.about())
            self.assertEqual(service.stop(), TERMINATED)


class UpstreamTests(SynchronousTestCase):
    """`http:` and `https:`."""

    def setUp(self):
        self.upstream = Upstream(self)
        self.source = f"--source=http://127.0.0.1:{self.upstream.server_port}/results.json"

    def test_conditional(self):
        """An unchanged document is asked for conditionally and costs a 304; a changed one is served."""
        service = Livestate(self, self.source, "--interval=0.2")
        service.until_body(b'{"n":1}')
        until(lambda: self.upstream.statuses.count(304) >= 3, "conditional requests")
        self.assertEqual(self.upstream.statuses.count(200), 1)
        self.assertTrue(service.status()["fresh"])
        self.upstream.body = b'{"n":2}'
        service.until_body(b'{"n":2}')
        self.assertEqual(self.upstream.statuses.count(200), 2)

    def test_troubles(self):
        """Whatever else it answers is one log line each, and the last good document stays."""
        service = Livestate(self, self.source, "--interval=0.5", "--max-size=10000")
        service.until_served()
        answers: list[tuple[int, bytes, dict[str, str], str]] = [
            (500, b"oops", {}, "answered 500"),
            (404, b"gone", {}, "answered 404"),
            (302, b"", {"Location": "http://127.0.0.1:1/"}, "redirects are not followed"),
            (200, b"<html>", {}, "malformed"),
            (200, b'"' + b"x" * 20000 + b'"', {}, "--max-size"),
            (200, b"[1]", {"Content-Encoding": "gzip"}, ""),
        ]
        for number, (status, body, more, word) in enumerate(answers):
            self.upstream.status, self.upstream.body, self.upstream.more = status, body, more
            service.until_status(trouble=lambda text, word=word: text and word in text)
            count = service.status()["failures"]
            service.until_status(failures=lambda n, count=count: n >= count + 2)
            self.assertEqual(len(service.about()), number + 1, service.about())
            self.assertEqual(service.get().body, b'{"n":1}')
        self.assertNotIn("Traceback", service.log)

    def test_hangs(self):
        """One that accepts and never answers is a timeout in one line; others are asked on."""
        service = Livestate(self, self.source, "--source=/other=demo:", "--interval=0.3")
        service.until_served()
        self.upstream.hold.clear()
        self.addCleanup(self.upstream.hold.set)
        service.until_status(trouble="no answer within 0.24 s")
        changes = service.status("/other")["changes"]
        service.until_status("/other", changes=lambda n: n > changes)
        self.assertEqual(service.get().body, b'{"n":1}')
        self.assertEqual(len(service.about()), 1, service.about())
        self.assertNotIn("Traceback", service.log)
        self.upstream.body = b'{"n":2}'
        self.upstream.hold.set()
        service.until_body(b'{"n":2}')

    def test_chain(self):
        """A livestate can be the source of another, over HTTPS; its certificate is verified."""
        folder = folder_for(self)
        authority = Authority(folder)
        key, certificate = authority.issue()
        first = Livestate(self, self.source, "--interval=0.6", https=f":privateKey={key}:certKey={certificate}")
        first.until_served()
        source = f"--source={first.https}/"
        distrusting = Livestate(self, source, "--interval=0.6")
        distrusting.until_status(failures=lambda n: n >= 3)
        [line] = distrusting.about()
        self.assertIn("certificate", line)
        trusting = Livestate(
            self, source, "--interval=0.6", env={**os.environ, "SSL_CERT_FILE": str(authority.certificate)}
        )
        trusting.until_body(b'{"n":1}')
        self.upstream.body = b'{"n":2}'
        trusting.until_body(b'{"n":2}')


class SeveralTests(SynchronousTestCase):
    """Several documents."""

    def test_each_at_its_own_pace(self):
        """Two documents come from different sources, at intervals of their own."""
        folder = folder_for(self)
        store = RedisServer(self)
        store.set("[1]")
        (folder / "turnout.json").write_text("[2]")
        config = folder / "livestate.toml"
        config.write_text(
            f"""
            [[document]]
            source = "{store.url}"
            interval = 0.1
            [[document]]
            path = "/turnout.json"
            source = "file:turnout.json"
            interval = 1.5
            """
        )
        service = Livestate(self, f"--config={config}", folder=folder)
        service.until_body(b"[1]")
        service.until_body(b"[2]", "/turnout.json")
        fetches = service.status("/")["fetches"]
        service.until_status("/", fetches=lambda n: n >= fetches + 20)
        self.assertLess(service.status("/turnout.json")["fetches"], service.status("/")["fetches"] // 4)
        store.stop()
        service.until_status("/", trouble=bool)
        (folder / "turnout.json").write_text("[3]")
        service.until_body(b"[3]", "/turnout.json")
        self.assertEqual(service.about("/turnout.json"), [])


class RestartTests(SynchronousTestCase):
    """What is left when the store is gone."""

    def test_state_dir(self):
        """After a restart while the store is down the saved document is served, as old as it is, with its ETags."""
        store = RedisServer(self)
        folder = folder_for(self)
        options = (f"--source=/results.json={store.url}", f"--state-dir={folder}/state")
        body = json.dumps(list(range(500)))
        store.set(body)
        service = Livestate(self, *options)
        first = service.until_served("/results.json")
        etag = service.get("/results.json", Accept_Encoding="br")["ETag"]
        store.stop()
        stopped = time.time()
        self.assertEqual(service.stop(), TERMINATED)
        time.sleep(2.5)
        service = Livestate(self, *options)
        answer = service.get("/results.json", Accept_Encoding="br")
        self.assertEqual((answer.status, answer["ETag"], answer.document.decode()), (200, etag, body))
        self.assertEqual(answer["Last-Modified"], first["Last-Modified"])
        self.assertGreaterEqual(int(answer["Livestate-Age"]), 2)
        self.assertLessEqual(int(answer["Livestate-Age"]), time.time() - stopped + 3)
        until(lambda: service.get("/_live/ready").body == b"stale\n", "three intervals without a good fetch", 5)
        self.assertIn("serving the document saved", service.log)
        store.start()
        store.set("[]")
        service.until_body(b"[]", "/results.json")
        self.assertEqual(service.get("/results.json")["Livestate-Age"], "0")

    def test_damaged(self):
        """A saved document that is damaged is one log line, and 503 until the store gives another."""
        store = RedisServer(self)
        folder = folder_for(self)
        store.set("[1,2,3]")
        options = (f"--source={store.url}", f"--state-dir={folder}")
        service = Livestate(self, *options)
        service.until_served()
        service.stop()
        [saved] = folder.iterdir()
        saved.write_bytes(saved.read_bytes().replace(b"2", b"9"))
        store.stop()
        service = Livestate(self, *options)
        self.assertEqual(service.get().status, 503)
        self.assertEqual(service.log.count("ignoring the saved document"), 1, service.log)
        store.start()
        service.until_body(b"[1,2,3]")

    def test_max_stale(self):
        """Past --max-stale 503 is answered instead of the old document, also to conditional requests."""
        store = RedisServer(self)
        store.set("[1]")
        service = Livestate(self, f"--source={store.url}", "--max-stale=2", "--interval=0.5")
        etag = service.until_served()["ETag"]
        store.stop()
        self.assertEqual(service.get().status, 200)
        until(lambda: service.get().status == 503, "503 for a document that is too old", 6)
        for answer in (service.get(), service.get(If_None_Match=etag)):
            self.assertEqual((answer.status, answer["Content-Type"]), (503, "application/problem+json"))
            self.assertEqual(answer["Retry-After"], "1")
        store.start()
        until(lambda: service.get().status == 200, "the document is back")
        self.assertEqual(service.get(If_None_Match=etag).status, 304)
