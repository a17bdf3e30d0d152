"""Following a document in a terminal or a pipe, as `livestate watch` does."""

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from livestate.cli.printer import Printer
from livestate.cli.screen import Screen
from livestate.cli.terminal import Terminal, terminal_size
from livestate.client import watch
from livestate.client.state import same
from livestate.config.redaction import redacted
from livestate.errors import LivestateError
from livestate.formats.json_pointer import PartMissing, Pointer

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be printed."""

    #: Which part of the document.
    pointer: Pointer
    #: Changes, as merge patches.
    patch: bool = False
    #: Lines with the version.
    lines: bool = False
    #: How many times, until the end; None: for ever.
    count: int | None = None


async def watch_url(reactor: Any, url: str, cafile: Path | None, wanted: Wanted) -> int:
    """Print the document at `url`, or one part of it, to standard output, now and each time it changes.

    On a terminal, unless changes or lines are wanted, it is shown on one screen instead.

    :returns: 0, the exit status, after `wanted.count`, being cancelled, or when nobody reads standard output any more.
    :raises LivestateError: the document is not there, the server not trusted, or `url` or `cafile` of no use.
    """
    output = sys.stdout.fileno()

    def write(data: bytes) -> None:
        try:
            while data:
                data = data[os.write(output, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LivestateError(f"cannot write to standard output: {error.strerror}") from None

    view: Screen | Printer
    able = os.isatty(output) and os.environ.get("TERM", "dumb") != "dumb"
    if able and not (wanted.patch or wanted.lines):
        view = Screen(reactor, redacted(url), write, lambda: terminal_size(output))
    else:
        view = Printer(reactor, redacted(url), write, sys.stderr, patch=wanted.patch, lines=wanted.lines)
    states = watch(url, reactor=reactor, cafile=cafile, on_status=view.status)

    hangup = _Hangup(reactor, output, lambda: Deferred.fromCoroutine(states.aclose()))
    terminal = Terminal(reactor, view) if isinstance(view, Screen) else None
    view.open()
    left = wanted.count
    shown: Any = _NOTHING
    try:
        async for state in states:
            try:
                part = wanted.pointer.find(state.value)
            except PartMissing as error:
                shown = _NOTHING
                view.missing(str(error))
                continue
            if shown is not _NOTHING and same(shown, part):
                continue
            shown = part
            view.show(part, state)
            if left is not None:
                left -= 1
                if not left:
                    break
    except (BrokenPipeError, CancelledError):
        pass
    finally:
        view.close()
        if terminal is not None:
            terminal.close()
        hangup.close()
        await states.aclose()
    return 0


@implementer(IReadDescriptor)
class _Hangup:
    """Notices that nobody reads a pipe any more, before it is written to again."""

    def __init__(self, reactor: Any, descriptor: int, gone: Callable[[], object]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._gone = gone
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            reactor.addReader(self)

    def close(self) -> None:
        """Look no more."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "standard output"

    def doRead(self) -> None:
        """Be readable, as some reactors call it: the writing end of a pipe never is otherwise."""
        self.close()
        self._gone()

    def connectionLost(self, reason: Failure) -> None:
        self._gone()
