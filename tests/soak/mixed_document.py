"""The documents of the mixed soak: each is made of its number alone, so that every byte of an answer can be checked."""

import json
import random
import re
from functools import lru_cache
from typing import Any

_NUMBER = re.compile(rb'\{"n": (\d+),')


@lru_cache(16)
def render(number: int) -> bytes:
    """Give document `number`: about 3 KB, of which a change leaves most as it was."""
    slow, quick = random.Random(number // 20), random.Random(number)
    places = {f"place-{place}": {"votes": slow.randrange(10**6), "name": "Łąka" * 3} for place in range(40)}
    for place in quick.sample(sorted(places), 4):
        places[place]["votes"] = quick.randrange(10**6)
    if number % 3:
        places.pop(f"place-{number % 7}")
    return json.dumps({"n": number, "places": places}, ensure_ascii=False).encode()


@lru_cache(16)
def state(number: int) -> Any:
    """Give what document `number` says."""
    return json.loads(render(number))


def number_of(document: bytes) -> int:
    """Give the number of a document whose every byte is right.

    :raises ValueError: it is none of ours, or not all of it.
    """
    found = _NUMBER.match(document)
    if found is None or render(int(found[1])) != document:
        raise ValueError(f"{len(document)} bytes are no document that was published: {document[:60]!r}")
    return int(found[1])
