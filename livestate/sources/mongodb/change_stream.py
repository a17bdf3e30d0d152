"""Being told of changes by MongoDB: a change stream of the collection, read in a thread.

Any change in the collection counts, since which of its documents the source's filter matches is for the server to say.
Of each change only the resume token is asked for: a change carries whole documents otherwise. Whenever the stream
begins anew, that counts as a change, so that nothing is missed.

Change streams are there on replica sets and sharded clusters alone
(https://www.mongodb.com/docs/manual/changeStreams/): a standalone server refuses them, as do most that only speak the
protocol. That is logged once, and tried again ever more seldom; the document is fetched each interval all the same.

The thread is one of its own, not of the reactor's pool, which it would keep busy for ever. It waits for the server for
no longer than a second at a time, looks then whether it is to end, and does not hold up the end of the process.
"""

import threading
from collections.abc import Callable
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from livestate.sources.push_report import NotificationTrouble
from livestate.system.backoff import Backoff

#: Milliseconds that the server may wait for a change before it answers that there was none.
LONGEST_WAIT = 1000

#: Seconds between two tries: as soon as the Poller's while the server is away, and seldom where it has no change
#: streams.
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE_OF_REFUSED = 0.5, 1.1, 60.0


class MongoChanges:
    """The changes of one collection."""

    def __init__(
        self, reactor: Any, collection: Collection[Any], patience: int, reason: Callable[[Exception], str], name: str
    ) -> None:
        """Prepare to listen to `collection`.

        :param patience: milliseconds that the driver waits for an answer.
        :param reason: says in a line what is wrong.
        :param name: of the source, in log lines.
        """
        self._reactor = reactor
        self._collection = collection
        self._wait = min(LONGEST_WAIT, patience // 2)
        self._reason = reason
        self._report = NotificationTrouble(name)
        self._backoff = Backoff(first=FIRST_PAUSE, limit=LONGEST_PAUSE_OF_REFUSED)
        self._stopped = threading.Event()

    def start(self, told: Callable[[], None]) -> None:
        """Call `told`, in the reactor's thread, at each change and each time the stream begins, until `stop`."""
        threading.Thread(target=self._listen_for_ever, args=(told,), name="change stream", daemon=True).start()

    def stop(self) -> None:
        """Call nothing more; the thread ends soon."""
        self._stopped.set()

    def _listen_for_ever(self, told: Callable[[], None]) -> None:
        while not self._stopped.is_set():
            refused = False
            try:
                self._listen(told)
                trouble = "the change stream has ended (the collection was dropped or renamed)"
            except Exception as error:
                # Not the driver's own errors alone: what is no message of MongoDB's can make it raise anything.
                trouble = self._reason(error)
                refused = isinstance(error, OperationFailure)
            self._in_reactor(self._report.fails, trouble)
            pause = self._backoff.next_delay()
            self._stopped.wait(pause if refused else min(pause, LONGEST_PAUSE))

    def _listen(self, told: Callable[[], None]) -> None:
        """Listen until the server ends the stream."""
        with self._collection.watch([{"$project": {"_id": True}}], max_await_time_ms=self._wait) as stream:
            self._in_reactor(self._report.works, "by a change stream")
            self._in_reactor(told)
            while stream.alive and not self._stopped.is_set():
                if stream.try_next() is not None:
                    self._in_reactor(told)
                self._backoff.reset()

    def _in_reactor(self, call: Callable[..., object], *arguments: object) -> None:
        if not self._stopped.is_set():
            self._reactor.callFromThread(lambda: None if self._stopped.is_set() else call(*arguments))
