"""Asking the Sentinels of one service for the addresses of its servers.

All Sentinels in the URL are asked at once, on persistent connections. A round of questions ends when more than half of
them have answered, when all have answered or failed, or `GRACE` after the first answer, so that one that hangs delays
no one. Usually they agree. If they do not (one is cut off from the others, or has not yet heard of a failover), the
address with the highest configuration epoch counts: each failover gets a new epoch, agreed on by a majority
(https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/, "Configuration epochs").

A query does not depend on the callers that wait for it. It continues when one of them is cancelled, and a caller that
comes while it runs shares it. If no caller is left when it ends, the next one gets its result. So when a fetch times
out before a connection is made, the next fetch can use it.
"""

from collections.abc import Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.python.failure import Failure

from livestate.errors import SourceError
from livestate.sources.redis.connection import Servers
from livestate.sources.redis.persistent_connection import PersistentConnection
from livestate.sources.redis.url import NodeAddress
from livestate.system.timeouts import with_timeout

T = TypeVar("T")

#: The timeout for one Sentinel in seconds. It is longer than that of a fetch, so that the next fetch can use a
#: connection that is slow to make.
TIMEOUT = 2.0

#: Seconds to wait, after the first answer, for those of a majority.
GRACE = 0.1

#: The maximum size of a value in a Sentinel's reply, in bytes; more than any has.
_MAX_SIZE = 65536


class _SentinelAnswer(NamedTuple):
    sentinel: PersistentConnection
    address: NodeAddress


class _Round(Generic[T]):
    """One question to several Sentinels at once."""

    def __init__(self, clock: Any, queries: list[Coroutine[Any, Any, T]]) -> None:
        self.answers: list[T] = []
        self.troubles: set[str] = set()
        #: Fires when there are enough answers; later ones are added all the same.
        self.enough: Deferred[None] = Deferred()
        self._clock = clock
        self._asked = self._open = len(queries)
        self._grace: Any = None
        self._running = [
            with_timeout(TIMEOUT, query, clock).addCallbacks(self.answers.append, self._failed).addBoth(self._ended)
            for query in queries
        ]

    def cancel(self) -> None:
        """Cancel the questions that are not answered yet."""
        for deferred in self._running:
            deferred.cancel()

    def _failed(self, failure: Failure) -> None:
        if failure.check(DeferTimeout):
            self.troubles.add("no answer in time")
        elif failure.check(SourceError):
            self.troubles.add(str(failure.value))
        else:
            self.troubles.add(f"{type(failure.value).__name__}: {failure.value}")

    def _ended(self, _: None) -> None:
        self._open -= 1
        if not self._open or 2 * len(self.answers) > self._asked:
            self._finish()
        elif self.answers and self._grace is None and not self.enough.called:
            self._grace = self._clock.callLater(GRACE, self._finish)

    def _finish(self) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        if not self.enough.called:
            self.enough.callback(None)


