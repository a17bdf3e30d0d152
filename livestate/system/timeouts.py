"""Limit the time that a coroutine may take."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.python.failure import Failure

T = TypeVar("T")


def with_timeout(seconds: float, coroutine: Coroutine[Any, Any, T], clock: Any) -> Deferred[T]:
    """Run a coroutine, and cancel it after `seconds`.

    Unlike `Deferred.addTimeout`, this counts any exception after the cancellation as a timeout. Some operations raise
    their own: a connection attempt raises ConnectingCancelledError, an HTTP request ResponseNeverReceived.

    :raises twisted.internet.defer.TimeoutError: when the coroutine was cancelled.
    """
    deferred = Deferred.fromCoroutine(coroutine)
    timed_out = False

    def cancel() -> None:
        nonlocal timed_out
        timed_out = True
        deferred.cancel()

    timer = clock.callLater(seconds, cancel)

    def finished(result: T | Failure) -> T | Failure:
        if timer.active():
            timer.cancel()
        if timed_out and isinstance(result, Failure):
            raise DeferTimeout
        return result

    return deferred.addBoth(finished)
