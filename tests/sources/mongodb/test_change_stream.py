"""Change streams: their reading, from a collection that does what it is told, and their absence on a real server.

No server that has change streams can be installed for tests; `LIVESTATE_TEST_MONGODB` may name one.
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
    """Gives what it is told to: a change, None for none, or an error; in the end it waits, or is ended."""

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
            self.collection.go_on.wait(0.01)
            return None
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if answer == "end":
            self.alive = False
            return None
        return answer


class FakeCollection:
    """Gives streams, or errors, as scripted."""

    def __init__(self, script):
        self.script = script
        self.asked = []
        self.streams = []
        self.idle = threading.Event()
        self.go_on = threading.Event()

    def watch(self, pipeline, max_await_time_ms):
        self.asked.append((pipeline, max_await_time_ms))
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        self.streams.append(FakeStream(self, step))
        return self.streams[-1]


class ChangesTests(TestCase):
    """The thread."""

    timeout = 20

    def start(self, script, patience=2000, longest=0.04):
        self.patch(change_stream, "FIRST_DELAY", 0.02)
        self.patch(change_stream, "MAX_DELAY", 0.04)
        self.patch(change_stream, "MAX_DELAY_WHEN_REFUSED", longest)
        self.collection = FakeCollection(script)
        collection: Any = self.collection
        self.told: list[Any] = []
        self.changes = MongoChanges(reactor, collection, patience, lambda error: f"server: {error}", "mongodb://h/d")
        self.addCleanup(self.changes.stop)
        self.changes.start(lambda: self.told.append(threading.current_thread()))

    def threads(self):
        return [thread for thread in threading.enumerate() if thread.name == "change stream"]

    async def test_told(self):
        """It tells, in the reactor's thread, when the stream begins and at each change, and not when there is none."""
        with log_lines() as lines:
            self.start([[{"_id": 1}, None, {"_id": 2}, None, None]])
            await until(reactor, self.collection.idle.is_set)
            await until(reactor, lambda: len(self.told) >= 3)
        self.assertEqual(self.told, [threading.current_thread()] * 3)
        self.assertEqual(lines, ["mongodb://h/d: listening for changes through a change stream"])
        [(pipeline, wait)] = self.collection.asked
        self.assertEqual((pipeline, wait), ([{"$project": {"_id": True}}], 1000))

    async def test_short_patience(self):
        """The server is to answer well before the driver gives it up."""
        self.start([[]], patience=500)
        await until(reactor, lambda: self.collection.asked)
        self.assertEqual(self.collection.asked[0][1], 250)

    async def test_away_for_long(self):
        """However long the server was away, it is listened to about a second after it is back."""
        self.start([AutoReconnect("away") for _ in range(16)] + [[{"_id": 1}]], longest=60)
        await until(reactor, self.collection.idle.is_set)

    async def test_nonsense(self):
        """What is no message of MongoDB's makes the driver raise anything: that does not end the listening."""
        with log_lines() as lines:
            self.start([struct.error("short"), [KeyError("ok")], [{"_id": 1}]])
            await until(reactor, self.collection.idle.is_set)
        self.assertEqual([line.partition(": ")[2][:12] for line in lines], ["change notif", "listening fo"] * 2)

    async def test_errors(self):
        """A stream that fails or ends is begun anew, which counts as a change; the log has each new reason once."""
        away: list[PyMongoError] = [AutoReconnect("away") for _ in range(4)]
        refused = OperationFailure("only on replica sets", 40573)
        with log_lines() as lines:
            self.start([*away, refused, [{"_id": 1}, AutoReconnect("lost")], [None, "end"], []])
            await until(reactor, lambda: len(self.told) >= 4 and self.collection.idle.is_set())
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
        self.assertEqual(len(self.told), 4)
        self.assertTrue(all(stream.closed for stream in self.collection.streams[:-1]))

    async def test_stop(self):
        """To stop ends the thread soon, tells of nothing more and logs nothing, whatever the thread is doing."""
        scripts: list[Any] = [[[{"_id": 1}] * 1000], [[]], [AutoReconnect("away") for _ in range(999)]]
        for script in scripts:
            self.start(script)
            await until(reactor, lambda: self.collection.asked)
            with log_lines() as lines:
                self.changes.stop()
                told = len(self.told)
                await until(reactor, lambda: not self.threads())
            self.assertEqual((len(self.told), lines), (told, []))


class SourceTests(SynchronousTestCase):
    """`notify` in the URL."""

    def test_only_where_asked_for(self):
        """A source tells of changes if its URL says so, and names itself so that it could be given again."""
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
    """A real server of the protocol."""

    async def test_changes(self):
        """Where the server has change streams it tells of one; else one log line says what it lacks."""
        self.collection.insert_one({"a": 1})
        told: list[int] = []
        with log_lines() as lines:
            source = self.source(more="&notify=changes")
            source.watch(lambda: told.append(1))
            await until(reactor, lambda: lines)
            self.assertEqual(await source.fetch(), b'{"a":1}')
            if "listening for changes through" in lines[0]:
                before = len(told)
                self.collection.update_one({}, {"$set": {"a": 2}})
                await until(reactor, lambda: len(told) > before)
            else:
                self.assertIn("change streams need a replica set or a sharded cluster", lines[0])
                self.assertEqual((len(lines), told), (1, []))
