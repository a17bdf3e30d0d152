"""Prints states, or the changes between them, as JSON."""

from collections.abc import Callable
from typing import Any, TextIO

from livestate.client import State, Status
from livestate.formats.json_text import safe, to_text
from livestate.formats.merge_patch import Inexpressible
from livestate.formats.merge_patch import patch as merge_patch

#: Seconds without a connection before that is reported: a server that restarts, or ends a stream, is back soon.
REPORT_DELAY = 3.0


class Printer:
    """Prints each state as it arrives, and troubles to a separate output."""

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
        """Prepare to print.

        :param write: called with the output.
        :param errors: receives one line for each trouble.
        :param patch: after the first state, print merge patches (RFC 7396).
        :param lines: print each state or patch on one line, with its version.
        """
        self._clock = clock
        self._url = url
        self._write = write
        self._errors = errors
        self._patch = patch
        self._lines = lines
        self._previous = ""
        self._missing = ""
        self._trouble = ""
        self._timer: Any = None
        self._reported = False

    def open(self) -> None:
        """Do nothing: a Printer needs no preparation."""

    def show(self, part: Any, state: State) -> None:
        """Print `part` of a new state."""
        self._missing = ""
        whole = to_text(part)
        kind, text = "state", whole
        if self._patch and self._previous:
            try:
                kind, text = "patch", safe(merge_patch(self._previous.encode(), whole.encode()).decode())
            except Inexpressible:
                if not self._lines:
                    self._report(
                        "no merge patch can express this change (did a member become null?); printing the whole state"
                    )
        self._previous = whole
        if self._lines:
            head = {"version": state.version} if state.version is not None else {"version": None, "etag": state.etag}
            text = f'{to_text(head)[:-1]},"{kind}":{text}}}'
        elif not self._patch:
            text = to_text(part, 2)
        self._write(text.encode() + b"\n")

    def missing(self, text: str) -> None:
        """Report that the part is not in the document, unless that was reported last."""
        self._previous = ""
        if text != self._missing:
            self._missing = text
            self._report(text)

    def status(self, status: Status) -> None:
        """Report a lost connection when it lasts for `REPORT_DELAY`, and then the reconnection."""
        self._trouble = status.trouble or ""
        if self._trouble and self._timer is None and not self._reported:
            self._timer = self._clock.callLater(REPORT_DELAY, self._report_trouble)
        elif status.connected:
            self.close()
            if self._reported:
                self._reported = False
                self._report("reconnected")

    def close(self) -> None:
        """Cancel a pending report."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _report_trouble(self) -> None:
        self._timer, self._reported = None, True
        self._report(f"{self._trouble}; retrying")

    def _report(self, text: str) -> None:
        print(f"livestate: {self._url}: {text}", file=self._errors, flush=True)
