"""The recent changes of a document: what to send to a subscriber, either the whole state or patches that lead to it.

A patch is made once per change, and only while a subscriber wants patches, because the document has to be parsed for
it. Patches are kept as long as all of them together are smaller than the state. A subscriber that has missed more is
better off with the state. This also limits the memory for patches to the size of one document.

A subscriber that reconnects names the version it has by the id of its last event: VERSION-TAG. Only the tag, a hash of
the document's bytes, identifies a state. Another server, or this one after its clock was set back, may have given the
same version number to another document, or another number to the same document.
"""

from collections import deque
from itertools import islice
from typing import NamedTuple

from livestate.documents.document import Document
from livestate.documents.snapshot import Snapshot
from livestate.formats.merge_patch import Inexpressible, patch

#: Bytes: no patches are made for larger documents. At 1 MiB, one takes about 10 ms, during which the reactor serves
#: no one.
MAX_PATCHED_SIZE = 1024 * 1024

#: The maximum number of patches kept. A subscriber that reconnects within half a minute has missed thirty, at one a
#: second.
MAX_PATCHES = 64


class Message(NamedTuple):
    """One message to a subscriber: the whole state, or a patch."""

    version: int
    data: bytes
    #: Whether `data` is a merge patch to the previous version, not the state.
    is_patch: bool
    #: The tag of the document that the subscriber then has.
    tag: bytes

    @property
    def event_id(self) -> bytes:
        """The id of the event that carries this message."""
        return b"%d-%b" % (self.version, self.tag)


class History:
    """The newest version of one document, and the patches that led to it."""

    def __init__(self, document: Document) -> None:
        self.version = 0
        self._state: Message | None = None
        self._patches: deque[Message] = deque()
        self._patches_size = 0
        #: The version to which the oldest patch applies, and its tag.
        self._base = 0, b""
        if document.snapshot is not None:
            self.add(document.snapshot, deltas=False)

    def add(self, snapshot: Snapshot, deltas: bool) -> bool:
        """Add a snapshot; return whether it is a new version.

        :param deltas: whether a subscriber wants a patch.
        """
        if snapshot.version == self.version:
            return False
        before, body = self._state, snapshot.body
        self._state = Message(snapshot.version, body, False, snapshot.tag)
        change = self._make_patch(before.data, body) if deltas and before is not None else None
        if change is None or before is None:
            self._clear_patches()
        else:
            if not self._patches:
                self._base = before.version, before.tag
            self._add_patch(Message(snapshot.version, change, True, snapshot.tag), len(body))
        self.version = snapshot.version
        return True

    def since(self, version: int, deltas: bool) -> tuple[Message, ...]:
        """Return the messages that bring a subscriber up to date; none if it is.

        :param version: the version that the subscriber has; 0: none.
        :param deltas: whether the subscriber accepts patches.
        """
        if self._state is None or version == self.version:
            return ()
        if deltas and self._patches:
            bases = [self._base[0], *(message.version for message in self._patches)]
            if version in bases:
                return tuple(islice(self._patches, bases.index(version), None))
        return (self._state,)

    def version_of(self, event_id: bytes) -> int:
        """Return the newest version whose document is the one that an event id names; 0 if it is not known.

        :param event_id: as the client sent it; the event may be another server's.
        """
        _, _, tag = event_id.partition(b"-")
        if self._state is not None and tag == self._state.tag:
            return self.version
        for message in reversed(self._patches):
            if message.tag == tag:
                return message.version
        return self._base[0] if self._patches and tag == self._base[1] else 0

    def _add_patch(self, message: Message, state_size: int) -> None:
        self._patches.append(message)
        self._patches_size += len(message.data)
        while self._patches and (self._patches_size >= state_size or len(self._patches) > MAX_PATCHES):
            oldest = self._patches.popleft()
            self._patches_size -= len(oldest.data)
            self._base = oldest.version, oldest.tag

    def _clear_patches(self) -> None:
        self._patches.clear()
        self._patches_size = 0

    @staticmethod
    def _make_patch(before: bytes, after: bytes) -> bytes | None:
        """Return the merge patch between two documents, or None if it would not be smaller than the state."""
        if max(len(before), len(after)) > MAX_PATCHED_SIZE:
            return None
        try:
            change = patch(before, after)
        except Inexpressible:
            return None
        return change if len(change) < len(after) else None
