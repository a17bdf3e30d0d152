"""Tests of the last good document on disk."""

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from livestate.documents.document import Document
from livestate.documents.snapshot_store import SnapshotStore
from tests.support import NOW, FakeReactor, few, log_lines, many, result_of, until

reactor: Any = _reactor

documents = st.recursive(
    st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda v: st.lists(v, max_size=20),
).map(lambda value: json.dumps(value, ensure_ascii=False).encode())


class SnapshotStoreTests(SynchronousTestCase):
    """Saving and restoring, with threads that run at once."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def service(self, path="/results.json", max_size=2**20):
        """Create a document and its store, which restores the document if it was saved."""
        document = Document(self.reactor, path, max_size)
        return document, SnapshotStore(self.reactor, document, self.directory)

    def save(self, data, path="/results.json"):
        """Save a document as a whole run of livestate would; return it and its file."""
        document, saved = self.service(path)
        saved.startService()
        result_of(document.update(data))
        self.successResultOf(saved.stopService())
        files = [file for file in self.directory.iterdir() if file.name.endswith(".saved")]
        return document, files[-1]

    @few
    @given(documents)
    def test_round_trip(self, data):
        """Any document is restored after a restart, with its version, time, age and tags."""
        for file in self.directory.iterdir():
            file.unlink()
        before, _ = self.save(data)
        self.reactor.advance(90)
        after, _ = self.service()
        assert before.snapshot is not None and after.snapshot is not None
        self.assertEqual(after.snapshot.body, data)
        self.assertEqual(
            (after.snapshot.version, after.snapshot.modified), (before.snapshot.version, before.snapshot.modified)
        )
        self.assertEqual(after.snapshot.representations, before.snapshot.representations)
        self.assertAlmostEqual(after.age(), before.age(), places=3)

    def test_truncated(self):
        """A file truncated at any byte is ignored with one line of log, and not served."""
        data = b'{"votes": [' + b"12, " * 40 + b"12]}"
        _, file = self.save(data)
        whole = file.read_bytes()
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with log_lines() as lines:
                document, _ = self.service()
            self.assertIsNone(document.snapshot, length)
            self.assertEqual(len(lines), 1)
            self.assertIn("ignoring the saved document", lines[0])
        file.write_bytes(whole + b" ")
        self.assertIsNone(self.service()[0].snapshot)
        file.write_bytes(whole)
        self.assertIsNotNone(self.service()[0].snapshot)

    @many
    @given(st.data())
    def test_damaged(self, data):
        """A file damaged anywhere is ignored, or restores exactly the saved document, and nothing is raised."""
        for file in self.directory.iterdir():
            file.unlink()
        _, file = self.save(b'{"votes": [1, 2, 3]}')
        damaged = bytearray(file.read_bytes())
        start = data.draw(st.integers(0, len(damaged)))
        end = data.draw(st.integers(start, min(len(damaged), start + 12)))
        damaged[start:end] = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from(HOSTILE)))
        file.write_bytes(damaged)
        document, _ = self.service()
        if document.snapshot is not None:
            self.assertEqual(document.snapshot.body, b'{"votes": [1, 2, 3]}')

    def test_hostile_metadata(self):
        """A first line with senseless values is ignored, and no memory is allocated for the length that it claims."""
        _, file = self.save(b"[1]")
        head, body = file.read_bytes().split(b"\n", 1)
        hostile: dict[str, list[object]] = {
            "version": [-1, 2**80, "1", None],
            "modified": [-1.0, 1e308, 1e15, None],
            "length": [-1, -2, -3, 2, 4, 2**40, 2**62, 2**80],
            "etag": ['"x"', "", "\u20ac"],
        }
        for name, values in hostile.items():
            for value in values:
                file.write_bytes(json.dumps({**json.loads(head), name: value}).encode() + b"\n" + body)
                self.assertIsNone(self.service()[0].snapshot, (name, value))
        file.write_bytes(b'{"x":' + b"[" * 4000)
        self.assertIsNone(self.service()[0].snapshot)
        file.write_bytes(head.replace(b'"modified":', b'"modified":1e999,"x":') + b"\n" + body)
        self.assertIsNone(self.service()[0].snapshot)

    def test_over_the_limit(self):
        """A document saved under a larger --max-size than now is ignored."""
        self.save(b'"' + b"x" * 500 + b'"')
        self.assertIsNone(self.service(max_size=100)[0].snapshot)

    def test_not_a_file(self):
        """A directory in place of the file is one line of log at the start, and one when it should be replaced."""
        (self.directory / "%2Fresults.json.saved").mkdir()
        with log_lines() as lines:
            document, saved = self.service()
            saved.startService()
            result_of(document.update(b"1"))
            self.reactor.run_for(5)
            self.successResultOf(saved.stopService())
        self.assertEqual(len(lines), 2, lines)
        self.assertEqual([file.name for file in self.directory.iterdir()], ["%2Fresults.json.saved"])

    def test_saved_every_second(self):
        """A change is on disk a second later, readable only by the owner, without leftover files."""
        document, saved = self.service()
        saved.startService()
        result_of(document.update(b'"first"'))
        self.reactor.run_for(1.1)
        (file,) = self.directory.iterdir()
        self.assertTrue(file.read_bytes().endswith(b'\n"first"'))
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        result_of(document.update(b'"second"'))
        self.reactor.run_for(1.1)
        self.assertTrue(file.read_bytes().endswith(b'\n"second"'))
        self.successResultOf(saved.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_confirmed(self):
        """A document that is only confirmed keeps its file, with the time of the last good fetch."""
        document, saved = self.service()
        saved.startService()
        result_of(document.update(b"1"))
        self.reactor.run_for(1.1)
        (file,) = self.directory.iterdir()
        inode = file.stat().st_ino
        self.reactor.run_for(30)
        result_of(document.update(b"1"))
        confirmed = document.confirmed
        self.reactor.run_for(10)
        self.assertEqual(file.stat().st_ino, inode)
        self.assertAlmostEqual(file.stat().st_mtime, confirmed, places=3)
        self.successResultOf(saved.stopService())

    def test_file_removed(self):
        """A removed file is written again at the next check, although the document is the same."""
        document, saved = self.service()
        saved.startService()
        result_of(document.update(b"1"))
        self.reactor.run_for(1.1)
        (file,) = self.directory.iterdir()
        file.unlink()
        result_of(document.update(b"1"))
        self.reactor.run_for(1.1)
        self.assertTrue(file.exists())
        self.successResultOf(saved.stopService())

    def test_directory_removed(self):
        """A missing directory is one line of log, and saving continues when it is back."""
        document, saved = self.service()
        saved.startService()
        self.directory.rename(f"{self.directory}.away")
        result_of(document.update(b"1"))
        with log_lines() as lines:
            self.reactor.run_for(10)
        self.assertEqual(len(lines), 1)
        self.assertIn("cannot save", lines[0])
        Path(f"{self.directory}.away").rename(self.directory)
        with log_lines() as lines:
            self.reactor.run_for(3.1)
        self.assertEqual(len(lines), 1)
        self.assertIn("again", lines[0])
        self.assertEqual(len(list(self.directory.iterdir())), 1)
        self.successResultOf(saved.stopService())

    def test_failed_write_leaves_nothing(self):
        """A write that fails midway leaves the old file intact, and no other file."""
        document, saved = self.service()
        saved.startService()
        result_of(document.update(b'"old"'))
        self.reactor.run_for(1.1)

        def full(descriptor):
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        result_of(document.update(b'"new"'))
        self.reactor.run_for(3)
        (file,) = self.directory.iterdir()
        self.assertTrue(file.read_bytes().endswith(b'\n"old"'))
        self.successResultOf(saved.stopService())

    def test_abandoned(self):
        """An abandoned temporary file is removed at the next start; a recent one stays."""
        for name, age in ((".saving-old", 61), (".saving-new", 1), ("other", 61)):
            (self.directory / name).touch()
            os.utime(self.directory / name, (NOW - age, NOW - age))
        self.service()
        self.assertEqual({file.name for file in self.directory.iterdir()}, {".saving-new", "other"})

    def test_one_file_per_path(self):
        """Documents at different paths, with or without slashes, do not share a file, and stay inside the directory."""
        for path in ("/", "/a", "/a/b", "/a_b", "/..a"):
            self.save(json.dumps(path).encode(), path)
        self.assertEqual(len(list(self.directory.iterdir())), 5)
        for path in ("/", "/a", "/a/b", "/a_b", "/..a"):
            snapshot = self.service(path)[0].snapshot
            assert snapshot is not None
            self.assertEqual(snapshot.body, json.dumps(path).encode())

    def test_stop_saves(self):
        """The last change is on disk when the service has stopped, also if a write is in progress."""
        document, saved = self.service()
        saved.startService()
        result_of(document.update(b"1"))
        self.reactor.hold_threads = True
        self.reactor.run_for(1.1)
        result_of(document.update(b"2"))
        done = saved.stopService()
        self.reactor.run_job()
        self.assertNoResult(done)
        self.reactor.run_job()
        self.successResultOf(done)
        (file,) = self.directory.iterdir()
        self.assertTrue(file.read_bytes().endswith(b"\n2"))

    def test_nothing_to_save(self):
        """Without a document there is no file, and stopping is immediate."""
        _, saved = self.service()
        saved.startService()
        self.reactor.run_for(3)
        self.successResultOf(saved.stopService())
        self.assertEqual(list(self.directory.iterdir()), [])


HOSTILE = (b"1e308", b"-1", b"99999999999999999999", b"1e999", b"null", b'"', b"{", b"\n")


class RealThreadsTests(TestCase):
    """Saving with the real thread pool."""

    timeout = 20

    def test_round_trip(self):
        """A large document saved by a real thread is restored after a restart, as plain bytes."""
        return ensureDeferred(self.round_trip())

    async def round_trip(self):
        directory = Path(self.mktemp())
        directory.mkdir()
        data = json.dumps([{"row": n} for n in range(10_000)]).encode()
        document = Document(reactor, "/", 2**24)
        saved = SnapshotStore(reactor, document, directory)
        saved.startService()
        await Deferred.fromCoroutine(document.update(data))
        stopped: Deferred[None] = saved.stopService()
        await stopped
        await until(reactor, lambda: list(directory.iterdir()))
        again = Document(reactor, "/", 2**24)
        SnapshotStore(reactor, again, directory)
        assert again.snapshot is not None
        self.assertEqual(again.snapshot.body, data)
        self.assertEqual(set(again.snapshot.representations), {"identity"})
