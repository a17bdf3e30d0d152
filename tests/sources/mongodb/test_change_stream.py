"""Change streams of a fake collection, and a real server without them.

No server with change streams can be installed for tests; `LIVESTATE_TEST_MONGODB` may name one.
"""

import struct
import threading
from typing import Any

from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from livestate.errors import SettingsError
from livestate.sources.api import IWatching
from livestate.sources.factory import make_source
from livestate.sources.mongodb import change_stream
from livestate.sources.mongodb.change_stream import MongoChanges
from tests.sources.mongodb.test_source import ServerTestCase
from tests.support import FakeReactor, log_lines, until

reactor: Any = _reactor


class FakeStream:
    """A fake stream with scripted answers: a change, None, an error, or the end. After the last it waits."""

    def __init__(self, collection, answers):
        self.collection = collection
        self.answers = answers
        self.alive = True
        self.closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def try_next(self):
        if not self.answers:
            self.collection.idle.set()
            self.collection.resume.wait(0.01)
            return None
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if answer == "end":
            self.alive = False
            return None
        return answer


class FakeCollection:
    """A fake collection with scripted streams and errors."""

    def __init__(self, script):
        self.script = script
        self.watched = []
        self.streams = []
        self.idle = threading.Event()
        self.resume = threading.Event()

    def watch(self, pipeline, max_await_time_ms):
        self.watched.append((pipeline, max_await_time_ms))
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        self.streams.append(FakeStream(self, step))
        return self.streams[-1]


class ChangesTests(TestCase):
    """Reading a change stream in the thread."""

    timeout = 20

    def start(self, script, timeout_ms=2000, max_delay_when_refused=0.04):
        self.patch(change_stream, "FIRST_DELAY", 0.02)
        self.patch(change_stream, "MAX_DELAY", 0.04)
        self.patch(change_stream, "MAX_DELAY_WHEN_REFUSED", max_delay_when_refused)
        self.collection = FakeCollection(script)
        collection: Any = self.collection
        self.notified: list[Any] = []
        self.changes = MongoChanges(reactor, collection, timeout_ms, lambda error: f"server: {error}", "mongodb://h/d")
        self.addCleanup(self.changes.stop)
        self.changes.start(lambda: self.notified.append(threading.current_thread()))

    def threads(self):
        return [thread for thread in threading.enumerate() if thread.name == "change stream"]

    async def test_notifies(self):
        """It notifies, in the reactor's thread, when the stream starts and at each change, and not otherwise."""
        with log_lines() as lines:
            self.start([[{"_id": 1}, None, {"_id": 2}, None, None]])
            await until(reactor, self.collection.idle.is_set)
            await until(reactor, lambda: len(self.notified) >= 3)
        self.assertEqual(self.notified, [threading.current_thread()] * 3)
        self.assertEqual(lines, ["mongodb://h/d: listening for changes through a change stream"])
        [(pipeline, wait)] = self.collection.watched
        self.assertEqual((pipeline, wait), ([{"$project": {"_id": True}}], 1000))

    async def test_short_timeout(self):
        """The server is asked to answer well before the driver times out."""
        self.start([[]], timeout_ms=500)
        await until(reactor, lambda: self.collection.watched)
        self.assertEqual(self.collection.watched[0][1], 250)

    async def test_long_outage(self):
        """However long the server was away, listening resumes about a second after it is back."""
        self.start([AutoReconnect("away") for _ in range(16)] + [[{"_id": 1}]], max_delay_when_refused=60)
        await until(reactor, self.collection.idle.is_set)

    async def test_nonsense(self):
        """Any exception that invalid input makes the driver raise does not stop the listening."""
        with log_lines() as lines:
            self.start([struct.error("short"), [KeyError("ok")], [{"_id": 1}]])
            await until(reactor, self.collection.idle.is_set)
        self.assertEqual([line.partition(": ")[2][:12] for line in lines], ["change notif", "listening fo"] * 2)

    async def test_errors(self):
        """A stream that fails or ends is started again, which counts as a change; each new reason is logged once."""
        away: list[PyMongoError] = [AutoReconnect("away") for _ in range(4)]
        refused = OperationFailure("only on replica sets", 40573)
        with log_lines() as lines:
            self.start([*away, refused, [{"_id": 1}, AutoReconnect("lost")], [None, "end"], []])
            await until(reactor, lambda: len(self.notified) >= 4 and self.collection.idle.is_set())
        reasons = [line.removeprefix("mongodb://h/d: ").partition(";")[0] for line in lines]
        self.assertEqual(len(reasons), 7, lines)
        self.assertEqual(
            [reasons[0], reasons[3], reasons[6]],
            [
                "change notifications unavailable: server: away",
                "change notifications unavailable: server: lost",
                "listening for changes through a change stream",
            ],
        )
        self.assertIn("only on replica sets", reasons[1])
        self.assertIn("the change stream has ended", reasons[5])
        self.assertEqual(len(self.notified), 4)
        self.assertTrue(all(stream.closed for stream in self.collection.streams[:-1]))

    async def test_stop(self):
        """Stopping in any state ends the thread soon, and nothing more is notified or logged."""
        scripts: list[Any] = [[[{"_id": 1}] * 1000], [[]], [AutoReconnect("away") for _ in range(999)]]
        for script in scripts:
            self.start(script)
            await until(reactor, lambda: self.collection.watched)
            with log_lines() as lines:
                self.changes.stop()
                before = len(self.notified)
                await until(reactor, lambda: not self.threads())
            self.assertEqual((len(self.notified), lines), (before, []))


class SourceTests(SynchronousTestCase):
    """`notify` in the URL."""

    def test_only_if_requested(self):
        """A source notifies of changes only if its URL has `notify`, which its name includes."""
        url = "mongodb://h:1/d?collection=c"
        source = make_source(FakeReactor(), url, 1)
        self.assertFalse(IWatching.providedBy(source))
        watching = make_source(FakeReactor(), f"{url}&notify=changes", 1)
        verifyObject(IWatching, watching)
        self.assertEqual(str(watching), f"{url}&notify=changes")
        for wrong in ("", "channel"):
            error = self.assertRaises(SettingsError, make_source, FakeReactor(), f"{url}&notify={wrong}", 1)
            self.assertIn("notify must be changes", str(error))


class ServerTests(ServerTestCase):
    """A change stream of a real server."""

    async def test_changes(self):
        """If the server has change streams, a change is notified; otherwise one log line says what it lacks."""
        self.collection.insert_one({"a": 1})
        notified: list[int] = []
        with log_lines() as lines:
            source = self.source(more="&notify=changes")
            source.watch(lambda: notified.append(1))
            await until(reactor, lambda: lines)
            self.assertEqual(await source.fetch(), b'{"a":1}')
            if "listening for changes through" in lines[0]:
                before = len(notified)
                self.collection.update_one({}, {"$set": {"a": 2}})
                await until(reactor, lambda: len(notified) > before)
            else:
                self.assertIn("change streams need a replica set or a sharded cluster", lines[0])
                self.assertEqual((len(lines), notified), (1, []))
