"""Writing a document to a store, as `livestate publish` does."""

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import TimeoutError as DeferTimeout

from livestate.errors import DocumentRefused, LivestateError, SettingsError
from livestate.interfaces import IStore
from livestate.settings import MAX_SIZE
from livestate.snapshot import check
from livestate.sources import make_source, within

#: Seconds that a store is given to take the document.
TIMEOUT = 10.0


async def publish(reactor: Any, file: str, url: str) -> int:
    """Check the document in `file` (`-`: standard input) and write it to the store at `url`.

    :returns: 0, the exit status.
    :raises LivestateError: the file cannot be read or is no document, or the store cannot be written to.
    """
    data = _read(file)
    try:
        check(data, MAX_SIZE)
    except DocumentRefused as error:
        raise DocumentRefused(f"{file} is not published: {error}") from None
    store = make_source(reactor, url, MAX_SIZE, "--to")
    if not IStore.providedBy(store):
        raise SettingsError(f"--to {store}: a store of that kind cannot be written to")
    try:
        await within(TIMEOUT, store.publish(data), reactor)
    except DeferTimeout:
        raise LivestateError(f"{store}: no answer within {TIMEOUT:g} s") from None
    except LivestateError as error:
        raise LivestateError(f"{store}: {error}") from None
    finally:
        store.close()
    return 0


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
