"""`livestate watch`: follow a document in a terminal or a pipe."""

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
class WatchOptions:
    """What to print."""

    #: The part of the document to follow.
    pointer: Pointer
    #: Print changes as merge patches.
    patch: bool = False
    #: Print each state or patch on one line, with its version.
    lines: bool = False
    #: Exit after this many states or changes; None: run until cancelled.
    count: int | None = None


async def watch_url(reactor: Any, url: str, cafile: Path | None, options: WatchOptions) -> int:
    """Print the document at `url`, or a part of it, to standard output, now and whenever it changes.

    On a terminal, without `options.patch` and `options.lines`, show it on one screen instead.

    :returns: the exit status 0, after `options.count` states, when cancelled, or when the reader of standard output
        is gone.
    :raises LivestateError: when the document does not exist, the server is not trusted, standard output cannot be
        written to, or `url` or `cafile` is not valid.
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
    capable = os.isatty(output) and os.environ.get("TERM", "dumb") != "dumb"
    if capable and not (options.patch or options.lines):
        view = Screen(reactor, redacted(url), write, lambda: terminal_size(output))
    else:
        view = Printer(reactor, redacted(url), write, sys.stderr, patch=options.patch, lines=options.lines)
    states = watch(url, reactor=reactor, cafile=cafile, on_status=view.status)

    hangup = _Hangup(reactor, output, lambda: Deferred.fromCoroutine(states.aclose()))
    terminal = Terminal(reactor, view) if isinstance(view, Screen) else None
    view.open()
    remaining = options.count
    shown: Any = _NOTHING
    try:
        async for state in states:
            try:
                part = options.pointer.find(state.value)
            except PartMissing as error:
                shown = _NOTHING
                view.missing(str(error))
                continue
            if shown is not _NOTHING and same(shown, part):
                continue
            shown = part
            view.show(part, state)
            if remaining is not None:
                remaining -= 1
                if not remaining:
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
    """Detects that the reading end of a pipe was closed, without writing to the pipe."""

    def __init__(self, reactor: Any, descriptor: int, on_hangup: Callable[[], object]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._on_hangup = on_hangup
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            reactor.addReader(self)

    def close(self) -> None:
        """Stop watching the pipe."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "standard output"

    def doRead(self) -> None:
        """Handle the hang-up: some reactors report it as readable. The writing end of a pipe never is otherwise."""
        self.close()
        self._on_hangup()

    def connectionLost(self, reason: Failure) -> None:
        self._on_hangup()
