"""The two ways of being told: an asynchronous iterator, and a callback."""

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
from livestate.config.redaction import redacted
from livestate.config.settings import MAX_SIZE
from livestate.errors import WatchError

log = Logger()


class Watch:
    """A document's states, one after the other, as an asynchronous iterator for coroutines that await Deferreds.

    One who is slow skips to the newest state; nothing is queued. It ends with `aclose`, with the end of an
    `async with`, or when nobody refers to it any more, as after `break` in a loop over a Watch that has no name.

    Iterating raises WatchError, once, where the document is not there or the server is not to be trusted.
    """

    def __init__(self, clock: Any, make_follower: Callable[[Callable[[State], None]], Follower]) -> None:
        self._clock = clock
        # Not the Watch itself is known to the Follower: it could never be forgotten.
        self._slot = _Slot()
        self._follower = make_follower(self._slot.put)
        self._started = False

    @property
    def status(self) -> Status:
        """How it stands with the server at this moment."""
        return self._follower.status

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> State:
        if not self._started:
            self._started = True
            self._follower.start().addBoth(self._slot.end)
        return await self._slot.take()

    async def aclose(self) -> None:
        """End; done when every connection is closed."""
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
        follower = getattr(self, "_follower", None)  # making it may have failed
        if follower is None:
            return
        # Python collects garbage in whatever thread makes some.
        if threadable.ioThread in (None, threadable.getThreadID()):
            follower.stop()
        else:
            self._clock.callFromThread(follower.stop)


class _Slot:
    """Holds the newest state until it is taken."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._ended: Failure | None = None
        self._over = False
        self._taker: Deferred[None] | None = None

    def put(self, state: State) -> None:
        # The patch of a state whose predecessor was never taken is of no use to the taker.
        self._state = state if self._state is None else replace(state, patch=None)
        self._wake()

    def close(self) -> None:
        self._state = self._ended = None
        self._over = True
        self._wake()

    def end(self, result: Any) -> None:
        if not self._over:
            self._over = True
            self._ended = result if isinstance(result, Failure) else None
            self._wake()

    async def take(self) -> State:
        if self._taker is not None:
            raise RuntimeError("one Watch is for one reader: another waits for its next state already")
        while True:
            if self._state is not None:
                state, self._state = self._state, None
                return state
            if self._ended is not None:
                ended, self._ended = self._ended, None
                ended.raiseException()
            if self._over:
                raise StopAsyncIteration
            self._taker = Deferred()
            try:
                await self._taker
            finally:
                self._taker = None

    def _wake(self) -> None:
        taker = self._taker
        if taker is not None and not taker.called:
            taker.callback(None)


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
    """Watch the document at `url`; it is first asked for when the first state is.

    :param url: `http://…` or `https://…`; a user and password in it are sent as Basic authentication.
    :param reactor: the global one if it is not given.
    :param cafile: a PEM file of the authorities to trust, in place of the system's.
    :param headers: fields to send with each request, such as Authorization.
    :param interval: seconds between requests where the server neither has events nor holds requests.
    :param heartbeat: seconds between the heartbeats of the server's event streams, its option `--heartbeat`: a stream
        is given up when nothing has come for two and a half of them.
    :param max_size: bytes that the document may have.
    :param agent: makes the requests in place of Twisted's own, as for a proxy; `cafile` is then its affair.
    :param on_status: is called with each change of how it stands with the server.
    :raises SettingsError: the URL is none, or `cafile` cannot be used.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: PLC0415  # it is the caller who chooses it, before this
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
    """Have `callback` called with each state of the document at `url`, from now on.

    :param on_error: is called, once, with the WatchError that ended it; without it, that is logged.
    :param options: as for `watch`.
    :returns: what ends it: after that nothing is called. It gives a Deferred that fires when every connection is
        closed.
    :raises SettingsError: the URL is none, or `cafile` cannot be used.
    """
    states = watch(url, **options)

    async def read() -> None:
        try:
            async for state in states:
                try:
                    callback(state)
                except Exception:  # it is the caller's, and must not end the reading
                    log.failure("what was subscribed to {url} failed", url=redacted(url))
        except WatchError as error:
            if on_error is None:
                log.error("{error}", error=error)
            else:
                on_error(error)

    reading = Deferred.fromCoroutine(read())
    reading.addErrback(lambda failure: log.failure("reading {url} failed", failure, url=redacted(url)))
    return lambda: Deferred.fromCoroutine(states.aclose())
