"""What a StorePoller logs: one line for a store, and one for a document of its own, each when something is new."""

from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.documents.polled_document import PolledDocument
from livestate.system.log_throttle import LogThrottle

#: Lines about single documents of one store that are logged per MINUTE seconds; more of them are only counted.
MAX_LINES = 20
MINUTE = 60.0


class PollerLog:
    """The log of one store."""

    log = Logger()

    def __init__(self, store: str, clock: Any) -> None:
        """:param store: the name of the store, without passwords."""
        self._store = store
        self._clock = clock
        self._throttle = LogThrottle()
        self._minute = -MINUTE
        self._lines = 0

    def shutting_down(self, failure: Failure) -> None:
        """Log what ends the process."""
        self.log.critical("the store {store} raised {error!r}; shutting down", store=self._store, error=failure.value)

    def store_failed(self, reason: str, foreseen: bool, documents: list[PolledDocument]) -> None:
        """Log why the store cannot be read, unless that was logged.

        :param foreseen: whether it is an ordinary failure, and no bug.
        """
        logged = self._throttle.filter(reason)
        if logged is None:
            return
        subject = self._subject(documents)
        self.log.warn("{subject}: {reason}; {effect}, retrying",
                      subject=subject, reason=logged, effect=_effect(documents))  # fmt: skip
        if not foreseen:
            self.log.failure("{subject}: failed with an unexpected error; retrying", subject=subject)

    def store_recovered(self, since: float, documents: list[PolledDocument]) -> None:
        """Log that the store can be read again, unless its only document is not good all the same."""
        self._throttle.reset()
        if len(documents) == 1 and documents[0].stats.own_error is not None:
            return
        self.log.info("{subject}: recovered after {seconds:.1f} s",
                      subject=self._subject(documents), seconds=self._clock.seconds() - since)  # fmt: skip

    def document_failed(self, polled: PolledDocument) -> None:
        """Log why the store has no good document for one path, unless there were too many such lines."""
        if polled.stats.throttle is None:
            polled.stats.throttle = LogThrottle()
        reason = polled.stats.throttle.filter(polled.stats.own_error or "")
        if reason is None or not self._allowed():
            return
        self.log.warn("{path}: {source}: {reason}; {effect}, retrying", path=polled.document.path,
                      source=polled.source, reason=reason, effect=_effect([polled]))  # fmt: skip

    def document_recovered(self, polled: PolledDocument, since: float) -> None:
        """Log that there is a good document again."""
        if self._allowed():
            self.log.info("{path}: {source}: recovered after {seconds:.1f} s", path=polled.document.path,
                          source=polled.source, seconds=self._clock.seconds() - since)  # fmt: skip

    def _subject(self, documents: list[PolledDocument]) -> str:
        """Return what a line about the store is about: its only document, or the store and their number."""
        if len(documents) == 1:
            return f"{documents[0].document.path}: {documents[0].source}"
        return f"{self._store} ({len(documents)} documents)"

    def _allowed(self) -> bool:
        now = self._clock.seconds()
        if now - self._minute >= MINUTE:
            self._minute, self._lines = now, 0
        self._lines += 1
        if self._lines == MAX_LINES + 1:
            self.log.warn("{store}: more documents have changed their state; see /status", store=self._store)
        return self._lines <= MAX_LINES


def _effect(documents: list[PolledDocument]) -> str:
    """Return what a failure means for clients."""
    missing = sum(polled.document.snapshot is None for polled in documents)
    if not missing:
        return "serving the last good document" + ("s" if len(documents) > 1 else "")
    if missing == len(documents):
        return "nothing to serve yet, answering 503"
    return f"serving the last good documents, and nothing yet for {missing} of {len(documents)}"
