"""One document of a store that is polled, and how its polls go."""

from typing import Protocol

from livestate.documents.confirmation import Confirmation
from livestate.documents.document import Document
from livestate.system.log_throttle import LogThrottle


class StoreStats(Protocol):
    """What all documents of a store have in common."""

    interval: float
    #: How often the store was polled, and how often that failed.
    polls: int
    failures: int
    #: Why the store cannot be read, in one line; None while it can be, and when that started.
    error: str | None
    error_since: float
    confirmation: Confirmation


class DocumentStats:
    """Counters and state of one document's polls."""

    __slots__ = ("_base", "_error", "_error_since", "_failures", "_store", "extra_fetches", "notifications", "throttle")

    def __init__(self, store: StoreStats) -> None:
        """:param store: the counters of the document's store; those from before are not the document's."""
        #: How often the store notified of a change of this document.
        self.notifications = 0
        #: How often the document was fetched between two polls, because the store had notified of a change.
        self.extra_fetches = 0
        #: Which of the document's own errors are logged; None before the first.
        self.throttle: LogThrottle | None = None
        self._store = store
        self._base = store.polls, store.failures
        self._failures = 0
        self._error: str | None = None
        self._error_since = 0.0

    @property
    def fetches(self) -> int:
        """How often the document was fetched, or confirmed without a fetch."""
        return self.extra_fetches + self._store.polls - self._base[0]

    @property
    def failures(self) -> int:
        """How often that failed."""
        return self._failures + self._store.failures - self._base[1]

    @property
    def own_error(self) -> str | None:
        """Why the store, which can be read, has no good document, in one line; None while it has."""
        return self._error

    @property
    def error(self) -> str | None:
        """Why there is currently no good document, in one line; None while there is."""
        return self._store.error if self._store.error is not None else self._error

    @property
    def error_since(self) -> float:
        """Seconds since 1970 when the error started."""
        return self._store.error_since if self._store.error is not None else self._error_since

    def failed(self, error: str, now: float) -> bool:
        """Record an error of the document's own, and return whether it differs from the previous one."""
        self._failures += 1
        if error == self._error:
            return False
        if self._error is None:
            self._error_since = now
        self._error = error
        return True

    def recovered(self) -> float | None:
        """Record that the document is good; return since when it was not, None if it was good already."""
        if self._error is None:
            return None
        self._error = None
        self.throttle = None
        return self._error_since


class PolledDocument:
    """One document that a StorePoller keeps up to date."""

    __slots__ = ("document", "key", "source", "stats", "store")

    def __init__(self, document: Document, key: str, source: str, store: StoreStats) -> None:
        """:param key: what names the document in its store.
        :param source: the name of the document's source, without passwords.
        """
        self.document = document
        self.key = key
        self.source = source
        self.store = store
        self.stats = DocumentStats(store)

    @property
    def interval(self) -> float:
        """Seconds between two polls."""
        return self.store.interval

    def is_fresh(self) -> bool:
        """Return whether the document was confirmed within the last three intervals, or two seconds if longer."""
        return self.document.is_fresh(self.store.interval)
