"""A document that is a file."""

import os
import threading
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from livestate.documents.document import Document
from livestate.errors import DocumentMissing, DocumentRefused, SettingsError, SourceError
from livestate.sources.api import ISource
from livestate.sources.factory import make_source
from livestate.sources.file.source import FileSource
from tests.support import FakeReactor, many, result_of, until

reactor: Any = _reactor


class FileTests(SynchronousTestCase):
    """Reading a file, with a fake thread pool that runs at once."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.path = Path(self.mktemp()).absolute()
        self.source = FileSource(self.reactor, f"file:{self.path}", 100)

    def fetch(self, source=None):
        return result_of((source or self.source).fetch())

    def test_interface(self):
        """FileSource implements ISource, and its name has the absolute path."""
        verifyObject(ISource, self.source)
        self.assertEqual(str(self.source), f"file:{self.path}")
        self.source.close()

    def test_read_each_time(self):
        """Each fetch returns the current content, also after the file was replaced by a rename."""
        self.path.write_bytes(b"1")
        self.assertEqual(self.fetch(), b"1")
        self.path.write_bytes(b"2")
        self.assertEqual(self.fetch(), b"2")
        other = Path(f"{self.path}.new")
        other.write_bytes(b"3")
        times = (self.path.stat().st_atime, self.path.stat().st_mtime)
        os.utime(other, times)
        other.rename(self.path)
        self.assertEqual(self.fetch(), b"3")

    def test_half_written(self):
        """A half-written file is read as it is, and incomplete JSON is not served."""
        document = Document(self.reactor, "/", 100)
        self.path.write_bytes(b"[1, 2]")
        result_of(document.update(self.fetch()))
        for half in (b"", b"[3, ", b"[3, 4"):
            self.path.write_bytes(half)
            self.assertRaises(DocumentRefused, result_of, document.update(self.fetch()))
            assert document.snapshot is not None
            self.assertEqual(document.snapshot.body, b"[1, 2]")

    def test_missing(self):
        """A file that does not exist raises DocumentMissing until it exists."""
        self.assertRaises(DocumentMissing, self.fetch)
        self.path.write_bytes(b"1")
        self.assertEqual(self.fetch(), b"1")
        self.path.unlink()
        self.assertRaises(DocumentMissing, self.fetch)

    def test_fifo(self):
        """A FIFO without a writer is refused at once, not waited for."""
        os.mkfifo(self.path)
        self.assertIn("not a regular file", str(self.assertRaises(SourceError, self.fetch)))

    def test_folder_and_device(self):
        """A folder or a device is refused."""
        for name in (self.path, Path("/dev/zero")):
            if name == self.path:
                name.mkdir()
            error = self.assertRaises(SourceError, self.fetch, FileSource(self.reactor, f"file:{name}", 100))
            self.assertNotIsInstance(error, DocumentMissing)

    def test_permission(self):
        """A file without read permission raises SourceError with the reason."""

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied", str(self.path))

        self.patch(os, "open", refuse)
        self.assertEqual(str(self.assertRaises(SourceError, self.fetch)), "Permission denied")

    def test_no_descriptor_stays_open(self):
        """No fetch leaks a file descriptor: one a second would use them up within an hour."""
        whole, folder, fifo = (Path(f"{self.path}{name}") for name in ("file", "folder", "fifo"))
        whole.write_bytes(b"1")
        folder.mkdir()
        os.mkfifo(fifo)
        before = os.listdir("/proc/self/fd")
        for name in (whole, folder, fifo, self.path):
            for _ in range(3):
                try:
                    self.fetch(FileSource(self.reactor, f"file:{name}", 100))
                except SourceError:
                    pass
            self.assertEqual(len(os.listdir("/proc/self/fd")), len(before), name.name)

    def test_too_large(self):
        """A file that is too large is read up to one byte above the limit, and the document refuses it."""
        self.path.write_bytes(b'"' + b"x" * 98 + b'"')
        self.assertEqual(len(self.fetch()), 100)
        with open(self.path, "wb") as file:
            file.truncate(2**40)
        data = self.fetch()
        self.assertEqual(len(data), 101)
        self.assertRaises(DocumentRefused, result_of, Document(self.reactor, "/", 100).update(data))

    def test_names(self):
        """A path is relative to the folder of the start, may be percent-encoded, and may follow `localhost`."""
        here = Path.cwd()
        for url, path in (
            ("file:results.json", here / "results.json"),
            ("file:./a/../b.json", here / "b.json"),
            ("file:/srv/r.json", Path("/srv/r.json")),
            ("file:///srv/r.json", Path("/srv/r.json")),
            ("file://localhost/srv/a%20b%23.json", Path("/srv/a b#.json")),
        ):
            self.assertEqual(str(FileSource(self.reactor, url, 1)), f"file:{path}")
        source = FileSource(self.reactor, f"file:{os.path.relpath(self.path)}", 100)
        self.path.write_bytes(b"1")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir("/")
        self.assertEqual(self.fetch(source), b"1")

    def test_wrong_names(self):
        """A URL without a path, with more than a path, or with another host is refused."""
        for url in ("file:", "file://", "file://other/x", "file:/a?b=c", "file:/a#b", "file://[", "file:/a%00b"):
            self.assertRaises(SettingsError, make_source, self.reactor, url, 1)

    @many
    @given(st.text(max_size=12))
    def test_any_name(self, name):
        """Any path is either refused at the start or leads to a SourceError when it is fetched."""
        try:
            source = make_source(self.reactor, f"file:{name}", 100)
        except SettingsError:
            return
        self.assertRaises(SourceError, self.fetch, source)

    def test_hanging(self):
        """A read that hangs occupies one thread; further fetches fail at once until it ends."""
        self.path.write_bytes(b"1")
        self.reactor.hold_threads = True
        first = Deferred.fromCoroutine(self.source.fetch())
        first.cancel()
        self.failureResultOf(first)
        for _ in range(5):
            self.assertIn("does not respond", str(self.assertRaises(SourceError, self.fetch)))
        self.assertEqual(len(self.reactor.jobs), 1)
        self.reactor.run_job()
        self.reactor.hold_threads = False
        self.assertEqual(self.fetch(), b"1")


class FileInThreadsTests(TestCase):
    """Reading a file with the real thread pool."""

    timeout = 20

    def test_hanging(self):
        """A thread that hangs in a read does not block the reactor, nor the next fetch after it ends."""
        return ensureDeferred(self.hanging())

    async def hanging(self):
        path = Path(self.mktemp())
        path.write_bytes(b"1")
        source = FileSource(reactor, f"file:{path}", 100)
        really_open, resume = os.open, threading.Event()
        self.addCleanup(resume.set)

        def hang(name, *args, **kwargs):
            if str(name).endswith(path.name):
                resume.wait(10)
            return really_open(name, *args, **kwargs)

        self.patch(os, "open", hang)
        first = Deferred.fromCoroutine(source.fetch())
        await until(reactor, lambda: not reactor.getThreadPool().q.qsize())
        self.assertNoResult(first)
        first.cancel()
        self.failureResultOf(first)
        self.assertRaises(SourceError, result_of, source.fetch())
        resume.set()
        await until(reactor, lambda: not source._reading)
        self.assertEqual(await Deferred.fromCoroutine(source.fetch()), b"1")
