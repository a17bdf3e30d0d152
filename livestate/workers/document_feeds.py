"""The documents that the supervisor sends to the workers."""

from collections.abc import Callable, Iterable
from functools import partial

from livestate.documents.confirmation import Confirmation
from livestate.web.resources.readiness import ServedDocument
from livestate.workers.document_feed import DocumentFeed


class DocumentFeeds:
    """One DocumentFeed for each document of the current settings."""

    def __init__(self, notify: Callable[[DocumentFeed], None], notify_all: Callable[[Confirmation], None]) -> None:
        """:param notify: called whenever a document has changed, or was confirmed alone.
        :param notify_all: called whenever all documents that share a confirmation were confirmed.
        """
        self._notify = notify
        self._notify_all = notify_all
        #: Each feed, with the function that unsubscribes it from its document.
        self._feeds: dict[DocumentFeed, Callable[[], None]] = {}

    def all(self) -> list[DocumentFeed]:
        """Return all feeds, in the order of the settings."""
        return list(self._feeds)

    def change(self, served: Iterable[ServedDocument]) -> None:
        """Follow the documents of `served` from now on, and no others."""
        existing = {feed.document: feed for feed in self._feeds}
        documents = dict.fromkeys(each.document for each in served)
        for feed, unsubscribe in list(self._feeds.items()):
            if feed.document not in documents:
                unsubscribe()
                del self._feeds[feed]
        ordered = {}
        for document in documents:
            feed = existing.get(document) or DocumentFeed(document)
            notify = partial(self._document_changed, feed)
            unsubscribe = self._feeds.get(feed) or document.subscribe(
                lambda _, notify=notify: notify()  # type: ignore[misc]
            )
            document.on_confirmed = notify
            ordered[feed] = unsubscribe
        self._feeds = ordered

    def _document_changed(self, feed: DocumentFeed) -> None:
        shared = feed.document.confirmation
        if shared is not None:
            shared.on_confirmed = partial(self._notify_all, shared)
        self._notify(feed)
