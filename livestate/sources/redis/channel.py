"""Listening on a channel of Redis: what is published there, whatever it is, says that the document may have changed.

A connection that has subscribed can fetch nothing (RESP2), so this one is a second one beside that which fetches. It
is logged in to in the same way, and made anew for ever:

    away --connect, log in, SUBSCRIBE--> listening --lost, or a PING without answer--> waiting
    away --refused, or no answer in time--> waiting --backoff--> away

Pub/sub keeps nothing for those who were not there: whenever the subscription begins, that counts as a change, so that
nothing is missed. What goes wrong is logged when it begins and when it changes, and matters to nothing else: documents
are fetched each interval all the same.

Keyspace notifications (https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/) are the same thing: Redis
itself publishes on `__keyspace@DB__:KEY`, if its setting notify-keyspace-events has it so. The setting is looked at and
never changed: it costs the server CPU time for every key.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from txredisapi import RedisError, ResponseError

from livestate.errors import SourceError
from livestate.sources.push_report import NotificationTrouble
from livestate.sources.redis.connection import RedisProtocol
from livestate.sources.redis.deployment import Deployment
from livestate.system.backoff import Backoff
from livestate.system.timeouts import with_timeout

#: Seconds between two PINGs, and the most that a connection, a login, a subscription or a PING may take: a subscription
#: that goes silently dead is noticed within 10 s. Those who want changes sooner than that have a shorter interval.
PING_EACH = 5.0
LONGEST_WAIT = 5.0

#: Seconds: the longest pause before a lost Redis is tried again. As short as the Poller's, for the sake of documents
#: that are fetched seldom because they are pushed.
LONGEST_PAUSE = 1.1


def keyspace_channel(database: int, key: bytes) -> bytes:
    """Give the channel on which Redis tells of one key."""
    return b"__keyspace@%d__:%s" % (database, key)


class _Subscriber(RedisProtocol):
    """One connection that subscribes."""

    def __init__(self, max_size: int, told: Callable[[], None]) -> None:
        super().__init__(max_size)
        #: Why the connection was given up, or will soon be found lost.
        self.trouble = "the connection was lost"
        self._told = told

    def replyReceived(self, reply: object) -> None:
        """Take a message; all else as ever."""
        if isinstance(reply, list) and reply[:1] == [b"message"]:
            self._bytes = self._lines = 0
            self._told()
        else:
            super().replyReceived(reply)

    def give_up(self, why: str) -> None:
        """Drop the connection, and remember why."""
        self.trouble = why
        super().give_up(why)


class RedisChannel:
    """One channel that is listened on."""

    log = Logger()

    def __init__(
        self, clock: Any, server: Deployment, channel: bytes, keyspace: bool, source: str, max_size: int
    ) -> None:
        """Prepare to listen on `channel` of the server that is read.

        :param keyspace: the channel is one of Redis's own; see whether they are switched on.
        :param source: the name of what is listened for, in log lines.
        :param max_size: the most bytes a message may have.
        """
        self._clock = clock
        self._server = server
        self._channel = channel
        self._keyspace = keyspace
        self._source = source
        self._max_size = max_size
        self._backoff = Backoff(first=0.25, limit=LONGEST_PAUSE)
        self._running: Deferred[None] | None = None
        self._subscriber: _Subscriber | None = None
        self._stopped = False
        self._report = NotificationTrouble(source)
        self._advice = ""

    def start(self, told: Callable[[], None]) -> None:
        """Call `told` at each message and each time the subscription begins, until `stop`."""
        self._running = Deferred.fromCoroutine(self._listen_for_ever(told))

    def renew(self) -> None:
        """Listen at the server that is read now, no longer at that of before."""
        if self._subscriber is not None:
            self._subscriber.give_up("another server is read now")

    def stop(self) -> None:
        """Drop the connection and make no other."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    async def _listen_for_ever(self, told: Callable[[], None]) -> None:
        while not self._stopped:
            try:
                await self._listen(told)
            except SourceError as error:
                self._failed(str(error))
            except DeferTimeout:
                self._failed(f"no answer within {LONGEST_WAIT:g} s")
            except Exception as error:
                # Called off at the end, an endpoint says so in an exception of its own. Else it is a fault of ours or
                # of a driver, which must not end the listening, and must not be hidden.
                if self._failed(f"{type(error).__name__}: {error}"):
                    self.log.failure("listening for {source} failed in a way that it should not", source=self._source)
            if not self._stopped:
                try:
                    await deferLater(self._clock, self._backoff.next_delay())
                except CancelledError:
                    return

    async def _listen(self, told: Callable[[], None]) -> None:
        """Listen until the connection is lost.

        :raises SourceError: it is; or there was none, or Redis refused.
        :raises twisted.internet.defer.TimeoutError: Redis did not answer.
        """
        make = partial(_Subscriber, self._max_size, told)
        subscriber = await with_timeout(LONGEST_WAIT, self._server.connect(make), self._clock)
        self._subscriber = subscriber
        lost = subscriber.whenDisconnected()
        pings = LoopingCall(self._ping, subscriber)
        pings.clock = self._clock
        try:
            await with_timeout(LONGEST_WAIT, self._subscribe(subscriber), self._clock)
            self._report.works(f"on the channel {self._channel.decode(errors='replace')}")
            told()
            pings.start(PING_EACH, now=False)
            await lost
            raise SourceError(subscriber.trouble)
        finally:
            self._subscriber = None
            if pings.running:
                pings.stop()
            subscriber.abort()

    async def _subscribe(self, subscriber: _Subscriber) -> None:
        if self._keyspace:
            await self._look_at_setting(subscriber)
        name = self._channel.decode(errors="replace")
        await subscriber.ask("SUBSCRIBE", self._channel, refusal=f"Redis refuses the channel {name!r}")

    async def _ping(self, subscriber: _Subscriber) -> None:
        try:
            await with_timeout(LONGEST_WAIT, subscriber.ask("PING"), self._clock)
        except DeferTimeout:
            subscriber.give_up(f"no answer within {LONGEST_WAIT:g} s")
        except SourceError:
            pass  # Lost, which `_listen` sees, or refused to this user, which is an answer too.
        else:
            # Not at the subscription: one that is dropped each time at once is not to be made four times a second.
            self._backoff.reset()

    async def _look_at_setting(self, subscriber: _Subscriber) -> None:
        """Say it, once, if Redis is not set to tell of its keys."""
        setting = "notify-keyspace-events"
        try:
            answer: Any = await subscriber.execute_command("CONFIG", "GET", setting)
        except ResponseError as error:
            advice = (
                f"cannot see whether {setting} is on ({error}); "
                "if the document changes only at each poll, have it set to K$g on the server"
            )
        except RedisError as error:
            raise SourceError(str(error)) from None
        else:
            flags = answer[1].decode(errors="replace") if isinstance(answer, list) and len(answer) == 2 else ""
            # https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/: K: __keyspace@…; $: strings;
            # g: RENAME, DEL and the like; A: all of these.
            on = "K" in flags and ("A" in flags or "$" in flags)
            wanted = flags + "".join(flag for flag in "K$g" if flag not in flags)
            advice = "" if on else (
                f"Redis is not set to tell of its keys ({setting} is {flags!r}): run CONFIG SET {setting} {wanted} "
                "there, and put it into redis.conf; until then changes are found by polling"
            )  # fmt: skip
        if advice and advice != self._advice:
            self.log.warn("{source}: {advice}", source=self._source, advice=advice)
        self._advice = advice

    def _failed(self, trouble: str) -> bool:
        return not self._stopped and self._report.fails(trouble)
