"""The one-screen view, on an emulated terminal."""

import re
import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.cli.outline import columns
from livestate.cli.screen import HIGHLIGHT, Screen
from livestate.client import State, Status
from tests.cli.test_outline import documents
from tests.support import few


class Emulator:
    """A terminal that supports the control sequences in use, and no others."""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height
        self.rows = [""] * height
        self.highlighted = [""] * height
        self.modes: dict[str, bool] = {}
        self.written = 0
        self._row = 0
        self._style = ""

    def write(self, data: bytes) -> None:
        self.written += len(data)
        for command, text in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z])|([^\x1b]+)", data.decode()):
            if text:
                assert "Cc" not in map(unicodedata.category, text), text
                self.rows[self._row] += text
                self.highlighted[self._row] += text if self._style == "1;7" else ""
                assert columns(self.rows[self._row]) <= self.size[0], self.rows[self._row]
                continue
            arguments, letter = command[2:-1], command[-1]
            if letter == "H":
                row, column = arguments.split(";")
                assert column == "1"
                self._row = int(row) - 1
                self.rows[self._row] = self.highlighted[self._row] = ""
            elif letter == "m":
                self._style = "" if arguments == "0" else arguments
            elif (letter, arguments) == ("J", "2"):
                self.rows = [""] * self.size[1]
                self.highlighted = [""] * self.size[1]
            elif letter in "hl":
                self.modes[arguments.lstrip("?")] = letter == "h"
            else:
                assert (letter, arguments) == ("K", ""), command

    @property
    def status_line(self) -> str:
        return self.rows[-1]

    def text(self) -> str:
        return "\n".join(self.rows[:-1]).rstrip()


def state(value: Any, version: int = 1) -> State:
    return State(value, version, None, None, "events")


class ScreenTests(SynchronousTestCase):
    """The content of the screen."""

    def setUp(self):
        self.terminal = Emulator(60, 12)
        self.clock: Any = Clock()
        self.screen = Screen(self.clock, "http://h/", self.terminal.write, lambda: self.terminal.size)
        self.screen.open()
        self.addCleanup(self.screen.close)

    def show(self, value: Any, version: int = 1) -> None:
        self.screen.show(value, state(value, version))

    def test_document(self):
        """The screen shows the document, and below it the connection, version, transport, age and URL."""
        self.assertEqual(self.terminal.status_line.split(), ["connecting", "http://h/"])
        self.screen.status(Status(True, "events"))
        self.show({"a": 1, "b": [1, 2]}, 17)
        self.assertEqual(self.terminal.text(), '{\n  "a": 1,\n  "b": [1, 2]\n}')
        self.assertEqual(self.terminal.status_line.strip(), "live  version 17  events  changed 0 s ago  http://h/")
        self.clock.pump([1.0] * 75)
        self.assertIn("changed 1 min ago", self.terminal.status_line)

    def test_highlight(self):
        """Changes are highlighted for a while; the first state is not."""
        self.show({"a": 1, "b": 1})
        self.assertEqual("".join(self.terminal.highlighted), "")
        self.show({"a": 1, "b": 22}, 2)
        self.assertEqual("".join(self.terminal.highlighted), "22")
        self.clock.pump([1.0] * int(HIGHLIGHT + 1))
        self.assertEqual("".join(self.terminal.highlighted), "")
        self.assertIn('"b": 22', self.terminal.text())

    def test_connection(self):
        """A lost connection is shown with its reason, and the document stays."""
        self.show([1])
        self.screen.status(Status(False, "events", "it was refused"))
        self.assertIn("no connection: it was refused", self.terminal.status_line)
        self.assertEqual(self.terminal.text(), "[\n  1\n]")
        self.screen.missing("there is no /x in the document")
        self.assertIn("there is no /x", self.terminal.status_line)

    def test_size(self):
        """After a resize to any size, everything is redrawn to fit."""
        self.show({"name": "x" * 30, "rows": list(range(40))})
        for size in ((30, 8), (100, 40), (1, 1), (2, 2), (5, 3), (60, 12)):
            self.terminal.size = size
            self.terminal.write(b"\x1b[2J")
            self.screen.draw()
            self.assertEqual(len(self.terminal.rows), size[1])
            self.assertEqual(len(self.terminal.status_line), size[0])

    @few
    @given(st.lists(documents, min_size=1, max_size=4), st.integers(1, 50), st.integers(1, 12))
    def test_only_differences(self, values, width, height):
        """Writing only the rows that differ gives the same screen as writing all of them."""
        self.setUp()
        self.terminal.size = width, height
        self.terminal.write(b"\x1b[2J")
        for version, value in enumerate(values):
            self.show(value, version)
        self.clock.advance(1.0)
        rows, highlighted = self.terminal.rows, self.terminal.highlighted
        self.terminal.rows, self.terminal.highlighted = [], []
        self.screen.enter()
        self.screen.draw()
        self.assertEqual((self.terminal.rows, self.terminal.highlighted), (rows, highlighted))

    def test_no_changes(self):
        """Without changes, nothing is written."""
        self.show({"a": list(range(20))})
        before = self.terminal.written
        for _ in range(10):
            self.screen.draw()
        self.assertEqual(self.terminal.written, before)
        self.clock.advance(1.0)
        self.assertLess(self.terminal.written - before, 200)

    def test_restore(self):
        """Closing restores the main screen, the cursor and line wrapping, once."""
        self.assertEqual(self.terminal.modes, {"1049": True, "25": False, "7": False, "2026": False})
        self.screen.close()
        self.assertEqual(self.terminal.modes, {"1049": False, "25": True, "7": True, "2026": False})
        before = self.terminal.written
        self.screen.close()
        self.assertEqual(self.terminal.written, before)
        self.assertEqual(self.clock.getDelayedCalls(), [])
