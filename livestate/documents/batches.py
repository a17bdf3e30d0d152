"""Cutting the keys that are due into batches, so that no read is too large and no large value delays small ones."""

from collections.abc import Callable, Iterable, Iterator

#: Keys of one batch. Parsing 200 small values takes some milliseconds, in which nothing else is served.
MAX_KEYS = 200

#: Bytes of the values of one batch, by the sizes that they had when they were last read.
MAX_BYTES = 1024 * 1024

#: Bytes from which a value is read alone.
LARGE_VALUE = 256 * 1024


def batches(keys: Iterable[str], size_of: Callable[[str], int]) -> Iterator[list[str]]:
    """Return the keys in batches, those that are read alone last.

    :param size_of: returns how many bytes a key's value had when it was last read; 0: unknown.
    """
    batch: list[str] = []
    alone: list[str] = []
    total = 0
    for key in list(keys):
        size = size_of(key)
        if size >= LARGE_VALUE:
            alone.append(key)
            continue
        if batch and (len(batch) >= MAX_KEYS or total + size > MAX_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(key)
        total += size
    if batch:
        yield batch
    for key in alone:
        yield [key]
