"""Periodic work that a failure does not end.

A LoopingCall stops for good at the first exception, and reports it only through a Deferred that is easily forgotten. If
it closed idle connections or supervised workers, livestate would look healthy and no longer do that.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure


class PeriodicTask:
    """Calls a function at an interval, whether it raises or not.

    A failure is logged with its traceback when it begins or its type changes, and not again until a call has succeeded.
    """

    log = Logger()

    def __init__(self, clock: Any, function: Callable[[], Any], name: str) -> None:
        """:param function: may return a Deferred or a coroutine; it is not called again before that is done.
        :param name: what the function does, as the subject of a log line: "closing idle connections".
        """
        self._function = function
        self._name = name
        self._failed: type[BaseException] | None = None
        self._loop = LoopingCall(self._call)
        self._loop.clock = clock

    @property
    def running(self) -> bool:
        """Return whether the task was started and has not been stopped."""
        return bool(self._loop.running)

    def start(self, interval: float, now: bool = True) -> None:
        """Call the function every `interval` seconds.

        :param now: whether the first call is now, and not after an interval.
        """
        self._loop.start(interval, now)

    def stop(self) -> None:
        """Make no further call. The task may be stopped several times, also by its own function."""
        if self._loop.running:
            self._loop.stop()

    def _call(self) -> Deferred[None]:
        return maybeDeferred(self._function).addCallbacks(self._call_succeeded, self._call_failed)

    def _call_succeeded(self, _: object) -> None:
        if self._failed is not None:
            self._failed = None
            self.log.info("{name} works again", name=self._name)

    def _call_failed(self, failure: Failure) -> None:
        if failure.type is not self._failed:
            self._failed = failure.type
            self.log.failure(
                "{name} failed; trying again every {interval:g} s",
                failure, name=self._name, interval=self._loop.interval,
            )  # fmt: skip
