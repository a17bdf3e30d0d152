"""Printing states, or the changes between them, as JSON."""

from collections.abc import Callable
from typing import Any, TextIO

from livestate.client import State, Status
from livestate.formats.json_text import safe, to_text
from livestate.formats.merge_patch import Inexpressible
from livestate.formats.merge_patch import patch as merge_patch

#: Seconds without a connection until that is said: a server that restarts, or ends a stream, is soon back.
PATIENCE = 3.0


class Printer:
    """Prints each state as it comes, and trouble to another place."""

    def __init__(
        self,
        clock: Any,
        url: str,
        write: Callable[[bytes], None],
        errors: TextIO,
        *,
        patch: bool,
        lines: bool,
    ) -> None:
        """Be ready to print.

        :param write: takes what is printed.
        :param errors: takes a line for each trouble.
        :param patch: after the first state, print merge patches (RFC 7396).
        :param lines: print one compact line each, with the version.
        """
        self._clock = clock
        self._url = url
        self._write = write
        self._errors = errors
        self._patch = patch
        self._lines = lines
        self._before = ""
        self._missed = ""
        self._trouble = ""
        self._timer: Any = None
        self._told = False

    def open(self) -> None:
        """Nothing is to be prepared."""

    def show(self, part: Any, state: State) -> None:
        """Print `part` of a new state."""
        self._missed = ""
        whole = to_text(part)
        kind, text = "state", whole
        if self._patch and self._before:
            try:
                kind, text = "patch", safe(merge_patch(self._before.encode(), whole.encode()).decode())
            except Inexpressible:
                if not self._lines:
                    self._say("no merge patch can say this change (a member became null?): the whole state follows")
        self._before = whole
        if self._lines:
            named = {"version": state.version} if state.version is not None else {"version": None, "etag": state.etag}
            text = f'{to_text(named)[:-1]},"{kind}":{text}}}'
        elif not self._patch:
            text = to_text(part, 2)
        self._write(text.encode() + b"\n")

    def missing(self, text: str) -> None:
        """Say that the part is not there, unless that was so before."""
        self._before = ""
        if text != self._missed:
            self._missed = text
            self._say(text)

    def status(self, status: Status) -> None:
        """Say that there is no connection, when that lasts, and that there is one again."""
        self._trouble = status.trouble or ""
        if self._trouble and self._timer is None and not self._told:
            self._timer = self._clock.callLater(PATIENCE, self._tell)
        elif status.connected:
            self.close()
            if self._told:
                self._told = False
                self._say("good again")

    def close(self) -> None:
        """Say no more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _tell(self) -> None:
        self._timer, self._told = None, True
        self._say(f"{self._trouble}; asking on")

    def _say(self, text: str) -> None:
        print(f"livestate: {self._url}: {text}", file=self._errors, flush=True)
