"""Changes that the store tells of: served at once, though the source is asked only each half minute."""

import os
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import Authority
from tests.integration.processes import TERMINATED, folder_for, program, run, until
from tests.integration.servers import Livestate, RedisServer
from tests.support import replace

#: Seconds from a change until it is served: it takes milliseconds, and half a minute where the push does not work.
AT_ONCE = 5.0


class PushCase(SynchronousTestCase):
    """A livestate that asks seldom."""

    def serve(self, source: str, *options: str) -> Livestate:
        """Start a livestate whose next fetch, unless it is told, is far off."""
        return Livestate(self, f"--source={source}", "--interval=30", *options)

    def listening(self, service: Livestate) -> None:
        """Wait until it is told of changes."""
        until(lambda: "listening for changes on" in service.log, "the subscription")

    def assert_at_once(self, service: Livestate, body: str) -> None:
        """See that a document is served long before it would have been found by polling."""
        until(lambda: service.get().body == body.encode(), f"{body} at once", AT_ONCE)


class ChannelTests(PushCase):
    """`notify=CHANNEL`."""

    def change(self, store: RedisServer, service: Livestate, value: str, database: int = 0) -> None:
        """Write, publish, and see that it is served."""
        store.set(value, database=database)
        store.command("PUBLISH", "results", "whatever")
        self.assert_at_once(service, value)

    def test_published(self):
        """Whatever is published on the channel has the key fetched at once, each time; `livestate publish` does it."""
        store = RedisServer(self)
        store.set("0")
        url = f"{store.url}?key=livestate&notify=results"
        service = self.serve(url)
        self.listening(service)
        for value in range(1, 20):
            self.change(store, service, str(value))
        published = run(program("livestate"), "publish", "-", "--to", url, stdin=b'{"by": "livestate"}')
        self.assertEqual(published.returncode, 0, published.stderr)
        self.assert_at_once(service, '{"by": "livestate"}')
        self.assertGreaterEqual(service.status()["notifications"], 20)
        self.assertLessEqual(service.status()["fetches"], 25)
        self.assertEqual(service.stop(), TERMINATED)
        self.assertEqual(len(service.of_changes()), 1, service.of_changes())
        self.assertNotIn("Traceback", service.log)

    def test_addresses(self):
        """The subscription logs in as the fetch does: with a password, over TLS, over a Unix socket."""
        authority = Authority(folder_for(self))
        store = RedisServer(self, password="quiet", authority=authority)
        for url, database in (
            (f"redis://:quiet@127.0.0.1:{store.port}/4?notify=results", 4),
            (f"rediss://:quiet@localhost:{store.tls_port}?cafile={authority.certificate}&notify=results", 0),
            (f"redis+unix://:quiet@{store.socket}?db=3&notify=results", 3),
        ):
            service = self.serve(url)
            self.listening(service)
            self.change(store, service, f'"{url[:8]}"', database)
            self.assertNotIn("quiet", service.log)
            service.stop()

    def test_restart(self):
        """The subscription comes back after Redis was away, without a missed change, in one log line each way."""
        store = RedisServer(self)
        store.set("1")
        service = self.serve(f"{store.url}?notify=results")
        self.listening(service)
        store.stop()
        until(lambda: len(service.of_changes()) >= 2, "the loss")
        store.start()
        store.set("2")
        self.assert_at_once(service, "2")
        until(lambda: service.log.count("listening for changes on") == 2, "the new subscription")
        self.change(store, service, "3")
        self.assertNotIn("Traceback", service.log)

    def test_silent(self):
        """A subscription whose server answers no more is noticed, and made anew once it answers."""
        store = RedisServer(self)
        store.set("1")
        service = self.serve(f"{store.url}?notify=results")
        self.listening(service)
        store.freeze()
        self.addCleanup(store.thaw)
        until(lambda: "change notifications unavailable: no answer within 5 s" in service.log, "the silence")
        store.thaw()
        until(lambda: service.log.count("listening for changes on") == 2, "the new subscription")
        self.change(store, service, "2")

    def test_refused(self):
        """Where the user may not listen on the channel, one log line says so, and the poll finds changes."""
        store = RedisServer(self, options=("--user", "reader", "on", ">quiet", "~*", "resetchannels", "+@all"))
        store.set("1")
        url = f"redis://reader:quiet@127.0.0.1:{store.port}/0?notify=results"
        service = Livestate(self, f"--source={url}", "--interval=0.6")
        service.until_body(b"1")
        store.set("2")
        service.until_body(b"2")
        fetches = service.status()["fetches"]
        service.until_status(fetches=lambda n: n > fetches + 15)
        [line] = service.of_changes()
        self.assertRegex(line, "change notifications unavailable: Redis refused the channel 'results': .*permissions")
        self.assertEqual(service.about(), [])

    def test_down_at_start(self):
        """Started before Redis, it listens once Redis is there."""
        store = RedisServer(self, start=False)
        service = self.serve(f"{store.url}?notify=results")
        until(lambda: "change notifications unavailable: " in service.log, "the failure")
        store.start()
        self.listening(service)
        self.change(store, service, "1")


