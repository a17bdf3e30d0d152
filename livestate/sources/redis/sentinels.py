"""Asking the Sentinels of one service where its servers are.

All that are named are asked at once, on connections that are kept. The answer is there when more than half of them have
given one, or all have answered or failed, or `GRACE` after the first answer: one that hangs holds up nobody. As a rule
they agree. Where they do not (one is cut off from the others, or has not yet heard of a failover), the address with the
highest configuration epoch counts: each failover has a new one, agreed on by a majority
(https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/, "Configuration epochs").

An asking is not bound to those who wait for it. It goes on when one of them is called off, and whoever comes meanwhile
shares it, or finds the answer: a fetch that has less time than a connection takes is only put off.
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

#: Seconds that one Sentinel is given. More than a fetch has: a slow connection is there for the next one.
LONGEST_WAIT = 2.0

#: Seconds after the first answer that the others are waited for, while those who answered are not the majority.
GRACE = 0.1

#: Bytes: more than any value that a Sentinel answers with.
_MAX_SIZE = 65536


class _SentinelAnswer(NamedTuple):
    sentinel: PersistentConnection
    address: NodeAddress


class _Round(Generic[T]):
    """One question to several at once."""

    def __init__(self, clock: Any, questions: list[Coroutine[Any, Any, T]]) -> None:
        self.answers: list[T] = []
        self.troubles: set[str] = set()
        #: Called when the answers are enough; those that come later are added all the same.
        self.over: Deferred[None] = Deferred()
        self._clock = clock
        self._asked = self._open = len(questions)
        self._grace: Any = None
        self._running = [
            with_timeout(LONGEST_WAIT, question, clock)
            .addCallbacks(self.answers.append, self._failed)
            .addBoth(self._ended)
            for question in questions
        ]

    def cancel(self) -> None:
        """Wait for no more answers."""
        for deferred in self._running:
            deferred.cancel()

    def _failed(self, failure: Failure) -> None:
        if failure.check(DeferTimeout):
            self.troubles.add("no answer")
        elif failure.check(SourceError):
            self.troubles.add(str(failure.value))
        else:
            self.troubles.add(f"{type(failure.value).__name__}: {failure.value}")

    def _ended(self, _: None) -> None:
        self._open -= 1
        if not self._open or 2 * len(self.answers) > self._asked:
            self._enough()
        elif self.answers and self._grace is None and not self.over.called:
            self._grace = self._clock.callLater(GRACE, self._enough)

    def _enough(self) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        if not self.over.called:
            self.over.callback(None)


class Sentinels:
    """Those who watch over one service."""

    def __init__(self, clock: Any, servers: Servers, addresses: tuple[NodeAddress, ...], service: str) -> None:
        """Prepare to ask those at `addresses` for `service`, its name in their configuration.

        :raises SettingsError: the file of the authorities cannot be used.
        """
        self._clock = clock
        self._service = service
        self._sentinels = [PersistentConnection(servers.at(address), _MAX_SIZE) for address in addresses]
        #: Those who were right the last time.
        self._right: list[PersistentConnection] = []
        self._rounds: list[_Round[Any]] = []
        self._asking: Deferred[None] | None = None
        self._waiting: list[Deferred[NodeAddress]] = []
        #: An answer that came when nobody waited any more, and when it did.
        self._unheard: tuple[NodeAddress, float] | None = None

    async def primary(self) -> NodeAddress:
        """Ask where the primary is.

        :raises SourceError: no Sentinel says it.
        """
        unheard, self._unheard = self._unheard, None
        if unheard is not None and self._clock.seconds() - unheard[1] < LONGEST_WAIT:
            return unheard[0]
        waiting: Deferred[NodeAddress] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if len(self._waiting) == 1 and (self._asking is None or self._asking.called):
            self._asking = Deferred.fromCoroutine(self._ask_all()).addBoth(self._asked)
        return await waiting

    async def replicas(self) -> tuple[NodeAddress, ...]:
        """Ask for the replicas that are well, one of the Sentinels whose word counted for `primary` last.

        :raises SourceError: it does not say it.
        """
        if not self._right:
            raise SourceError("no Sentinel answers")
        asking = self._right[0].ask(("SENTINEL", "REPLICAS", self._service))
        try:
            reply = await with_timeout(LONGEST_WAIT, asking, self._clock)
        except DeferTimeout:
            raise SourceError("no Sentinel answers: no answer") from None
        replicas = [_fields(item) for item in reply] if isinstance(reply, list) else []
        return tuple(_address(fields.get("ip"), fields.get("port")) for fields in replicas if _well(fields))

    def disconnect(self) -> None:
        """Ask no more, and drop all connections."""
        for round_ in self._rounds:
            round_.cancel()
        if self._asking is not None:
            self._asking.cancel()
        for sentinel in self._sentinels:
            sentinel.drop()

    def _asked(self, result: NodeAddress | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting and isinstance(result, NodeAddress):
            self._unheard = result, self._clock.seconds()
        for one in waiting:
            one.callback(result)  # a Failure makes it an errback

    async def _ask_all(self) -> NodeAddress:
        for round_ in self._rounds:
            # Those who have not answered since the last time: they are asked anew, on a new connection.
            round_.cancel()
        asked = await self._ask([self._ask_one(sentinel) for sentinel in self._sentinels])
        if not asked.answers:
            raise SourceError(self._trouble(asked.troubles))
        answers = list(asked.answers)
        if len({answer.address for answer in answers}) > 1:
            ranked = await self._ask([self._rank(answer) for answer in answers])
            newest = max((epoch for epoch, _ in ranked.answers), default=0)
            answers = [answer for epoch, answer in ranked.answers if epoch == newest] or answers
        self._right = [answer.sentinel for answer in answers if answer.address == answers[0].address]
        return answers[0].address

    async def _ask(self, questions: list[Coroutine[Any, Any, T]]) -> _Round[T]:
        round_ = _Round(self._clock, questions)
        self._rounds = [*self._rounds[-1:], round_]
        await round_.over
        return round_

    async def _ask_one(self, sentinel: PersistentConnection) -> _SentinelAnswer:
        reply = await sentinel.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        if reply is None:
            raise SourceError(f"the Sentinels know no service {self._service!r}")
        if not isinstance(reply, list) or len(reply) != 2:
            raise SourceError("not a Sentinel's reply")
        return _SentinelAnswer(sentinel, _address(*reply))

    async def _rank(self, answer: _SentinelAnswer) -> tuple[int, _SentinelAnswer]:
        reply = await answer.sentinel.ask(("SENTINEL", "MASTER", self._service))
        epoch = _fields(reply).get("config-epoch", b"")
        return int(epoch) if epoch.isdigit() else 0, answer

    def _trouble(self, troubles: set[str]) -> str:
        """Say in one line why no Sentinel names a primary."""
        unknown = f"the Sentinels know no service {self._service!r}"
        if unknown in troubles:
            return f"{unknown}; its name is the one after `sentinel monitor` in their configuration"
        line = f"no Sentinel answers: {'; '.join(sorted(troubles))}"
        hint = ": &sentinel_password=…" if "NOAUTH" in line else ""
        return line + hint


def _fields(reply: object) -> dict[str, bytes]:
    """Read a list of names and values in turn."""
    if not isinstance(reply, list):
        return {}
    items = [item if isinstance(item, bytes) else b"" for item in reply]
    return {name.decode(errors="replace"): value for name, value in zip(items[::2], items[1::2], strict=False)}


def _well(fields: dict[str, bytes]) -> bool:
    """Tell whether the Sentinel can reach a replica, and it its primary."""
    flags = set(fields.get("flags", b"").split(b","))
    return not flags & {b"s_down", b"o_down", b"disconnected"} and fields.get("master-link-status") == b"ok"


def _address(host: object, port: object) -> NodeAddress:
    if not isinstance(host, bytes) or not isinstance(port, bytes) or not port.isdigit():
        raise SourceError("not a Sentinel's reply")
    return NodeAddress(host.decode(errors="replace"), int(port))
