"""Being told of a file's changes, by the kernel's real inotify and a reactor that does what it is told."""

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
    """One file."""

    def setUp(self):
        self.reactor = FakeReactor()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "results.json"
        self.path.write_bytes(b"1")
        self.told = 0

    def start(self, path=None):
        """Begin as a Poller does."""
        self.source = FileSource(self.reactor, f"file:{path or self.path}", 100)
        self.addCleanup(self.source.close)
        self.source.watch(self.changed)
        self.fetch()

    def changed(self):
        self.told += 1

    def fetch(self):
        """Fetch as a poll does, and give what is there, if anything."""
        try:
            return result_of(self.source.fetch())
        except Exception:
            return None

    def count(self):
        """Give how often it was told of changes since this was asked last."""
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.reactor.advance(0)
        told, self.told = self.told, 0
        return told

    def replace(self, path, data):
        written(Path(f"{path}.new"), data)
        os.rename(f"{path}.new", path)

    def test_interface(self):
        """A file is a source that tells of changes."""
        self.start()
        verifyObject(IWatching, self.source)

    def test_changes(self):
        """It tells of the file when it is closed after writing and when it is replaced, and of nothing else there."""
        self.start()
        self.assertEqual(self.count(), 1, "the beginning counts as a change")
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
            self.assertEqual(self.count(), 0, "it is half-written, for all we know")
        self.assertEqual(self.count(), 1)
        self.replace(self.folder / "other.json", b"5")
        self.path.read_bytes()
        self.path.rename(self.folder / "gone.json")
        self.assertEqual(self.count(), 0)

    def test_no_folder_yet(self):
        """A folder that is not there at the start is watched from the first fetch that finds it."""
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
        """The watch follows the folder's name: to one that was moved there, also through a link, and to a new one."""
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
        self.assertEqual(self.count(), 0, "the old folder is watched no more")
        shutil.rmtree(other)
        self.count()
        self.fetch()
        other.mkdir()
        self.fetch()
        self.assertEqual(self.count(), 1)
        self.replace(other / "results.json", b"5")
        self.assertEqual((self.count(), self.fetch()), (1, b"5"))

    def test_folder_made_anew(self):
        """A folder that was deleted is watched anew also where the new one has the old one's number."""
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
        """A file behind links that are swapped in its folder, as Kubernetes does it, is told of."""
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
        """Where a limit of the kernel is reached, that is one log line that names it, until there is room again."""

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
        """Where the folder may be passed through and not read, the log line says so."""
        self.patch(os, "access", lambda path, mode: False)

        def refuse(*_):
            raise inotify.INotifyError("Failed to add watch")

        self.patch(inotify.INotify._inotify, "add", refuse)
        with log_lines() as lines:
            self.start()
        [line] = lines
        self.assertIn(f"no permission to read the folder {self.folder}", line)

    def test_no_inotify(self):
        """On a system without inotify, one log line says that polling does it alone."""
        self.patch(folder_watch, "inotify", None)
        with log_lines() as lines:
            self.start()
            for _ in range(5):
                self.assertEqual((self.fetch(), self.count()), (b"1", 0))
        [line] = lines
        self.assertIn("this system has no inotify", line)

    def test_network(self):
        """On a file system that other machines write to, the log line says that polling finds their changes."""
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
        """However often the folder is replaced, and after the end, no descriptor is left."""
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