class Sentinels:
    """The Sentinels of one service."""

    def __init__(self, clock: Any, servers: Servers, addresses: tuple[NodeAddress, ...], service: str) -> None:
        """Prepare to ask the Sentinels at `addresses`.

        :param service: the name of the service in their configuration.
        :raises SettingsError: when the `cafile` of `servers` cannot be used.
        """
        self._clock = clock
        self._service = service
        self._sentinels = [PersistentConnection(servers.at(address), _MAX_SIZE) for address in addresses]
        #: The Sentinels whose answer counted last time.
        self._trusted: list[PersistentConnection] = []
        self._rounds: list[_Round[Any]] = []
        self._query: Deferred[None] | None = None
        #: The callers that wait for the result of the query.
        self._waiting: list[Deferred[NodeAddress]] = []
        #: A result that came when no caller waited for it, and the time when it came.
        self._unclaimed: tuple[NodeAddress, float] | None = None

    async def primary(self) -> NodeAddress:
        """Return the address of the primary.

        :raises SourceError: when no Sentinel names it.
        """
        unclaimed, self._unclaimed = self._unclaimed, None
        if unclaimed is not None and self._clock.seconds() - unclaimed[1] < TIMEOUT:
            return unclaimed[0]
        waiting: Deferred[NodeAddress] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if len(self._waiting) == 1 and (self._query is None or self._query.called):
            self._query = Deferred.fromCoroutine(self._ask_all()).addBoth(self._finished)
        return await waiting

    async def replicas(self) -> tuple[NodeAddress, ...]:
        """Return the healthy replicas, by one of the Sentinels whose answer counted for `primary` last time.

        :raises SourceError: when it does not answer.
        """
        if not self._trusted:
            raise SourceError("cannot query the Sentinels")
        query = self._trusted[0].ask(("SENTINEL", "REPLICAS", self._service))
        try:
            reply = await with_timeout(TIMEOUT, query, self._clock)
        except DeferTimeout:
            raise SourceError("cannot query the Sentinels: no answer in time") from None
        replicas = [_fields(item) for item in reply] if isinstance(reply, list) else []
        return tuple(_address(fields.get("ip"), fields.get("port")) for fields in replicas if _is_healthy(fields))

    def disconnect(self) -> None:
        """Cancel all queries and close all connections."""
        for round_ in self._rounds:
            round_.cancel()
        if self._query is not None:
            self._query.cancel()
        for sentinel in self._sentinels:
            sentinel.drop()

    def _finished(self, result: NodeAddress | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting and isinstance(result, NodeAddress):
            self._unclaimed = result, self._clock.seconds()
        for waiter in waiting:
            waiter.callback(result)  # a Failure makes it an errback

    async def _ask_all(self) -> NodeAddress:
        for round_ in self._rounds:
            # Sentinels that have not answered since the last query are asked again, on a new connection.
            round_.cancel()
        first = await self._run_round([self._ask_one(sentinel) for sentinel in self._sentinels])
        if not first.answers:
            raise SourceError(self._trouble(first.troubles))
        answers = list(first.answers)
        if len({answer.address for answer in answers}) > 1:
            ranked = await self._run_round([self._rank(answer) for answer in answers])
            newest = max((epoch for epoch, _ in ranked.answers), default=0)
            answers = [answer for epoch, answer in ranked.answers if epoch == newest] or answers
        self._trusted = [answer.sentinel for answer in answers if answer.address == answers[0].address]
        return answers[0].address

    async def _run_round(self, queries: list[Coroutine[Any, Any, T]]) -> _Round[T]:
        round_ = _Round(self._clock, queries)
        self._rounds = [*self._rounds[-1:], round_]
        await round_.enough
        return round_

    async def _ask_one(self, sentinel: PersistentConnection) -> _SentinelAnswer:
        reply = await sentinel.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        if reply is None:
            raise SourceError(f"the Sentinels do not know the service {self._service!r}")
        if not isinstance(reply, list) or len(reply) != 2:
            raise SourceError("not a reply from a Sentinel")
        return _SentinelAnswer(sentinel, _address(*reply))

    async def _rank(self, answer: _SentinelAnswer) -> tuple[int, _SentinelAnswer]:
        reply = await answer.sentinel.ask(("SENTINEL", "MASTER", self._service))
        epoch = _fields(reply).get("config-epoch", b"")
        return int(epoch) if epoch.isdigit() else 0, answer

    def _trouble(self, troubles: set[str]) -> str:
        """Describe in one line why no Sentinel names a primary."""
        unknown = f"the Sentinels do not know the service {self._service!r}"
        if unknown in troubles:
            return f"{unknown}; use the name after `sentinel monitor` in their configuration"
        line = f"cannot query the Sentinels: {'; '.join(sorted(troubles))}"
        hint = " (set &sentinel_password=…)" if "NOAUTH" in line else ""
        return line + hint


def _fields(reply: object) -> dict[str, bytes]:
    """Parse a list of alternating names and values."""
    if not isinstance(reply, list):
        return {}
    items = [item if isinstance(item, bytes) else b"" for item in reply]
    return {name.decode(errors="replace"): value for name, value in zip(items[::2], items[1::2], strict=False)}


def _is_healthy(fields: dict[str, bytes]) -> bool:
    """Return whether the Sentinel can reach a replica, and the replica its primary."""
    flags = set(fields.get("flags", b"").split(b","))
    return not flags & {b"s_down", b"o_down", b"disconnected"} and fields.get("master-link-status") == b"ok"


def _address(host: object, port: object) -> NodeAddress:
    if not isinstance(host, bytes) or not isinstance(port, bytes) or not port.isdigit():
        raise SourceError("not a reply from a Sentinel")
    return NodeAddress(host.decode(errors="replace"), int(port))
