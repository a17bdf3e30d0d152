"""Change notifications from MongoDB: a change stream of the collection, read in a thread.

Any change in the collection counts, because only the server can tell which of its documents the source's filter
matches. Only the resume token of each change is requested; otherwise a change would carry whole documents. Whenever the
stream starts, that counts as a change, so that none is missed.

Change streams exist only on replica sets and sharded clusters
(https://www.mongodb.com/docs/manual/changeStreams/). A standalone server refuses them, and so do most servers that
merely speak MongoDB's protocol. The refusal is logged once, and the stream is tried again with growing delays. The
document is polled at every interval all the same.

The thread is not one of the reactor's pool, where it would occupy a worker permanently. It waits for the server for at
most a second at a time, then checks whether to stop. It is a daemon thread, so it does not delay the exit of the
process.
"""

import threading
from collections.abc import Callable
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from livestate.sources.notification_trouble import NotificationTrouble
from livestate.system.backoff import Backoff

#: Milliseconds that the server may wait for a change before it answers that there is none.
MAX_AWAIT_MS = 1000

#: Seconds before the stream is tried again. The maximum is as short as the Poller's while the server cannot be reached,
#: and long when it refuses change streams.
FIRST_DELAY, MAX_DELAY, MAX_DELAY_WHEN_REFUSED = 0.5, 1.1, 60.0


class MongoChanges:
    """The change stream of one collection."""

    def __init__(
        self,
        reactor: Any,
        collection: Collection[Any],
        timeout_ms: int,
        describe: Callable[[Exception], str],
        name: str,
    ) -> None:
        """Prepare to listen to `collection`.

        :param timeout_ms: how many milliseconds the driver waits for an answer.
        :param describe: returns a one-line description of an error.
        :param name: the name of the source, for log lines.
        """
        self._reactor = reactor
        self._collection = collection
        self._await_ms = min(MAX_AWAIT_MS, timeout_ms // 2)
        self._describe = describe
        self._notifications = NotificationTrouble(name)
        self._backoff = Backoff(first=FIRST_DELAY, limit=MAX_DELAY_WHEN_REFUSED)
        self._stopped = threading.Event()

    def start(self, changed: Callable[[], None]) -> None:
        """Call `changed`, in the reactor's thread, at each change and each start of the stream, until `stop`."""
        threading.Thread(target=self._run, args=(changed,), name="change stream", daemon=True).start()

    def stop(self) -> None:
        """Make no more calls; the thread ends soon after."""
        self._stopped.set()

    def _run(self, changed: Callable[[], None]) -> None:
        while not self._stopped.is_set():
            refused = False
            try:
                self._listen(changed)
                trouble = "the change stream has ended (the collection was dropped or renamed)"
            except Exception as error:
                # Any exception: given something that is not a MongoDB message, the driver can raise anything.
                trouble = self._describe(error)
                refused = isinstance(error, OperationFailure)
            self._call_in_reactor(self._notifications.failed, trouble)
            delay = self._backoff.next_delay()
            self._stopped.wait(delay if refused else min(delay, MAX_DELAY))

    def _listen(self, changed: Callable[[], None]) -> None:
        """Listen until the server ends the stream."""
        with self._collection.watch([{"$project": {"_id": True}}], max_await_time_ms=self._await_ms) as stream:
            self._call_in_reactor(self._notifications.listening, "through a change stream")
            self._call_in_reactor(changed)
            while stream.alive and not self._stopped.is_set():
                if stream.try_next() is not None:
                    self._call_in_reactor(changed)
                self._backoff.reset()

    def _call_in_reactor(self, call: Callable[..., object], *arguments: object) -> None:
        if not self._stopped.is_set():
            self._reactor.callFromThread(lambda: None if self._stopped.is_set() else call(*arguments))
