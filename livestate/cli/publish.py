"""`livestate publish`: write a document to a store."""

import sys
from pathlib import Path
from typing import Any, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout

from livestate.config.options import MAX_SIZE
from livestate.documents.snapshot import check
from livestate.errors import DocumentRefused, LivestateError, SettingsError, SourceError
from livestate.sources.api import ISource, IWatching, IWritableSource
from livestate.sources.factory import make_source
from livestate.system.backoff import Backoff
from livestate.system.timeouts import with_timeout

#: Timeout in seconds for one write to the store.
TIMEOUT = 10.0

#: Seconds between two reads of a watched file, where changes are not notified.
POLL_INTERVAL = 0.5

#: Longest delay in seconds before an unreachable store is retried.
MAX_DELAY = 5.0


async def publish(reactor: Any, file: str, url: str) -> int:
    """Validate the document in `file` (`-` for standard input) and write it to the store at `url`.

    :returns: the exit status 0.
    :raises LivestateError: when the file cannot be read or is not a document, or the store cannot be written to.
    """
    data = _read(file)
    try:
        check(data, MAX_SIZE)
    except DocumentRefused as error:
        raise DocumentRefused(f"{file} was not published: {error}") from None
    store = _make_store(reactor, url)
    try:
        await _write(reactor, store, data)
    finally:
        store.close()
    return 0


async def publish_changes(reactor: Any, file: str, url: str, errors: TextIO) -> int:
    """Write the document in `file` to the store at `url`, now and whenever it changes, until cancelled.

    A missing file, an invalid document or an unreachable store is reported on `errors` once, and retried. When the
    problem is fixed, the newest document is written.

    :returns: the exit status 0.
    :raises LivestateError: when `url` is not a store that can be written to, or `file` is standard input.
    """
    store = _make_store(reactor, url)
    source = make_source(reactor, _file_url(file), MAX_SIZE)
    watched = _WatchedFile(file, errors)
    alarm = _Alarm()
    if IWatching.providedBy(source):
        source.watch(alarm.wake)
    backoff = Backoff(first=POLL_INTERVAL, limit=MAX_DELAY)
    try:
        while True:
            delay = POLL_INTERVAL
            try:
                data = await watched.read(source)
                if data is not None:
                    await _write(reactor, store, data)
                    watched.set_published(data)
                backoff.reset()
            except DocumentRefused as error:
                watched.report(str(error))
            except LivestateError as error:
                watched.report(str(error))
                delay = backoff.next_delay()
            await alarm.sleep(reactor, delay)
    except CancelledError:
        return 0
    finally:
        source.close()
        store.close()


class _Alarm:
    """A sleep that can be ended early."""

    def __init__(self) -> None:
        self._sleeping: Deferred[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """End the current sleep, or skip the next one."""
        self._woken = True
        if self._sleeping is not None and not self._sleeping.called:
            self._sleeping.callback(None)

    async def sleep(self, clock: Any, seconds: float) -> None:
        """Sleep for at most `seconds`."""
        if not self._woken:
            self._sleeping = Deferred()
            timer = clock.callLater(seconds, self.wake)
            try:
                await self._sleeping
            finally:
                self._sleeping = None
                if timer.active():
                    timer.cancel()
        self._woken = False


class _WatchedFile:
    """Decides when the content of a file is written, and reports its problems once each."""

    def __init__(self, file: str, errors: TextIO) -> None:
        self._file = file
        self._errors = errors
        self._content = b""
        self._published: bytes | None = None
        self._trouble = ""

    async def read(self, source: ISource) -> bytes | None:
        """Return the content of the file if it has to be written, else None.

        :raises DocumentRefused: when the file cannot be read, or when it is invalid and unchanged since the last read.
            An invalid file that has just changed may be half-written.
        """
        previous = self._content
        try:
            self._content = await source.fetch()
        except SourceError as error:
            raise DocumentRefused(f"cannot read {self._file}: {error}") from None
        if self._content == self._published:
            self._report_recovery()
            return None
        try:
            check(self._content, MAX_SIZE)
        except DocumentRefused as error:
            if self._content == previous:
                raise DocumentRefused(f"{self._file} was not published: {error}") from None
            return None
        return self._content

    def set_published(self, data: bytes) -> None:
        """Remember that the store has `data`."""
        self._published = data
        self._report_recovery()

    def report(self, trouble: str) -> None:
        """Report a problem, unless it was the last one reported."""
        if trouble != self._trouble:
            self._trouble = trouble
            print(f"livestate: {trouble}; retrying", file=self._errors, flush=True)

    def _report_recovery(self) -> None:
        if self._trouble:
            self._trouble = ""
            print(f"livestate: {self._file} is published again", file=self._errors, flush=True)


def _make_store(reactor: Any, url: str) -> IWritableSource:
    store = make_source(reactor, url, MAX_SIZE, "--to")
    if not IWritableSource.providedBy(store):
        raise SettingsError(f"--to {store}: cannot publish to this kind of store")
    return store


async def _write(reactor: Any, store: IWritableSource, data: bytes) -> None:
    """Write to a store with a timeout, and name the store in errors."""
    try:
        await with_timeout(TIMEOUT, store.publish(data), reactor)
    except DeferTimeout:
        raise LivestateError(f"{store}: no answer within {TIMEOUT:g} s") from None
    except LivestateError as error:
        raise LivestateError(f"{store}: {error}") from None


def _file_url(file: str) -> str:
    if file == "-":
        raise SettingsError("--watch needs a file, not standard input")
    return Path(file).absolute().as_uri()


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
