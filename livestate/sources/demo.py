"""An election night that needs nothing installed: `demo:`, `demo:?seed=7`.

Votes come in for thirteen minutes, from a few constituencies each second; two minutes later the next night begins. The
state is a function of the seed and the time alone: several servers show the same one.

Parties and places are members of objects, not items of arrays: a merge patch replaces an array whole (RFC 7396), but
of an object it names what changed. So a second's patch has some hundred bytes, where the state has four thousand.
"""

import math
import random
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import msgspec
from zope.interface import implementer

from livestate.errors import SettingsError
from livestate.sources.api import ISource
from livestate.sources.url import query_of

#: Seconds from the first vote counted to the last, and until the next night begins.
COUNTING, NIGHT = 780, 900

_PARTIES = {
    "Meadow": "#3b8f4e",
    "Harbour": "#2767b1",
    "Lantern": "#d98c1f",
    "Granite": "#7a7f87",
    "Plum": "#8a3f8f",
}
_PLACES = (
    "Alderbrook", "Bexcombe", "Caldermouth", "Dunwick", "Eastmere", "Fenwater", "Glenholt", "Highmarsh", "Inverlow",
    "Jarrowfield", "Kingsferry", "Larkhill", "Millhaven", "Northgate", "Oakenshaw", "Penmoor", "Quarrydale",
    "Ravenscar", "Southfleet", "Thornbury", "Upperton", "Vale of Ash", "Westerby", "Yarrowdale",
)  # fmt: skip


@implementer(ISource)
class DemoSource:
    """Makes up a document."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Understand `url`.

        :raises SettingsError: the seed is not a number.
        """
        seed = query_of(urlsplit(url), frozenset({"seed"})).get("seed", "1")
        if not seed.isdecimal() or len(seed) > 99:
            raise SettingsError(f"the seed is a number, not {seed!r}")
        self._reactor = reactor
        self._seed = int(seed)

    def __str__(self) -> str:
        return "demo:"

    async def fetch(self) -> bytes:
        """Give the state of the night at this second."""
        return msgspec.json.encode(state_at(self._seed, int(self._reactor.seconds())))

    def close(self) -> None:
        """Nothing is kept open."""


def state_at(seed: int, second: int) -> dict[str, Any]:
    """Give the election at `second` (since 1970)."""
    night, elapsed = divmod(second, NIGHT)
    generator = random.Random(seed * 1_000_003 + night)  # noqa: S311  # a made-up election
    lean = [generator.uniform(0.6, 1.4) for _ in _PARTIES]
    places = {name: _place(lean, generator, elapsed) for name in _PLACES}
    totals = {name: sum(place["votes"][name] for place in places.values()) for name in _PARTIES}
    counted = sum(totals.values())
    return {
        "title": "Election night (made up)",
        "updated": datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "counted_percent": round(sum(place["counted_percent"] for place in places.values()) / len(places), 1),
        "votes": counted,
        "parties": {
            name: {
                "colour": colour,
                "votes": totals[name],
                "percent": round(100 * totals[name] / counted, 2) if counted else 0.0,
                "seats": sum(place["leader"] == name for place in places.values()),
            }
            for name, colour in _PARTIES.items()
        },
        "places": places,
    }


def _place(lean: list[float], generator: random.Random, elapsed: int) -> dict[str, Any]:
    """Give one constituency: each is counted at its own pace, along an S-shaped curve, and reports now and then."""
    electorate = generator.randint(40_000, 90_000)
    turnout = generator.uniform(0.52, 0.81)
    shares = [share * generator.uniform(0.4, 1.6) for share in lean]
    middle, width = generator.uniform(0.25, 0.75) * COUNTING, generator.uniform(30, 90)
    every, phase = generator.randint(6, 14), generator.randrange(14)
    reported = elapsed if elapsed >= COUNTING else elapsed - (elapsed + phase) % every
    done = 1.0 if reported >= COUNTING else 1 / (1 + math.exp((middle - reported) / width))
    ballots = electorate * turnout * done
    votes = {name: int(ballots * share / sum(shares)) for name, share in zip(_PARTIES, shares, strict=True)}
    return {
        "electorate": electorate,
        "turnout_percent": round(100 * turnout * done, 1),
        "counted_percent": round(100 * done, 1),
        # A merge patch cannot set null (RFC 7396): nobody leads where nothing is counted, and that is "".
        "leader": max(votes, key=votes.__getitem__) if any(votes.values()) else "",
        "votes": votes,
    }
