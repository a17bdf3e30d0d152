"""All documents, on their way to one worker.

Changes are conflated, never queued. While the worker's pipe is full, the feed only notes which documents have changed.
Once the worker has caught up, it gets the current state of each of them.
"""

from collections.abc import Sequence
from typing import Any

from livestate.workers.document_feed import DocumentFeed
from livestate.workers.pipe import Pipe


class WorkerFeed:
    """Keeps one worker up to date with all documents."""

    def __init__(self, pipe: Pipe[Any], feeds: Sequence[DocumentFeed]) -> None:
        """Send the current state of all documents to `pipe`."""
        self._pipe = pipe
        #: The version of each document that the worker has; 0: none.
        self._known: dict[DocumentFeed, int] = dict.fromkeys(feeds, 0)
        #: The documents to send, in the order of their changes (a set that keeps its order).
        self._pending: dict[DocumentFeed, None] = dict.fromkeys(feeds)
        pipe.on_writable = self._send_pending
        # The pipe is still empty. All documents are written at once, whatever their size, so that they precede every
        # later message.
        for feed in feeds:
            self._send(feed)

    def notify(self, feed: DocumentFeed) -> None:
        """Send the state of a changed or confirmed document, now or when the pipe is writable again."""
        self._pending[feed] = None
        self._send_pending()

    def _send_pending(self) -> None:
        for feed in list(self._pending):
            if not self._pipe.writable:
                return
            self._send(feed)

    def _send(self, feed: DocumentFeed) -> None:
        self._pending.pop(feed, None)
        data = feed.frames_since(self._known[feed])
        if feed.document.snapshot is not None:
            self._known[feed] = feed.document.snapshot.version
            self._pipe.transport.write(data)
