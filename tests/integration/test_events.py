"""Readers of events, and long polls, of a real livestate whose Redis changes, over HTTP and HTTPS."""

import json
import socket
import threading
import time
from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.merge_patch import apply
from tests.integration.events import TIMEOUT, EventReader, document
from tests.integration.http import get
from tests.integration.processes import TERMINATED, memory, until
from tests.integration.servers import Livestate, RedisServer


class EventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = RedisServer(self)
        self.store.set(document(1))
        self.service = Livestate(self, f"--source={self.store.url}", "--interval=0.05", "--heartbeat=1", https="")
        self.service.until_served()

    def reader(self, *args: Any, **kwargs: Any) -> EventReader:
        return EventReader(self, self.service, *args, **kwargs)

    def change(self, version: int, **more: Any) -> None:
        """Set the key, and wait until that is served."""
        self.store.set(document(version, **more))
        until(lambda: self.service.get().json()["version"] == version, f"version {version}")

    def test_changes_reach_everyone(self) -> None:
        """Each change of the key reaches readers over HTTP and HTTPS, of states and of patches, of HTTP/1.1 and 1.0."""
        readers = [
            self.reader(target, https=https, version=version)
            for target in ("/events", "/events?delta=merge")
            for https in (False, True)
            for version in ("1.1", "1.0")
        ]
        for reader in readers:
            reader.until_version(1)
        for version in range(2, 6):
            self.change(version)
        for reader in readers:
            states = reader.until_version(5)
            self.assertEqual(states, [json.loads(document(version)) for version in range(1, 6)])
            kinds = [kind for kind, _, _ in reader.events()]
            self.assertEqual(len(set(kinds)), 2 if "patch" in kinds else 1)
            ids = [int(i.partition("-")[0]) for _, i, _ in reader.events()]
            self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual(sum("patch" in r.stream.decode() for r in readers), 4)

    def test_resume(self) -> None:
        """A reader who comes back with the last id gets what it missed: patches, the state, or nothing."""
        first = self.reader("/events?delta=merge")
        first.until_version(1)
        last = first.events()[-1][1]
        first.socket.close()
        self.change(2)
        self.change(3)
        again = self.reader("/events?delta=merge", Last_Event_ID=last)
        again.until(lambda: len(again.events()) == 2)
        self.assertEqual([kind for kind, _, _ in again.events()], ["patch", "patch"])
        self.assertEqual(apply(json.loads(document(1)), json.loads(again.events()[0][2]))["version"], 2)
        current = again.events()[-1][1]
        whole = self.reader(Last_Event_ID=last)
        self.assertEqual(whole.until_version(3), [json.loads(document(3))])
        none = self.reader(Last_Event_ID=current, https=True)
        none.until(lambda: b":\n\n" in none.stream)
        self.assertEqual(none.events(), [])
        self.change(4)
        none.until_version(4)

    def test_heartbeat(self) -> None:
        """A quiet stream has a comment now and then."""
        for reader in (self.reader(), self.reader(https=True)):
            reader.until(lambda reader=reader: reader.stream.count(b":\n\n") >= 2)  # type: ignore[misc]

    def test_before_the_document(self) -> None:
        """A stream of a document that is not there yet is open, and brings it when it comes."""
        service = Livestate(self, f"--source={self.store.url}?key=later", "--interval=0.05")
        reader = EventReader(self, service)
        reader.until(lambda: b"retry: " in reader.stream)
        self.assertTrue(reader.head.startswith("HTTP/1.1 200 "))
        self.store.set(document(9), key="later")
        self.assertEqual(reader.until_version(9), [json.loads(document(9))])

    def test_slow_reader(self) -> None:
        """A reader who does not read is a few versions behind when it does, not all that there were, and the last is the newest."""
        slow = [self.reader(https=https, receive=4096) for https in (False, True)]
        quick = self.reader()
        for reader in slow:
            reader.until(lambda reader=reader: b"id: " in reader.stream)  # type: ignore[misc]
        for version in range(2, 80):
            self.store.set(document(version, 1000))
            quick.until_version(version)
        until(lambda: self.service.status()["events_skipped"] > 80, "events are skipped")
        for reader in slow:
            states = reader.until_version(79)
            versions = [state["version"] for state in states]
            self.assertEqual(versions, sorted(versions))
            self.assertLess(len(versions), 40)
        self.assertEqual(len(quick.states()), 79)

    def test_reads_nothing(self) -> None:
        """A reader who takes nothing for half a minute is cut off; one who takes a little now and then is not."""
        dead = [self.reader(https=https, receive=4096) for https in (False, True)]
        slow = self.reader(receive=4096)
        begun = time.monotonic()
        version = 1
        while self.service.status()["event_readers"] > 1:
            version += 1
            self.store.set(document(version, 1000))
            slow.read(3000)
            time.sleep(0.2)
            self.assertLess(time.monotonic() - begun, 60)
        self.assertGreater(time.monotonic() - begun, 25)
        slow.until_version(version)
        for reader in dead:
            with self.assertRaises(OSError):
                while reader.read():
                    """What was on the way when it was cut off may still come."""
                raise OSError("the end")

    def test_flood(self) -> None:
        """What a client sends after its request is read past: it costs no memory, and its events go on."""
        reader = self.reader()
        reader.until_version(1)
        reader.socket.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        before = memory(self.service.pid)
        piece = b"x" * 65536
        for _ in range(16 * 64):
            reader.socket.sendall(piece)
        self.assertLess(memory(self.service.pid) - before, 16 * 1024 * 1024)
        self.change(2)
        reader.until_version(2)
        self.assertEqual(reader.received.count(b"HTTP/1.1 "), 1)

    def test_comes_and_goes(self) -> None:
        """A thousand readers who come and go, politely or not, leave nothing behind."""
        for n in range(1000):
            reader = self.reader("/events?delta=merge" if n % 2 else "/events", https=n % 10 == 0)
            if n % 3:
                reader.read()
            if n % 5 == 0:
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            reader.socket.close()
        until(lambda: self.service.status()["event_readers"] == 0, "all are gone")
        self.assertNotIn("Traceback", self.service.log)
        self.assertLess(get(self.service.admin, "/status").json()["connections"], 5)

    def test_stop(self) -> None:
        """At SIGTERM streams end as HTTP ends a body, and long polls are answered."""
        readers = [self.reader(https=https) for https in (False, True)]
        poll = self.reader("/", if_none_match="*", prefer="wait=30")
        for reader in readers:
            reader.until_version(1)
        until(lambda: self.service.status()["long_polls"] == 1, "the poll is held")
        self.assertEqual(self.service.stop(), TERMINATED)
        for reader in readers:
            while reader.read():
                """The rest of the stream."""
            self.assertTrue(reader.received.endswith(b"\r\n0\r\n\r\n"))
        while poll.read():
            """The answer."""
        self.assertTrue(poll.head.startswith("HTTP/1.1 304 "), poll.head)
        self.assertNotIn("Traceback", self.service.log)

    def test_access_log(self) -> None:
        """A stream and a long poll have their line in the access log when they end, with the bytes of the body."""
        log = self.service.folder / "access.log"
        service = Livestate(self, f"--source={self.store.url}", f"--access-log={log}")
        service.until_served()
        reader = EventReader(self, service, User_Agent="reader")
        reader.until_version(1)
        reader.socket.close()
        poll = EventReader(self, service, "/", if_none_match="*", prefer="wait=1", user_agent="poll")
        poll.until(lambda: b"\r\n\r\n" in poll.received)
        until(lambda: '"poll"' in log.read_text() and '"reader"' in log.read_text(), "the lines")
        [line] = [line for line in log.read_text().splitlines() if '"reader"' in line]
        self.assertIn('"GET /events HTTP/1.1" 200 ', line)
        self.assertIn(f" 200 {len(reader.stream)} ", line)
        [line] = [line for line in log.read_text().splitlines() if '"poll"' in line]
        self.assertIn('"GET / HTTP/1.1" 304 - ', line)

    def test_long_poll(self) -> None:
        """A long poll is answered when the key changes, and after its time when it does not, over HTTP and HTTPS."""
        etag = self.service.get()["ETag"]
        polls = [self.reader("/", https=https, if_none_match=etag, prefer="wait=20") for https in (False, True) * 20]
        short = self.reader("/", if_none_match=etag, prefer="wait=1")
        begun = time.monotonic()
        short.until(lambda: b"\r\n\r\n" in short.received)
        self.assertTrue(0.85 <= time.monotonic() - begun < 1.5)
        self.assertTrue(short.head.startswith("HTTP/1.1 304 "))
        self.assertIn("Preference-Applied: wait=1", short.head)
        until(lambda: self.service.status()["long_polls"] == 40, "all wait")
        self.store.set(document(2))
        for poll in polls:
            poll.until(lambda poll=poll: poll.received.endswith(document(2).encode()))  # type: ignore[misc]
            self.assertTrue(poll.head.startswith("HTTP/1.1 200 "))
            self.assertIn("Preference-Applied: wait=20", poll.head)
        self.assertEqual(self.service.status()["long_polls"], 0)

    def test_pollers_during_broadcasts(self) -> None:
        """While many readers are told of changes, those who poll are answered."""
        readers = [self.reader() for _ in range(300)]
        for reader in readers:
            reader.until_version(1)
        stop = threading.Event()
        answers: list[int] = []

        def poll() -> None:
            client = self.service.client()
            while not stop.is_set():
                answers.append(client.get().status)
            client.close()

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        for version in range(2, 12):
            self.change(version)
        for reader in readers:
            states = reader.until_version(11)
            self.assertEqual([state["version"] for state in states], list(range(1, 12)))
            self.assertTrue(all(a < b for (_, a, _), (_, b, _) in pairwise(reader.events())))
        stop.set()
        poller.join(TIMEOUT)
        self.assertEqual(set(answers), {200})
