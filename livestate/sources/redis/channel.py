"""Subscribing to a Redis channel, where any message means that the document may have changed.

A connection that has subscribed cannot fetch (RESP2), so this one is separate from the one for fetches. It logs in the
same way, and is made again indefinitely:

    disconnected --connect, log in, SUBSCRIBE--> listening --connection lost, or no answer to PING--> waiting
    disconnected --refused, or no answer in time--> waiting --backoff--> disconnected

Pub/sub does not store messages for clients that are not connected. So each start of the subscription counts as a
change, and none is missed. A failure is logged when it starts and when its reason changes. It affects nothing else: the
document is polled at every interval all the same.

Keyspace notifications (https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/) work the same way: Redis
itself publishes on `__keyspace@DB__:KEY`, if its setting notify-keyspace-events says so. livestate checks the setting
but never changes it, as it costs the server CPU time for every key.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from txredisapi import RedisError, ResponseError

from livestate.errors import SourceError
from livestate.sources.notification_trouble import NotificationTrouble
from livestate.sources.redis.connection import RedisProtocol
from livestate.sources.redis.deployment import Deployment
from livestate.system.backoff import Backoff
from livestate.system.periodic import PeriodicTask
from livestate.system.timeouts import with_timeout

#: Seconds between two PINGs, and the timeout for connecting with a login, for the subscription and for a PING. So a
#: subscription that dies silently is noticed within 10 s. For a faster reaction, use a shorter polling interval.
PING_INTERVAL = 5.0
TIMEOUT = 5.0

#: The maximum delay in seconds before connecting again. It is as short as the Poller's, for the sake of documents that
#: are polled rarely because they have notifications.
MAX_DELAY = 1.1


def keyspace_channel(database: int, key: bytes) -> bytes:
    """Return the channel on which Redis publishes changes of a key."""
    return b"__keyspace@%d__:%s" % (database, key)


class _Subscriber(RedisProtocol):
    """One connection that subscribes."""

    def __init__(self, max_size: int, changed: Callable[[], None]) -> None:
        super().__init__(max_size)
        #: Why the connection ended, or is about to end.
        self.trouble = "the connection was lost"
        self._changed = changed

    def replyReceived(self, reply: object) -> None:
        """Handle a message from the channel; pass on any other reply."""
        if isinstance(reply, list) and reply[:1] == [b"message"]:
            self._changed()
        else:
            super().replyReceived(reply)

    def fail(self, reason: str, error: type[RedisError] = RedisError) -> None:
        """Drop the connection, and store the reason."""
        self.trouble = reason
        super().fail(reason, error)


class RedisChannel:
    """The subscription to one channel."""

    log = Logger()

    def __init__(
        self, clock: Any, deployment: Deployment, channel: bytes, keyspace: bool, source: str, max_size: int
    ) -> None:
        """Prepare to subscribe to `channel` on the server that the key is read from.

        :param keyspace: whether this is a channel for keyspace notifications, which Redis must have enabled.
        :param source: the name of the source, for log lines.
        :param max_size: the maximum size of a message in bytes.
        """
        self._clock = clock
        self._deployment = deployment
        self._channel = channel
        self._keyspace = keyspace
        self._source = source
        self._max_size = max_size
        self._backoff = Backoff(first=0.25, limit=MAX_DELAY)
        self._running: Deferred[None] | None = None
        self._subscriber: _Subscriber | None = None
        self._stopped = False
        self._notifications = NotificationTrouble(source)
        self._advice = ""

    def start(self, changed: Callable[[], None]) -> None:
        """Call `changed` at each message and each start of the subscription, until `stop`."""
        self._running = Deferred.fromCoroutine(self._run(changed))

    def reconnect(self) -> None:
        """Subscribe on the server that the key is read from now, instead of the previous one."""
        if self._subscriber is not None:
            self._subscriber.fail("the key is now read from another server")

    def stop(self) -> None:
        """Close the connection and stop."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    async def _run(self, changed: Callable[[], None]) -> None:
        while not self._stopped:
            try:
                await self._listen(changed)
            except SourceError as error:
                self._log_failure(str(error))
            except DeferTimeout:
                self._log_failure(f"no answer within {TIMEOUT:g} s")
            except Exception as error:
                # When it is cancelled by `stop`, an endpoint may raise an exception of its own. Anything else is a bug
                # in livestate or a driver; it must not stop the loop, and must not be hidden.
                if self._log_failure(f"{type(error).__name__}: {error}"):
                    self.log.failure(
                        "unexpected error while listening for changes of {source}; retrying", source=self._source
                    )
            if not self._stopped:
                try:
                    await deferLater(self._clock, self._backoff.next_delay())
                except CancelledError:
                    return

    async def _listen(self, changed: Callable[[], None]) -> None:
        """Subscribe, and listen until the connection is lost.

        :raises SourceError: when the connection is lost or cannot be made, or Redis answers with an error.
        :raises twisted.internet.defer.TimeoutError: when Redis does not answer.
        """
        make_protocol = partial(_Subscriber, self._max_size, changed)
        subscriber = await with_timeout(TIMEOUT, self._deployment.connect(make_protocol), self._clock)
        self._subscriber = subscriber
        lost = subscriber.whenDisconnected()
        pings = PeriodicTask(self._clock, partial(self._ping, subscriber), f"sending PING to Redis for {self._source}")
        try:
            await with_timeout(TIMEOUT, self._subscribe(subscriber), self._clock)
            self._notifications.listening(f"on the channel {self._channel.decode(errors='replace')}")
            changed()
            pings.start(PING_INTERVAL, now=False)
            await lost
            raise SourceError(subscriber.trouble)
        finally:
            self._subscriber = None
            pings.stop()
            subscriber.abort()

    async def _subscribe(self, subscriber: _Subscriber) -> None:
        if self._keyspace:
            await self._check_setting(subscriber)
        name = self._channel.decode(errors="replace")
        await subscriber.ask("SUBSCRIBE", self._channel, refusal=f"Redis refused the channel {name!r}")

    async def _ping(self, subscriber: _Subscriber) -> None:
        try:
            await with_timeout(TIMEOUT, subscriber.ask("PING"), self._clock)
        except DeferTimeout:
            subscriber.fail(f"no answer within {TIMEOUT:g} s")
        except SourceError:
            pass  # Either the connection is lost, which `_listen` notices, or the user may not PING: an answer too.
        else:
            # Not right after subscribing: a subscription that is always dropped at once must not be retried four times
            # a second.
            self._backoff.reset()

    async def _check_setting(self, subscriber: _Subscriber) -> None:
        """Log advice, once, if Redis is not set to publish keyspace notifications."""
        setting = "notify-keyspace-events"
        try:
            answer: Any = await subscriber.execute_command("CONFIG", "GET", setting)
        except ResponseError as error:
            advice = (
                f"cannot check whether {setting} is on ({error}); "
                "if changes are found only by polling, set it to K$g on the server"
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
                f"keyspace notifications are off in Redis ({setting} is {flags!r}), so changes are found only by "
                f"polling; run CONFIG SET {setting} {wanted} on the server, and add the setting to redis.conf"
            )  # fmt: skip
        if advice and advice != self._advice:
            self.log.warn("{source}: {advice}", source=self._source, advice=advice)
        self._advice = advice

    def _log_failure(self, trouble: str) -> bool:
        """Log why there are no notifications, and return whether the reason was new."""
        return not self._stopped and self._notifications.failed(trouble)
