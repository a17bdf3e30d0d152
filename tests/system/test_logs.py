"""Tests of log files that can be renamed and reopened."""

import json
import os
from datetime import datetime
from pathlib import Path

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from livestate.system.logs import LogFile, LogFiles


class LogFileTests(SynchronousTestCase):
    """One file."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def test_write(self):
        """A line is in the file as soon as it is written, after the existing content."""
        self.path.write_text("before\n")
        log = LogFile(self.path)
        log.write("one\n")
        self.assertEqual(self.path.read_text(), "before\none\n")
        log.flush()
        log.write("two\n")
        self.assertEqual(self.path.read_text(), "before\none\ntwo\n")

    def test_any_text(self):
        """Text that cannot be encoded as UTF-8 is written escaped, and raises nothing."""
        LogFile(self.path).write("\udc80 é\n")
        self.assertEqual(self.path.read_text(encoding="utf-8"), "\\udc80 é\n")

    def test_reopen(self):
        """After a rename and a reopen, lines go to a new file under the old name, and the old one is closed."""
        log = LogFile(self.path)
        log.write("old\n")
        moved = self.path.rename(f"{self.path}.1")
        log.write("still old\n")
        open_files = len(os.listdir("/proc/self/fd"))
        log.reopen()
        log.write("new\n")
        self.assertEqual(moved.read_text(), "old\nstill old\n")
        self.assertEqual(self.path.read_text(), "new\n")
        self.assertEqual(len(os.listdir("/proc/self/fd")), open_files)

    def test_modes(self):
        """A new file is not readable by others, whatever the umask; an existing one keeps its mode."""
        self.addCleanup(os.umask, os.umask(0))
        LogFile(self.path).close()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.path.chmod(0o644)
        LogFile(self.path).close()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_failed_reopen(self):
        """If no new file can be created, the old one is kept and nothing is raised."""
        log = LogFile(self.path)
        moved = self.path.rename(f"{self.path}.1")
        self.path.mkdir()
        log.reopen()
        log.write("still here\n")
        self.assertEqual(moved.read_text(), "still here\n")

    def test_full_disk(self):
        """If the disk is full, lines are lost without an error, and a new file works after a reopen."""
        self.path.symlink_to("/dev/full")
        log = LogFile(self.path)
        for _ in range(3):
            log.write("lost\n" * 1000)
        self.path.unlink()
        log.reopen()
        log.write("found\n")
        self.assertEqual(self.path.read_text(), "found\n")

    def test_failed_open(self):
        """A file that cannot be opened at the start raises an OSError, for the caller to explain."""
        self.path.mkdir()
        self.assertRaises(OSError, LogFile, self.path)


class LogFilesTests(SynchronousTestCase):
    """All files of the process."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_reopen(self):
        """All files are reopened together, except those that were closed."""
        files = LogFiles()
        logs = [files.open(self.directory / name) for name in ("access", "other")]
        closed = files.open(self.directory / "closed", buffered=True)
        closed.write("last\n")
        files.close(closed)
        for path in list(self.directory.iterdir()):
            path.rename(f"{path}.1")
        files.reopen()
        for log in logs:
            log.write("new\n")
        for name in ("access", "other"):
            self.assertEqual((self.directory / name).read_text(), "new\n")
        self.assertFalse((self.directory / "closed").exists())
        self.assertEqual((self.directory / "closed.1").read_text(), "last\n")

    def test_observer(self):
        """An observer writes Twisted's classic text, with the local time and its zone, also after a reopen."""
        files = LogFiles()
        path = self.directory / "twistd.log"
        observe = files.observer(path)
        event = {
            "log_format": "{path} is {state}",
            "path": "/a",
            "state": "fresh",
            "log_time": 1_700_000_000.5,
            "log_level": LogLevel.info,
            "log_namespace": "livestate.documents.poller.Poller",
        }
        observe(event)
        line = path.read_text()
        self.assertTrue(line.endswith("/a is fresh\n"))
        stamp = datetime.fromisoformat(line.split()[0])
        self.assertEqual(stamp.timestamp(), 1_700_000_000.5)
        path.unlink()
        files.reopen()
        observe({**event, "log_time": None})
        self.assertEqual(len(path.read_text().splitlines()), 1)


class FormatTests(SynchronousTestCase):
    """The formats of log lines."""

    def lines(self, log_format):
        """Log one event with fields and one failure, and return the lines."""
        path = Path(self.mktemp())
        publisher = LogPublisher(LogFiles().observer(path, log_format))
        log = Logger("here", observer=publisher)
        log.warn("{path}: no answer within {seconds:g} s", path="/a\n", seconds=0.8, unknown=object())
        try:
            raise ValueError("a\nb")
        except ValueError:
            log.failure("it failed")
        return path.read_text().splitlines()

    def test_json(self):
        """Each event is one object on its own line, with its text, its fields, and the traceback of a failure."""
        first, second = map(json.loads, self.lines("json"))
        self.assertEqual(first["log_text"], "/a\n: no answer within 0.8 s")
        self.assertEqual((first["path"], first["seconds"], first["log_namespace"]), ("/a\n", 0.8, "here"))
        self.assertEqual(first["log_level"]["name"], "warn")
        self.assertIn("ValueError: a\nb", second["log_text"])
        self.assertIn("Traceback", second["log_text"])

    def test_text(self):
        """Text lines are Twisted's classic ones, with the time in ISO 8601."""
        self.assertRegex(self.lines("text")[0], r"^\d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d \[here#warn\] /a")
