"""Watching a file for changes, with the kernel's real inotify and a fake reactor."""

import os
import shutil
from pathlib import Path

from twisted.internet import inotify
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from livestate.sources.api import IWatching
from livestate.sources.file import folder_watch
from livestate.sources.file import source as file
from livestate.sources.file.folder_watch import folder_of
from livestate.sources.file.source import FileSource
from tests.support import FakeReactor, log_lines, result_of, written


class FolderWatchTests(SynchronousTestCase):
    """Watching one file."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "results.json"
        self.path.write_bytes(b"1")
        self.notified = 0

    def start(self, path=None):
        """Start watching and fetch once, as a Poller does."""
        self.source = FileSource(self.reactor, f"file:{path or self.path}", 100)
        self.addCleanup(self.source.close)
        self.source.watch(self.changed)
        self.fetch()

    def changed(self):
        self.notified += 1

    def fetch(self):
        """Fetch as a poll does, and return the document, or None if that fails."""
        try:
            return result_of(self.source.fetch())
        except Exception:
            return None

    def count(self):
        """Return the number of notifications since the last call."""
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.reactor.advance(0)
        notified, self.notified = self.notified, 0
        return notified

    def replace(self, path, data):
        written(Path(f"{path}.new"), data)
        os.rename(f"{path}.new", path)

    def test_interface(self):
        """FileSource implements IWatching."""
        self.start()
        verifyObject(IWatching, self.source)

    def test_changes(self):
        """It notifies when the file is closed after writing or replaced, and of nothing else in the folder."""
        self.start()
        self.assertEqual(self.count(), 1, "the start counts as a change")
        self.fetch()
        self.assertEqual(self.count(), 0)
        self.path.write_bytes(b"2")
        self.assertEqual(self.count(), 1)
        self.replace(self.path, b"3")
        self.assertEqual(self.count(), 1)
        self.path.unlink()
        with open(self.path, "wb") as file:
            self.assertEqual(self.count(), 0, "it is not written yet")
            file.write(b"4")
            file.flush()
            self.assertEqual(self.count(), 0, "it may be half-written")
        self.assertEqual(self.count(), 1)
        self.replace(self.folder / "other.json", b"5")
        self.path.read_bytes()
        self.path.rename(self.folder / "gone.json")
        self.assertEqual(self.count(), 0)

    def test_no_folder_yet(self):
        """A folder that does not exist at the start is watched from the first fetch that finds it."""
        with log_lines() as lines:
            self.start(self.folder / "later" / "results.json")
            self.assertEqual((self.count(), lines), (0, []))
            (self.folder / "later").mkdir()
            self.fetch()
            self.assertEqual(self.count(), 1)
        self.assertEqual(lines, [f"file:{self.folder}/later/results.json: watching for changes with inotify"])
        self.replace(self.folder / "later" / "results.json", b"2")
        self.assertEqual(self.count(), 1)

    def test_folder_replaced(self):
        """The watch follows the path when another folder takes it, by a changed link or after a deletion."""
        other = self.folder.with_name(self.folder.name + "-other")
        link = self.folder.with_name(self.folder.name + "-link")
        other.mkdir()
        link.symlink_to(self.folder)
        self.start(link / "results.json")
        self.count()
        link.unlink()
        link.symlink_to(other)
        (other / "results.json").write_bytes(b"2")
        self.assertEqual(self.count(), 0)
        self.assertEqual(self.fetch(), b"2")
        self.assertEqual(self.count(), 1)
        self.replace(other / "results.json", b"3")
        self.assertEqual(self.count(), 1)
        self.path.write_bytes(b"4")
        self.assertEqual(self.count(), 0, "the old folder is no longer watched")
        shutil.rmtree(other)
        self.count()
        self.fetch()
        other.mkdir()
        self.fetch()
        self.assertEqual(self.count(), 1)
        self.replace(other / "results.json", b"5")
        self.assertEqual((self.count(), self.fetch()), (1, b"5"))

    def test_folder_recreated(self):
        """A folder that was deleted is watched again even if the new one has the same inode number."""
        self.start()
        self.count()
        shutil.rmtree(self.folder)
        self.count()
        self.folder.mkdir()
        self.patch(file, "folder_of", lambda path, known: known)
        self.fetch()
        self.assertEqual(self.count(), 1)
        self.replace(self.path, b"2")
        self.assertEqual(self.count(), 1)

    def test_links(self):
        """It notifies when a link on the way to the file is swapped, as Kubernetes does."""
        self.path.unlink()
        for version in ("1", "2"):
            (self.folder / version).mkdir()
            (self.folder / version / "results.json").write_bytes(version.encode())
        (self.folder / "..data").symlink_to("1")
        self.path.symlink_to("..data/results.json")
        self.start()
        self.count()
        self.assertEqual(self.fetch(), b"1")
        (self.folder / "..new").symlink_to("2")
        os.rename(self.folder / "..new", self.folder / "..data")
        self.assertEqual((self.count(), self.fetch()), (1, b"2"))

    def test_limit(self):
        """When a limit of the kernel is reached, one log line names it, and the watch is set once that is possible."""

        def refuse(*_):
            raise inotify.INotifyError("Failed to add watch")

        for name in ("init", "add"):
            restore = self.patch(inotify.INotify._inotify, name, refuse)
            with log_lines() as lines:
                self.start()
                for _ in range(5):
                    self.assertEqual((self.fetch(), self.count()), (b"1", 0))
                [line] = lines
                self.assertIn("found only by polling: fs.inotify.max_user_instances", line)
                restore.restore()
                self.fetch()
                self.assertEqual(self.count(), 1)
            self.assertIn("watching for changes with inotify", lines[1])

    def test_unreadable_folder(self):
        """If the folder may be entered but not read, the log line says so."""
        self.patch(os, "access", lambda path, mode: False)

        def refuse(*_):
            raise inotify.INotifyError("Failed to add watch")

        self.patch(inotify.INotify._inotify, "add", refuse)
        with log_lines() as lines:
            self.start()
        [line] = lines
        self.assertIn(f"no permission to read the folder {self.folder}", line)

    def test_no_inotify(self):
        """On a system without inotify, one log line says that changes are found only by polling."""
        self.patch(folder_watch, "inotify", None)
        with log_lines() as lines:
            self.start()
            for _ in range(5):
                self.assertEqual((self.fetch(), self.count()), (b"1", 0))
        [line] = lines
        self.assertIn("this system has no inotify", line)

    def test_network(self):
        """On a network file system, the log line says that changes made elsewhere are found only by polling."""
        device = os.stat(self.folder).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        mounts = Path(self.mktemp())
        self.patch(folder_watch, "MOUNTS", str(mounts))
        for system, known in (("nfs4", True), ("fuse.sshfs", True), ("ext4", False)):
            mounts.write_text(
                f"22 1 0:1 / / rw shared:1 - tmpfs x rw\n36 22 {number} / /mnt rw master:1 - {system} host:/x rw,a=b\n"
            )  # fmt: skip
            with log_lines() as lines:
                self.start()
            self.assertEqual(f"on {system}: changes made on other machines" in lines[0], known, lines)
            self.replace(self.path, b"1")
            self.count()
        for nonsense in ("", "x\n", "a b c\n", "1 2 3 - \n", f"1 2 {number} -"):
            mounts.write_text(nonsense)
            folder = folder_of(str(self.path), None)
            assert folder is not None
            self.assertEqual(folder.file_system, "")
        mounts.unlink()
        folder = folder_of(str(self.path), None)
        assert folder is not None
        self.assertEqual(folder.file_system, "")

    def test_no_descriptor_stays_open(self):
        """No file descriptor is leaked, however often the folder is replaced, nor after `close`."""
        before = len(os.listdir("/proc/self/fd"))
        self.start()
        for _ in range(5):
            shutil.rmtree(self.folder)
            self.count()
            self.fetch()
            self.folder.mkdir()
            self.fetch()
            self.count()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before + 1)
        self.source.close()
        self.reactor.advance(0)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.path.write_bytes(b"2")
        self.assertEqual(self.count(), 0)
