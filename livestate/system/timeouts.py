"""Bounding how long a coroutine may take."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.python.failure import Failure

T = TypeVar("T")


def with_timeout(seconds: float, asking: Coroutine[Any, Any, T], clock: Any) -> Deferred[T]:
    """Run something for at most `seconds`, then call it off.

    Not `Deferred.addTimeout`: what is called off may say so in an exception of its own (a connection attempt:
    ConnectingCancelledError; an HTTP request: ResponseNeverReceived), and that is a timeout here too.

    :raises twisted.internet.defer.TimeoutError: the time was over.
    """
    deferred = Deferred.fromCoroutine(asking)
    over = False

    def end() -> None:
        nonlocal over
        over = True
        deferred.cancel()

    timer = clock.callLater(seconds, end)

    def ended(result: T | Failure) -> T | Failure:
        if timer.active():
            timer.cancel()
        if over and isinstance(result, Failure):
            raise DeferTimeout
        return result

    return deferred.addBoth(ended)
