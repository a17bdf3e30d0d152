"""The content codings of one document, made when a client first asks for them.

Theory of operation. A new version of the document is published with its plain bytes only. Each time a response is made,
`Codings.ask` is given the codings that its clients accept. If the one that they prefer is missing, it is made: at once
for a small document, in a thread for a large one, whose clients are meanwhile sent what there is. So a document that no
one asks for is never compressed, and one that all clients ask for in one coding is compressed once per version.

A coding that is in use is made for the next version as soon as that is published. It is in use if it was asked for
since the current version was published (a long poll asks once and waits), or within the last LINGER seconds.

A large document has at most one thread at a time. If it changes meanwhile, the result is dropped, and the codings in
use are made for the newest version. While a slower coding of a large document is being made, clients that also accept
the fastest one are sent that.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.documents.snapshot import (
    ENCODERS,
    LARGE,
    Representation,
    Snapshot,
    encoded,
    with_coding,
    with_representation,
)

#: Seconds for which a coding stays in use after it was last asked for: clients may poll less often than the document
#: changes, and should not find it uncompressed each time.
LINGER = 10.0

_FASTEST = next(iter(ENCODERS))


class CodedDocument(Protocol):
    """The part of a document that its Codings use."""

    path: str
    snapshot: Snapshot | None

    def codings_changed(self, snapshot: Snapshot) -> None:
        """Publish the current version again: what is known of its codings has changed."""


class Codings:
    """Makes the content codings of one document."""

    __slots__ = ("_asked", "_document", "_making", "_published", "_reactor", "_waiting", "_wanted")

    log = Logger()

    def __init__(self, reactor: Any, document: CodedDocument, previous: "Codings | None" = None) -> None:
        """Make codings for `document`, whose current version is published already.

        :param reactor: provides the time and the thread pool.
        :param previous: the codings in use there are in use here, too.
        """
        self._reactor = reactor
        self._document = document
        #: When each coding was last asked for, in seconds since 1970.
        self._asked: dict[str, float] = {} if previous is None else dict(previous._asked)
        #: When the current version was published; long ago if that was before this object was made.
        self._published = float("-inf")
        #: The codings of a large document that are being made, or will be; and whether there is a thread for one.
        self._wanted: set[str] = set()
        self._making = False
        #: Fired when no coding is being made.
        self._waiting: list[Deferred[None]] = []

    def ask(self, codings: Sequence[str]) -> None:
        """Make the coding that a client prefers, if it is missing: now, or in a thread if the document is large.

        :param codings: the codings that the client accepts, best first.
        """
        snapshot = self._document.snapshot
        if snapshot is None:
            return
        now = self._reactor.seconds()
        for coding in codings:
            if coding not in ENCODERS:
                return
            self._asked[coding] = now
            if snapshot.can_gain(coding):
                if len(snapshot.body) >= LARGE:
                    self._wanted.add(coding)
                    if _FASTEST in codings and snapshot.can_gain(_FASTEST):
                        self._asked[_FASTEST] = now
                        self._wanted.add(_FASTEST)
                    self.start()
                    return
                snapshot = with_coding(snapshot, coding)
                self._document.codings_changed(snapshot)
            if coding in snapshot.representations:
                return

    def making(self, codings: Sequence[str]) -> bool:
        """Return whether the coding that a client prefers is being made in a thread.

        :param codings: as for `ask`.
        """
        snapshot = self._document.snapshot
        if snapshot is None or not self._wanted:
            return False
        preferred = next((c for c in codings if c in snapshot.representations or snapshot.can_gain(c)), None)
        return preferred in self._wanted

    def prepare(self, snapshot: Snapshot) -> Snapshot:
        """Return a new version with the codings that are in use, if it is small; `start` makes those of a large one."""
        published, self._published = self._published, self._reactor.seconds()
        since = min(published, self._published - LINGER)
        self._asked = {coding: asked for coding, asked in self._asked.items() if asked >= since}
        in_use = {coding for coding in self._asked if snapshot.can_gain(coding)}
        if len(snapshot.body) >= LARGE:
            self._wanted = in_use
            return snapshot
        self._wanted = set()
        for coding in in_use:
            snapshot = with_coding(snapshot, coding)
        return snapshot

    def start(self) -> None:
        """Make the next coding of a large document, unless one is being made."""
        snapshot = self._document.snapshot
        if self._making or not self._wanted or snapshot is None:
            return
        self._making = True
        coding = next(coding for coding in ENCODERS if coding in self._wanted)
        threads = self._reactor.getThreadPool()
        made: Deferred[Any] = deferToThreadPool(self._reactor, threads, encoded, snapshot.body, coding)
        made.addBoth(self._made, snapshot, coding)

    def finished(self) -> Deferred[None]:
        """Return a Deferred that fires when no coding is being made."""
        if not self._making:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _made(self, result: "Representation | Failure | None", of: Snapshot, coding: str) -> None:
        """Publish a coding that a thread has made, unless the document has changed meanwhile."""
        self._making = False
        try:
            snapshot = self._document.snapshot
            if snapshot is not None and snapshot.plain is of.plain:
                self._wanted.discard(coding)
                if isinstance(result, Failure):
                    self.log.failure(
                        "could not make the content coding {coding} of {path}; serving this version without it",
                        result, path=self._document.path, coding=coding,
                    )  # fmt: skip
                    result = None
                self._document.codings_changed(with_representation(snapshot, coding, result))
        finally:
            self.start()
            if not self._making:
                waiting, self._waiting = self._waiting, []
                for deferred in waiting:
                    deferred.callback(None)
