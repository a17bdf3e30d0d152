"""Writing a document to a store, as `livestate publish` does."""

import sys
from pathlib import Path
from typing import Any, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout

from livestate.config.settings import MAX_SIZE
from livestate.documents.snapshot import check
from livestate.errors import DocumentRefused, LivestateError, SettingsError, SourceError
from livestate.sources.api import ISource, IStore, IWatching
from livestate.sources.factory import make_source
from livestate.system.backoff import Backoff
from livestate.system.timeouts import with_timeout

#: Seconds that a store is given to take the document.
TIMEOUT = 10.0

#: Seconds between two looks at a file that is watched, where nothing tells of its changes.
LOOK = 0.5

#: Seconds: the longest pause before a store that is away is tried again.
LONGEST_PAUSE = 5.0


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
    store = _store(reactor, url)
    try:
        await _write(reactor, store, data)
    finally:
        store.close()
    return 0


async def publish_changes(reactor: Any, file: str, url: str, errors: TextIO) -> int:
    """Write the document in `file` to the store at `url`, now and each time it changes, until cancelled.

    What goes wrong is said on `errors`, once, and tried again: a file that is missing or no document, a store that is
    away. The newest document is written when that is mended.

    :returns: 0, the exit status.
    :raises LivestateError: `url` names no store that can be written to, or `file` no file.
    """
    store = _store(reactor, url)
    source = make_source(reactor, _file_url(file), MAX_SIZE)
    changes = _Changes(file, errors)
    bell = _Bell()
    if IWatching.providedBy(source):
        source.watch(bell.ring)
    backoff = Backoff(first=LOOK, limit=LONGEST_PAUSE)
    try:
        while True:
            pause = LOOK
            try:
                data = await changes.read(source)
                if data is not None:
                    await _write(reactor, store, data)
                    changes.written(data)
                backoff.reset()
            except DocumentRefused as error:
                changes.say(str(error))
            except LivestateError as error:
                changes.say(str(error))
                pause = backoff.next_delay()
            await bell.wait(reactor, pause)
    except CancelledError:
        return 0
    finally:
        source.close()
        store.close()


class _Bell:
    """A pause that may be cut short."""

    def __init__(self) -> None:
        self._waiting: Deferred[None] | None = None
        self._rung = False

    def ring(self) -> None:
        """End the pause, or have the next one be none."""
        self._rung = True
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    async def wait(self, clock: Any, seconds: float) -> None:
        """Pause for so long at most."""
        if not self._rung:
            self._waiting = Deferred()
            timer = clock.callLater(seconds, self.ring)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
        self._rung = False


class _Changes:
    """What there is to write, and what there is to say."""

    def __init__(self, file: str, errors: TextIO) -> None:
        self._file = file
        self._errors = errors
        self._read = b""
        self._written: bytes | None = None
        self._trouble = ""

    async def read(self, source: ISource) -> bytes | None:
        """Give what the file holds if it is to be written.

        :raises DocumentRefused: it is not to be, and was not the last time either: half-written, it may soon be whole.
        """
        before = self._read
        try:
            self._read = await source.fetch()
        except SourceError as error:
            raise DocumentRefused(f"cannot read {self._file}: {error}") from None
        if self._read == self._written:
            self._good()
            return None
        try:
            check(self._read, MAX_SIZE)
        except DocumentRefused as error:
            if self._read == before:
                raise DocumentRefused(f"{self._file} is not published: {error}") from None
            return None
        return self._read

    def written(self, data: bytes) -> None:
        """Note that the store has `data`."""
        self._written = data
        self._good()

    def say(self, trouble: str) -> None:
        """Say what is wrong, unless it was said last."""
        if trouble != self._trouble:
            self._trouble = trouble
            print(f"livestate: {trouble}; trying again", file=self._errors, flush=True)

    def _good(self) -> None:
        if self._trouble:
            self._trouble = ""
            print(f"livestate: {self._file} is published again", file=self._errors, flush=True)


def _store(reactor: Any, url: str) -> IStore:
    store = make_source(reactor, url, MAX_SIZE, "--to")
    if not IStore.providedBy(store):
        raise SettingsError(f"--to {store}: a store of that kind cannot be written to")
    return store


async def _write(reactor: Any, store: IStore, data: bytes) -> None:
    """Write to a store within a limit of time, with its name in what is raised."""
    try:
        await with_timeout(TIMEOUT, store.publish(data), reactor)
    except DeferTimeout:
        raise LivestateError(f"{store}: no answer within {TIMEOUT:g} s") from None
    except LivestateError as error:
        raise LivestateError(f"{store}: {error}") from None


def _file_url(file: str) -> str:
    if file == "-":
        raise SettingsError("standard input cannot be watched: name a file")
    return Path(file).absolute().as_uri()


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
