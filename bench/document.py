"""The document that every peer serves: election results, 4.3 KB of JSON, in every version of the same length."""

from __future__ import annotations

import gzip
import json
import random
import time

PARTIES = (("Ash", 41), ("Birch", 33), ("Cedar", 14), ("Linden", 8), ("Oak", 4))
DISTRICTS = 32
FIRST = 1_000_000


def render(version: int, written_ns: int | None = None) -> bytes:
    """Return one version of the document. Numbers have a fixed width, so that all versions have the same length."""
    chance = random.Random(version)
    districts = []
    for number in range(DISTRICTS):
        counted = chance.randrange(100, 1000)
        votes = {name.lower(): chance.randrange(10_000, 99_999) for name, _ in PARTIES}
        districts.append({"id": f"d{number:02d}", "name": f"District {number:02d}", "counted": counted, "votes": votes})
    document = {
        "election": "General election, 2026",
        "version": FIRST + version,
        "written_ns": time.time_ns() if written_ns is None else written_ns,
        "parties": [{"id": name.lower(), "name": name, "seats": 100 + share} for name, share in PARTIES],
        "districts": districts,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def compress(document: bytes) -> bytes:
    """Return the gzip file for servers that use precompressed files."""
    return gzip.compress(document, 9, mtime=0)
