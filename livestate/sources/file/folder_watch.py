"""Watching the folder of a file with inotify, so that a change is fetched at once.

The watch is on the folder, not the file, because a file that is replaced by a rename is a different file. Two events
mean a change: a file that was open for writing was closed, or a file was moved in. Creating a file and writing to it do
not count, since the file is only half-written then. If the path is a symbolic link, any such event in its folder
counts: what changes may be another link on the way to the file (Kubernetes swaps `..data`).

A watch stays on the folder that had the path when the watch was set. Each fetch checks, in its thread (a network file
system may hang), whether another folder has that path now, and then the watch is set again. Setting it counts as a
change, so that none is missed. Polling finds the changes that inotify does not see (made on another machine, or behind
a link to another folder), and all changes on systems without inotify.
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

#: The list of mounted file systems, see proc_pid_mountinfo(5).
MOUNTS = "/proc/self/mountinfo"

#: File systems, in addition to those through FUSE, that other machines may write to; see mount(8).
_SHARED = frozenset({"9p", "afs", "ceph", "cifs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"})


@dataclass(frozen=True)
class Folder:
    """The identity of a folder, whatever its path, and what is known of the file in it."""

    device: int
    inode: int
    file_system: str
    #: Whether the file is a symbolic link.
    is_link: bool


def folder_of(path: str, known: Folder | None) -> Folder | None:
    """Return the folder that contains the file `path` now, or None when there is no such folder.

    Blocks for as long as the file system does.

    :param known: the previous result. If the folder is still the same, its file system is not looked up again.
    """
    try:
        found = os.stat(os.path.dirname(path))
    except OSError:
        return None
    is_link = os.path.islink(path)
    if known is not None and (known.device, known.inode, known.is_link) == (found.st_dev, found.st_ino, is_link):
        return known
    return Folder(found.st_dev, found.st_ino, _file_system(found.st_dev), is_link)


class FolderWatch:
    """Calls a function when a file may have changed."""

    log = Logger()

    def __init__(self, reactor: Any, path: str, changed: Callable[[], None]) -> None:
        """Prepare to watch the folder of `path`, which is absolute, and to call `changed` in the reactor's thread."""
        self._reactor = reactor
        self._path = path
        self._name = os.fsencode(os.path.basename(path))
        self._changed = changed
        self._folder: Folder | None = None
        self._notifier: Any = None
        self._logged: str | None = None

    def follow(self, folder: Folder | None) -> None:
        """Watch `folder`, unless it is watched already.

        :param folder: the folder that has the path now, None when there is none.
        """
        if folder == self._folder:
            return
        self.close()
        if folder is not None and self._watch():
            self._folder = folder
            if folder.file_system in _SHARED or folder.file_system.startswith("fuse"):
                self._log_once(f"on {folder.file_system}: changes made on other machines are found only by polling")
            else:
                self._log_once("watching for changes with inotify")
            self._changed()

    def close(self) -> None:
        """Stop watching."""
        self._folder = None
        if self._notifier is not None:
            self._notifier.loseConnection()
            self._notifier = None

    def _watch(self) -> bool:
        """Set the watch, and return whether that worked."""
        if inotify is None:
            self._log_once("changes are found only by polling: this system has no inotify")
            return False
        folder = os.path.dirname(self._path)
        try:
            # A new one each time: Twisted's stops when the folder is deleted.
            self._notifier = inotify.INotify(self._reactor)
            self._notifier.startReading()
            self._notifier.watch(
                FilePath(folder), mask=inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO, callbacks=[self._notified]
            )
        except inotify.INotifyError:
            self.close()
            # Twisted does not pass on the errno.
            reason = "fs.inotify.max_user_instances or fs.inotify.max_user_watches is exhausted; raise it with sysctl"
            if not os.access(folder, os.R_OK):
                reason = f"no permission to read the folder {folder}"
            self._log_once(f"changes are found only by polling: {reason}")
            return False
        return True

    def _notified(self, _: object, path: Any, mask: int) -> None:
        if mask & (inotify.IN_DELETE_SELF | inotify.IN_UNMOUNT):
            self.close()
        elif self._folder is not None and (self._folder.is_link or path.basename() == self._name):
            self._changed()

    def _log_once(self, text: str) -> None:
        if text != self._logged:
            self._logged = text
            self.log.info("file:{path}: {text}", path=self._path, text=text)


def _file_system(device: int) -> str:
    """Return the type of the file system on a device, or "" when it is not known."""
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
