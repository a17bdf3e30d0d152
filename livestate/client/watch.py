"""The two interfaces for watching a document: an asynchronous iterator and a callback."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from livestate.client.address import parse_address
from livestate.client.connection import Connection
from livestate.client.follower import Follower
from livestate.client.state import State, Status
from livestate.config.options import MAX_SIZE
from livestate.config.redaction import redacted
from livestate.errors import WatchError

log = Logger()


class Watch:
    """An asynchronous iterator over the states of a document, for coroutines that await Deferreds.

    A slow consumer skips to the newest state; nothing is queued. A Watch ends with `aclose`, at the end of an
    `async with` block, or when it is no longer referenced, for example after `break` in a loop over an unnamed Watch.

    Iteration raises WatchError, once, if the document does not exist or the server is not trusted.
    """

    def __init__(self, clock: Any, make_follower: Callable[[Callable[[State], None]], Follower]) -> None:
        self._clock = clock
        # The Follower must not refer to the Watch: the Watch could never be garbage-collected.
        self._slot = _Slot()
        self._follower = make_follower(self._slot.put)
        self._started = False

    @property
    def status(self) -> Status:
        """The current state of the connection to the server."""
        return self._follower.status

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> State:
        if not self._started:
            self._started = True
            self._follower.start().addBoth(self._slot.end)
        return await self._slot.take()

    async def aclose(self) -> None:
        """Stop watching. Returns when every connection is closed."""
        self._started = True
        self._slot.close()
        self._follower.stop()
        await deferLater(self._clock, 0)

    async def __aenter__(self) -> "Watch":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        follower = getattr(self, "_follower", None)  # absent if __init__ failed
        if follower is None:
            return
        # Python may collect garbage in any thread.
        if threadable.ioThread in (None, threadable.getThreadID()):
            follower.stop()
        else:
            self._clock.callFromThread(follower.stop)


class _Slot:
    """Holds the newest state until it is taken."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._failure: Failure | None = None
        self._ended = False
        self._waiter: Deferred[None] | None = None

    def put(self, state: State) -> None:
        # If the previous state was never taken, the patch does not apply to what the consumer has.
        self._state = state if self._state is None else replace(state, patch=None)
        self._wake()

    def close(self) -> None:
        self._state = self._failure = None
        self._ended = True
        self._wake()

    def end(self, result: Any) -> None:
        if not self._ended:
            self._ended = True
            self._failure = result if isinstance(result, Failure) else None
            self._wake()

    async def take(self) -> State:
        if self._waiter is not None:
            raise RuntimeError("this Watch already has a consumer waiting for the next state; use one Watch for each")
        while True:
            if self._state is not None:
                state, self._state = self._state, None
                return state
            if self._failure is not None:
                failure, self._failure = self._failure, None
                failure.raiseException()
            if self._ended:
                raise StopAsyncIteration
            self._waiter = Deferred()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.called:
            waiter.callback(None)


def watch(
    url: str,
    *,
    reactor: Any = None,
    cafile: str | Path | None = None,
    headers: Mapping[str, str] | None = None,
    interval: float = 1.0,
    heartbeat: float = 15.0,
    max_size: int = MAX_SIZE,
    agent: IAgent | None = None,
    on_status: Callable[[Status], None] | None = None,
) -> Watch:
    """Watch the document at `url`. The first request is sent when iteration starts.

    :param url: `http://…` or `https://…`. A user and password in it are sent as Basic authentication.
    :param reactor: defaults to the global reactor.
    :param cafile: a PEM file of certificate authorities to trust instead of the system's.
    :param headers: fields to send with each request, such as Authorization.
    :param interval: seconds between requests, if the server neither has events nor holds requests.
    :param heartbeat: seconds between heartbeats on the server's event streams (the server's option `--heartbeat`). A
        stream counts as dead after two and a half heartbeats without data.
    :param max_size: maximum size of the document, in bytes.
    :param agent: sends the requests instead of Twisted's own agent, for example through a proxy. Certificates are then
        verified by the agent, and `cafile` has no effect.
    :param on_status: called with the new Status whenever it changes.
    :raises SettingsError: when the URL is not valid, or `cafile` cannot be used.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415  # the caller installs a reactor before this
    address = parse_address(url)
    connection = Connection(
        reactor, address, cafile=None if cafile is None else Path(cafile), headers=headers, agent=agent
    )
    return Watch(
        reactor,
        lambda on_state: Follower(
            connection, address, on_state,
            interval=interval, heartbeat=heartbeat, max_size=max_size, on_status=on_status,
        )
    )  # fmt: skip


def subscribe(
    url: str,
    callback: Callable[[State], object],
    *,
    on_error: Callable[[WatchError], object] | None = None,
    **options: Any,
) -> Callable[[], Deferred[None]]:
    """Call `callback` with each state of the document at `url`, starting now.

    :param on_error: called once with the WatchError that ended the subscription. By default the error is logged.
    :param options: as for `watch`.
    :returns: a function that ends the subscription. No callback is called after that. It returns a Deferred that fires
        when every connection is closed.
    :raises SettingsError: when the URL is not valid, or `cafile` cannot be used.
    """
    states = watch(url, **options)

    async def deliver() -> None:
        try:
            async for state in states:
                try:
                    callback(state)
                except Exception:  # a fault of the application, which must not end the subscription
                    log.failure("the callback for {url} failed; keeping the subscription", url=redacted(url))
        except WatchError as error:
            if on_error is None:
                log.error("{error}", error=error)
            else:
                on_error(error)

    delivering = Deferred.fromCoroutine(deliver())
    delivering.addErrback(
        lambda failure: log.failure(
            "the subscription to {url} failed unexpectedly and has ended", failure, url=redacted(url)
        )
    )
    return lambda: Deferred.fromCoroutine(states.aclose())