class FileTests(PushCase):
    """`file:`, by inotify."""

    def setUp(self):
        self.folder = folder_for(self)
        self.file = self.folder / "results.json"

    def test_changes(self):
        """A file that is replaced or written in place is served at once, and not before it is whole."""
        self.file.write_text("1")
        service = self.serve(f"file:{self.file}")
        until(lambda: "watching for changes with inotify" in service.log, "the watch")
        for value in range(2, 12, 2):
            replace(self.file, str(value))
            self.assert_at_once(service, str(value))
            with open(self.file, "w", encoding="utf-8") as file:
                file.write("[")
                file.flush()
                file.write(f"{value}]")
            self.assert_at_once(service, f"[{value}]")
        self.assertEqual(service.about(), [])
        self.assertEqual(len(service.of_changes()), 1)
        self.assertEqual(service.stop(), TERMINATED)
        self.assertNotIn("Traceback", service.log)

    def test_swapped(self):
        """A volume of Kubernetes, where a link is swapped, is served at once."""
        for version in ("1", "2"):
            (self.folder / f"..{version}").mkdir()
            (self.folder / f"..{version}" / "results.json").write_text(version)
        (self.folder / "..data").symlink_to("..1")
        self.file.symlink_to("..data/results.json")
        service = self.serve(f"file:{self.file}")
        service.until_body(b"1")
        until(lambda: "watching for changes with inotify" in service.log, "the watch")
        (self.folder / "..data_tmp").symlink_to("..2")
        os.rename(self.folder / "..data_tmp", self.folder / "..data")
        self.assert_at_once(service, "2")


class KeyspaceTests(PushCase):
    """`notify=keyspace`."""

    def test_touched(self):
        """Each way of writing the key is seen at once; other keys and databases are not listened to."""
        store = RedisServer(self, options=("--notify-keyspace-events", "KA"))
        store.set("1", "a:[b]*", 2)
        service = self.serve(f"redis://127.0.0.1:{store.port}/2?key=a:[b]*&notify=keyspace")
        self.listening(service)
        store.set("2", "a:[b]*", 2)
        self.assert_at_once(service, "2")
        told = service.status()["notifications"]
        store.set("3", "a:b", 2)
        store.set("4", "a:[b]*", 0)
        store.set("5", "other", 2)
        store._client.execute_command("SELECT", 2)
        store.command("RENAME", "other", "a:[b]*")
        self.assert_at_once(service, "5")
        self.assertEqual(service.status()["notifications"], told + 1)
        self.assertEqual(len(service.of_changes()), 1)

    def test_switched_off(self):
        """Where Redis does not tell of its keys, one log line says what to do, and Redis's setting stays as it was."""
        store = RedisServer(self, options=("--notify-keyspace-events", "Ex"))
        store.set("1")
        service = Livestate(self, f"--source={store.url}?notify=keyspace", "--interval=0.3")
        self.listening(service)
        store.set("2")
        service.until_body(b"2")
        [line] = [line for line in service.of_changes() if "notify-keyspace-events" in line]
        self.assertIn("changes are found only by polling", line)
        self.assertEqual(self.flags(store), "Ex")
        wanted = re.search("run CONFIG SET notify-keyspace-events ([^ ]+) on the server", line)
        assert wanted is not None
        told = service.status()["notifications"]
        store.command("CONFIG", "SET", "notify-keyspace-events", wanted[1])
        self.assertEqual(self.flags(store), "$EKgx")
        store.set("3")
        service.until_status(notifications=lambda n: n > told)

    def flags(self, store: RedisServer) -> str:
        """Give Redis's setting, sorted."""
        [flags] = store.command("CONFIG", "GET", "notify-keyspace-events").values()
        return "".join(sorted(flags.decode()))

    def test_setting_hidden(self):
        """Where the user may not see the setting, that is one log line, and the key is listened to all the same."""
        user = ("--user", "reader", "on", ">quiet", "~*", "&*", "+get", "+subscribe", "+ping", "+select")
        store = RedisServer(self, options=("--notify-keyspace-events", "K$", *user))
        store.set("1")
        service = self.serve(f"redis://reader:quiet@127.0.0.1:{store.port}/0?notify=keyspace")
        self.listening(service)
        store.set("2")
        self.assert_at_once(service, "2")
        [line] = [line for line in service.of_changes() if "cannot check whether" in line]
