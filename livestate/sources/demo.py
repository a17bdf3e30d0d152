"""A made-up election night that needs no store: `demo:`, `demo:?seed=7`.

Votes come in for thirteen minutes, from a few constituencies every second; two minutes later the next night begins. The
document depends only on the seed and the time, so several servers show the same one.

Parties and places are members of objects, not items of arrays: a merge patch replaces an array as a whole (RFC 7396),
but names only the changed members of an object. So the patch for one second has some hundred bytes, while the document
has four thousand.
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

#: Seconds from the start of a night until all votes are counted, and until the next night begins.
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
    """Generates a document."""

    def __init__(self, reactor: Any, url: str, max_size: int) -> None:
        """Parse `url`.

        :raises SettingsError: when the seed is not a number.
        """
        seed = query_of(urlsplit(url), frozenset({"seed"})).get("seed", "1")
        if not seed.isdecimal() or len(seed) > 99:
            raise SettingsError(f"the seed must be a number, not {seed!r}")
        self._reactor = reactor
        self._seed = int(seed)

    def __str__(self) -> str:
        return "demo:"

    async def fetch(self) -> bytes:
        """Return the state of the election at this second."""
        return msgspec.json.encode(state_at(self._seed, int(self._reactor.seconds())))

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def state_at(seed: int, second: int) -> dict[str, Any]:
    """Return the state of the election at a Unix time."""
    night, elapsed = divmod(second, NIGHT)
    generator = random.Random(seed * 1_000_003 + night)  # noqa: S311  # a made-up election
    lean = [generator.uniform(0.6, 1.4) for _ in _PARTIES]
    places = {name: _constituency(lean, generator, elapsed) for name in _PLACES}
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


def _constituency(lean: list[float], generator: random.Random, elapsed: int) -> dict[str, Any]:
    """Return the state of one constituency.

    Each is counted at its own pace, along an S-shaped curve, and reports at its own intervals.
    """
    electorate = generator.randint(40_000, 90_000)
    turnout = generator.uniform(0.52, 0.81)
    shares = [share * generator.uniform(0.4, 1.6) for share in lean]
    middle, width = generator.uniform(0.25, 0.75) * COUNTING, generator.uniform(30, 90)
    interval, phase = generator.randint(6, 14), generator.randrange(14)
    reported = elapsed if elapsed >= COUNTING else elapsed - (elapsed + phase) % interval
    done = 1.0 if reported >= COUNTING else 1 / (1 + math.exp((middle - reported) / width))
    ballots = electorate * turnout * done
    votes = {name: int(ballots * share / sum(shares)) for name, share in zip(_PARTIES, shares, strict=True)}
    return {
        "electorate": electorate,
        "turnout_percent": round(100 * turnout * done, 1),
        "counted_percent": round(100 * done, 1),
        # Not null, which a merge patch cannot set (RFC 7396): "" means that no vote has been counted.
        "leader": max(votes, key=votes.__getitem__) if any(votes.values()) else "",
        "votes": votes,
    }
