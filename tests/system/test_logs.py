"""Log files that can be taken away."""

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

    def test_lines_are_there_at_once(self):
        """A line is in the file when it has been written, and one after what was there before."""
        self.path.write_text("before\n")
        log = LogFile(self.path)
        log.write("one\n")
        self.assertEqual(self.path.read_text(), "before\none\n")
        log.flush()
        log.write("two\n")
        self.assertEqual(self.path.read_text(), "before\none\ntwo\n")

    def test_any_text(self):
        """A text that UTF-8 cannot hold is written escaped, and raises nothing."""
        LogFile(self.path).write("\udc80 é\n")
        self.assertEqual(self.path.read_text(encoding="utf-8"), "\\udc80 é\n")

    def test_reopen(self):
        """After it was renamed, lines go to a new file under the old name, and the old one is closed."""
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
        """Other users do not read a new file, whatever the umask; one that is there keeps its mode."""
        self.addCleanup(os.umask, os.umask(0))
        LogFile(self.path).close()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.path.chmod(0o644)
        LogFile(self.path).close()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_cannot_be_reopened(self):
        """Where there is no making a new file, the old one is kept and nothing is raised."""
        log = LogFile(self.path)
        moved = self.path.rename(f"{self.path}.1")
        self.path.mkdir()
        log.reopen()
        log.write("still here\n")
        self.assertEqual(moved.read_text(), "still here\n")

    def test_full_disk(self):
        """Where the disk is full, lines are lost, but whoever wrote them is not held up, and a new file is taken."""
        self.path.symlink_to("/dev/full")
        log = LogFile(self.path)
        for _ in range(3):
            log.write("lost\n" * 1000)
        self.path.unlink()
        log.reopen()
        log.write("found\n")
        self.assertEqual(self.path.read_text(), "found\n")

    def test_cannot_be_opened(self):
        """A file that cannot be opened at the start is an OSError, for the caller to explain."""
        self.path.mkdir()
        self.assertRaises(OSError, LogFile, self.path)


class LogFilesTests(SynchronousTestCase):
    """All files of the process."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_reopen(self):
        """All files are opened anew together, but for those that were closed."""
        files = LogFiles()
        logs = [files.open(self.folder / name) for name in ("access", "other")]
        closed = files.open(self.folder / "closed", buffered=True)
        closed.write("last\n")
        files.close(closed)
        for path in list(self.folder.iterdir()):
            path.rename(f"{path}.1")
        files.reopen()
        for log in logs:
            log.write("new\n")
        for name in ("access", "other"):
            self.assertEqual((self.folder / name).read_text(), "new\n")
        self.assertFalse((self.folder / "closed").exists())
        self.assertEqual((self.folder / "closed.1").read_text(), "last\n")

    def test_observer(self):
        """An observer writes Twisted's classic text, with the local time and its zone, and follows a SIGHUP."""
        files = LogFiles()
        path = self.folder / "twistd.log"
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
    """What a line of the log looks like."""

    def lines(self, log_format):
        """Log one event with parts and one failure, and give the lines."""
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
        """Each event is one object on a line of its own, with its text, its parts, and a failure's traceback."""
        first, second = map(json.loads, self.lines("json"))
        self.assertEqual(first["log_text"], "/a\n: no answer within 0.8 s")
        self.assertEqual((first["path"], first["seconds"], first["log_namespace"]), ("/a\n", 0.8, "here"))
        self.assertEqual(first["log_level"]["name"], "warn")
        self.assertIn("ValueError: a\nb", second["log_text"])
        self.assertIn("Traceback", second["log_text"])

    def test_text(self):
        """Text is Twisted's classic line, with the time in ISO 8601."""
        self.assertRegex(self.lines("text")[0], r"^\d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d \[here#warn\] /a")
