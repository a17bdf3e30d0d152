"""Watching the folder of a file with inotify, so that a change is fetched at once.

The folder, not the file: a file that is replaced by rename is another file. Two events say that there is something new:
a file that was open for writing was closed, or something was moved in. The creation of a file and the writing to it do
not: it is half-written then. Where the name is a symbolic link, any such event in its folder counts, since what changes
may be another link that it goes through (Kubernetes swaps `..data`).

A watch is on the folder that had the name when it was set. Which folder has it is looked at with each fetch, in the
fetch's thread (a network file system may hang), and the watch follows. Whenever it is set, that counts as a change, so
that nothing is missed. Changes that inotify does not see (made on another machine, or behind a link that leads
elsewhere) are found by polling, as all are where there is no inotify.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger
from twisted.python.filepath import FilePath

try:
    from twisted.internet import inotify
except ImportError:  # not Linux
    inotify = None  # type: ignore[assignment]

#: Where every mounted file system is named, see proc_pid_mountinfo(5).
MOUNTS = "/proc/self/mountinfo"

#: File systems that other machines write to as well, beside those through FUSE; see mount(8).
_SHARED = frozenset({"9p", "afs", "ceph", "cifs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"})


@dataclass(frozen=True)
class Folder:
    """A folder, whatever its name, and how the file is in it."""

    device: int
    inode: int
    file_system: str
    #: The file's name is that of a symbolic link.
    linked: bool


def folder_of(path: str, known: Folder | None) -> Folder | None:
    """Give the folder that the file `path` is in now, None where there is none. May hang, as the file system may.

    :param known: what was given before: where it is still the same, its file system is not looked up again.
    """
    try:
        found = os.stat(os.path.dirname(path))
    except OSError:
        return None
    linked = os.path.islink(path)
    if known is not None and (known.device, known.inode, known.linked) == (found.st_dev, found.st_ino, linked):
        return known
    return Folder(found.st_dev, found.st_ino, _file_system(found.st_dev), linked)


class FolderWatch:
    """Tells when a file may have changed."""

    log = Logger()

    def __init__(self, reactor: Any, path: str, changed: Callable[[], None]) -> None:
        """Prepare to watch the folder of `path`, an absolute name, and to call `changed`."""
        self._reactor = reactor
        self._path = path
        self._name = os.fsencode(os.path.basename(path))
        self._changed = changed
        self._folder: Folder | None = None
        self._notifier: Any = None
        self._said: str | None = None

    def follow(self, folder: Folder | None) -> None:
        """Watch `folder`, which has the name now, if it is not watched already."""
        if folder == self._folder:
            return
        self.close()
        if folder is not None and self._watch():
            self._folder = folder
            if folder.file_system in _SHARED or folder.file_system.startswith("fuse"):
                self._say(f"on {folder.file_system}: changes made on other machines are found by polling alone")
            else:
                self._say("told of changes by inotify")
            self._changed()

    def close(self) -> None:
        """Watch nothing."""
        self._folder = None
        if self._notifier is not None:
            self._notifier.loseConnection()
            self._notifier = None

    def _watch(self) -> bool:
        """Set the watch, and tell whether it is set."""
        if inotify is None:
            self._say("changes are found by polling alone: there is no inotify on this system")
            return False
        folder = os.path.dirname(self._path)
        try:
            # One each time: Twisted's ends itself when the folder is deleted.
            self._notifier = inotify.INotify(self._reactor)
            self._notifier.startReading()
            self._notifier.watch(
                FilePath(folder), mask=inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO, callbacks=[self._notified]
            )
        except inotify.INotifyError:
            self.close()
            # Twisted does not give the number of the error.
            reason = "fs.inotify.max_user_instances or fs.inotify.max_user_watches is reached (sysctl)"
            if not os.access(folder, os.R_OK):
                reason = f"the folder {folder} may not be read"
            self._say(f"changes are found by polling alone: {reason}")
            return False
        return True

    def _notified(self, _: object, path: Any, mask: int) -> None:
        if mask & (inotify.IN_DELETE_SELF | inotify.IN_UNMOUNT):
            self.close()
        elif self._folder is not None and (self._folder.linked or path.basename() == self._name):
            self._changed()

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self.log.info("file:{path}: {what}", path=self._path, what=what)


def _file_system(device: int) -> str:
    """Give the type of a device's file system, "" where it is not known."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(MOUNTS, encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                mount, _, system = line.partition(" - ")
                if mount.split()[2] == number:
                    return system.split()[0]
    except (OSError, IndexError):
        pass
    return ""
