"""The controlling terminal: its size, its settings and its signals."""

import os
import signal
import sys
import termios
from collections.abc import Callable
from typing import Any

from livestate.cli.screen import Screen


class Terminal:
    """Connects a Screen to the terminal."""

    def __init__(self, reactor: Any, screen: Screen) -> None:
        """Stop echoing input, redraw when the size changes, and restore the terminal while suspended with Ctrl-Z."""
        self._reactor = reactor
        self._screen = screen
        self._settings = _disable_echo()
        self._previous_handlers = {
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, self._in_reactor(screen.draw)),
            signal.SIGTSTP: signal.signal(signal.SIGTSTP, self._in_reactor(self._suspend)),
        }

    def close(self) -> None:
        """Restore the signal handlers and the terminal's settings."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        _restore(self._settings)

    def _in_reactor(self, function: Callable[[], None]) -> Callable[[int, object], None]:
        return lambda number, frame: self._reactor.callFromThread(function)

    def _suspend(self) -> None:
        self._screen.leave()
        _restore(self._settings)
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # The process is stopped here until SIGCONT.
        signal.signal(signal.SIGTSTP, handler)
        self._settings = _disable_echo()
        self._screen.enter()
        self._screen.draw()


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Return the columns and rows of a terminal; 80 and 24 if it does not report them."""
    columns, rows = os.get_terminal_size(descriptor)
    return (columns or 80, rows or 24)


def _disable_echo() -> list[Any] | None:
    """Stop the terminal from echoing input. Return its previous settings, or None without a terminal."""
    try:
        settings = termios.tcgetattr(sys.stdin.fileno())
        changed = [*settings]
        changed[3] &= ~termios.ECHO
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, changed)
    except (termios.error, OSError, ValueError, AttributeError):
        return None
    return settings


def _restore(settings: list[Any] | None) -> None:
    if settings is not None:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, settings)
