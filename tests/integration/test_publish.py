"""`livestate publish --watch`."""

import json
import os
import signal

import redis
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import LIMIT, Child, folder_for, free_port, program, run, until
from tests.integration.servers import Livestate, RedisServer


class WatchTests(SynchronousTestCase):
    """Publishing a file that changes."""

    def setUp(self):
        self.store = RedisServer(self)
        self.folder = folder_for(self)
        self.file = self.folder / "results file.json"

    def publish(self, url: str = "") -> Child:
        arguments = ["publish", "--watch", str(self.file), "--to", url or f"{self.store.url}?key=results"]
        return Child(self, [program("livestate"), *arguments], self.folder)

    def until_stored(self, value: str) -> None:
        until(lambda: self.store.command("GET", "results") == value.encode(), f"{value} in Redis")

    def test_changes(self):
        """Each change, written in place or by rename, reaches Redis; Ctrl-C exits with status 0."""
        self.file.write_text("[0]")
        publisher = self.publish()
        self.until_stored("[0]")
        for number in range(1, 4):
            self.file.write_text(f"[{number}]")
            self.until_stored(f"[{number}]")
            new = self.folder / "new"
            new.write_text(f"[{number}, 2]")
            os.replace(new, self.file)
            self.until_stored(f"[{number}, 2]")
        publisher.signal(signal.SIGINT)
        self.assertEqual(publisher.process.wait(LIMIT), 0)
        self.assertEqual(publisher.output, "")

    def test_invalid_file(self):
        """A missing or invalid file is reported once and skipped; the next valid content is published."""
        publisher = self.publish()
        until(lambda: "no such file" in publisher.output, "a line that it is missing")
        self.file.write_text("[1]")
        self.until_stored("[1]")
        for bad in ("[1", "[2", ""):
            self.file.write_text(bad)
            until(lambda: "was not published" in publisher.output.splitlines()[-1], "a line that it is invalid")
            self.assertEqual(self.store.command("GET", "results"), b"[1]")
            self.file.write_text("[1]")
            until(lambda: "published again" in publisher.output.splitlines()[-1], "a line that it is valid again")
        lines = publisher.output.splitlines()
        self.assertEqual(len(lines), 8, lines)
        self.assertIn("results file.json", lines[2])

    def test_store_is_down(self):
        """A Redis that is down is reported once; when it is back, it gets the newest change, which is reported too."""
        self.store.stop()
        self.file.write_text("[1]")
        publisher = self.publish()
        until(lambda: "refused" in publisher.output, "a line that it is down")
        self.file.write_text("[2]")
        self.store.start()
        self.until_stored("[2]")
        until(lambda: "published again" in publisher.output, "a line that it is back")
        self.assertEqual(publisher.output.count("\n"), 2, publisher.output)
        self.assertNotIn("Traceback", publisher.output)

    def test_frozen_store(self):
        """Ctrl-C ends it even while Redis does not respond."""
        self.file.write_text("[1]")
        publisher = self.publish()
        self.until_stored("[1]")
        self.store.freeze()
        self.addCleanup(self.store.thaw)
        self.file.write_text("[2]")
        until(lambda: self.store.thaw is not None and self.file.read_text() == "[2]", "the change")
        publisher.signal(signal.SIGINT)
        self.assertEqual(publisher.process.wait(LIMIT), 0)

    def test_channel(self):
        """With &notify=CHANNEL, setting the key also notifies the channel, so livestate serves the change at once."""
        url = f"{self.store.url}?key=results&notify=changes"
        service = Livestate(self, f"--source={url}", "--interval=60")
        until(service.of_changes, "the subscription")
        self.file.write_text("[1]")
        self.publish(url)
        service.until_body(b"[1]")
        self.file.write_text("[2]")
        service.until_body(b"[2]")

    def test_channel_refused(self):
        """A user without permission for the channel gets an error, and the key is not set."""
        self.store.command("ACL", "SETUSER", "bob", "on", ">pass", "~*", "+@all", "resetchannels")
        url = f"redis://bob:pass@127.0.0.1:{self.store.port}/0?key=results&notify=changes"
        ran = run(program("livestate"), "publish", "-", "--to", url, stdin=b"[1]")
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1))
        self.assertIn("NOPERM", ran.stderr)
        self.assertIsNone(self.store.command("GET", "results"))

    def test_atomic(self):
        """A subscriber notified on the channel finds the new value in the key."""
        url = f"{self.store.url}?key=results&notify=changes"
        with redis.Redis(port=self.store.port, socket_timeout=LIMIT) as client, client.pubsub() as channel:
            channel.subscribe("changes")
            until(lambda: channel.get_message(timeout=0.1), "the subscription")
            for number in range(3):
                ran = run(program("livestate"), "publish", "-", "--to", url, stdin=json.dumps(number).encode())
                self.assertEqual((ran.returncode, ran.stderr), (0, ""))
                until(lambda: channel.get_message(timeout=0.1), "a message")
                self.assertEqual(client.get("results"), json.dumps(number).encode())

    def test_errors(self):
        """A file that cannot be watched, or a store that cannot be written to, is rejected at once."""
        for arguments in (("-", "--to", self.store.url), ("x.json", "--to", "demo:"), ("x.json", "--to", "nonsense")):
            ran = run(program("livestate"), "publish", "--watch", *arguments)
            self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1), ran)
        url = f"redis://:hush@127.0.0.1:{free_port()}/0"
        self.file.write_text("1")
        publisher = self.publish(url)
        until(lambda: "refused" in publisher.output, "a line that it is down")
        self.assertNotIn("hush", publisher.output)
