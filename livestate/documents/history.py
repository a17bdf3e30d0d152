"""What the readers of a document's changes are to be sent: the state, or the patches that lead to it.

A patch is made once a change, and only while somebody wants patches: the document has to be read for it. It is kept,
with those before it, as long as all of them together are smaller than the state: a reader who has missed more is better
off with the state. That also bounds what is held to one document's size.

Who comes back names what it has by the id of the last event that it took: VERSION-TAG. Only the tag, a hash of the
document's bytes, says what that is: another server, or one whose clock was set back, may have given the version's
number to another document, and this one may have given the same document another number.
"""

from collections import deque
from itertools import islice
from typing import NamedTuple

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.formats.merge_patch import Inexpressible, patch

#: Bytes of the largest document of which patches are made. Of 1 MiB, one takes some 10 ms, in which nobody is served.
LARGEST = 1024 * 1024

#: Patches that are held at most. A reader who comes back within half a minute misses thirty at one a second.
MOST_PATCHES = 64


class Message(NamedTuple):
    """One thing to tell a reader."""

    version: int
    data: bytes
    #: Whether `data` is a merge patch to the version told before, and not the state.
    is_patch: bool
    #: The tag of the document that the reader then has.
    tag: bytes

    @property
    def name(self) -> bytes:
        """The version as the id of an event names it."""
        return b"%d-%b" % (self.version, self.tag)


class History:
    """The newest version of one document, and the changes that led to it."""

    def __init__(self, document: Document) -> None:
        self.version = 0
        self._state: Message | None = None
        self._patches: deque[Message] = deque()
        self._held = 0
        #: The version to which the oldest patch applies, and its tag.
        self._base = 0, b""
        if document.snapshot is not None:
            self.follow(document.snapshot, deltas=False)

    def follow(self, snapshot: Snapshot, deltas: bool) -> bool:
        """Take the next version; tells whether it is one.

        :param deltas: whether anybody wants a patch.
        """
        if snapshot.version == self.version:
            return False
        before, body = self._state, snapshot.body
        self._state = Message(snapshot.version, body, False, snapshot.tag)
        change = self._change(before.data, body) if deltas and before is not None else None
        if change is None or before is None:
            self._forget_patches()
        else:
            if not self._patches:
                self._base = before.version, before.tag
            self._keep(Message(snapshot.version, change, True, snapshot.tag), len(body))
        self.version = snapshot.version
        return True

    def since(self, version: int, deltas: bool) -> tuple[Message, ...]:
        """Give what a reader of `version` (0: of none) has to be told to have the newest; nothing if that is it.

        :param deltas: whether the reader takes patches.
        """
        if self._state is None or version == self.version:
            return ()
        if deltas and self._patches:
            bases = [self._base[0], *(message.version for message in self._patches)]
            if version in bases:
                return tuple(islice(self._patches, bases.index(version), None))
        return (self._state,)

    def version_named(self, event_id: bytes) -> int:
        """Give the newest version that is the document that the id of an event names; 0 where none that is held is.

        :param event_id: as it came, of this server's or another's event.
        """
        _, _, tag = event_id.partition(b"-")
        if self._state is not None and tag == self._state.tag:
            return self.version
        for message in reversed(self._patches):
            if message.tag == tag:
                return message.version
        return self._base[0] if self._patches and tag == self._base[1] else 0

    def _keep(self, message: Message, size: int) -> None:
        self._patches.append(message)
        self._held += len(message.data)
        while self._patches and (self._held >= size or len(self._patches) > MOST_PATCHES):
            oldest = self._patches.popleft()
            self._held -= len(oldest.data)
            self._base = oldest.version, oldest.tag

    def _forget_patches(self) -> None:
        self._patches.clear()
        self._held = 0

    @staticmethod
    def _change(before: bytes, after: bytes) -> bytes | None:
        """Give the merge patch between two documents, or None where there is none that is smaller than the state."""
        if max(len(before), len(after)) > LARGEST:
            return None
        try:
            change = patch(before, after)
        except Inexpressible:
            return None
        return change if len(change) < len(after) else None
