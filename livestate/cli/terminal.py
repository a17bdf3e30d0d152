"""The terminal that this process was started on: its size, its settings, and the signals about it."""

import os
import signal
import sys
import termios
from collections.abc import Callable
from typing import Any

from livestate.cli.screen import Screen


class Terminal:
    """Keeps a Screen and the terminal in step."""

    def __init__(self, reactor: Any, screen: Screen) -> None:
        """Show nothing that is typed, draw anew in another size, and give the terminal back while Ctrl-Z lasts."""
        self._reactor = reactor
        self._screen = screen
        self._settings = _quiet()
        self._old = {
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, self._later(screen.draw)),
            signal.SIGTSTP: signal.signal(signal.SIGTSTP, self._later(self._suspend)),
        }

    def close(self) -> None:
        """Have everything as it was."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        _restore(self._settings)

    def _later(self, function: Callable[[], None]) -> Callable[[int, object], None]:
        return lambda number, frame: self._reactor.callFromThread(function)

    def _suspend(self) -> None:
        self._screen.leave()
        _restore(self._settings)
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # The process stands still here until it is told to go on.
        signal.signal(signal.SIGTSTP, handler)
        self._settings = _quiet()
        self._screen.enter()
        self._screen.draw()


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Give the columns and rows of a terminal; 80 and 24 where it does not know."""
    columns, rows = os.get_terminal_size(descriptor)
    return (columns or 80, rows or 24)


def _quiet() -> list[Any] | None:
    """Stop the terminal from showing what is typed, and give its settings before that; None: there is none."""
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
