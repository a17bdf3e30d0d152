"""The output of `livestate watch` into a pipe."""

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.cli.printer import REPORT_DELAY, Printer
from livestate.client import State, Status
from livestate.client.state import same
from livestate.formats.merge_patch import apply
from tests.cli.test_outline import documents
from tests.support import many


class PrinterTests(SynchronousTestCase):
    """Standard output and standard error."""

    def setUp(self):
        self.clock: Any = Clock()
        self.output = b""
        self.errors = io.StringIO()

    def printer(self, patch: bool = False, lines: bool = False) -> Printer:
        return Printer(self.clock, "http://h/", self.write, self.errors, patch=patch, lines=lines)

    def write(self, data: bytes) -> None:
        self.output += data

    def show(self, printer: Printer, *values: Any) -> None:
        for version, value in enumerate(values, 1):
            printer.show(value, State(value, version, None, None, "events"))

    def test_states(self):
        """Each state is printed as indented JSON."""
        self.show(self.printer(), {"a": [1], "é": "ü"}, 2)
        self.assertEqual(self.output.decode(), '{\n  "a": [\n    1\n  ],\n  "é": "ü"\n}\n2\n')

    def test_lines(self):
        """With --jsonl, each state is one line with its version, or with its entity tag if it was polled."""
        printer = self.printer(lines=True)
        self.show(printer, {"a": 1})
        printer.show(2, State(2, None, '"tag"', None, "poll"))
        self.assertEqual(
            self.output.decode(), '{"version":1,"state":{"a":1}}\n{"version":null,"etag":"\\"tag\\"","state":2}\n'
        )

    def test_patches(self):
        """With --patch, the first line is the state, and the others are merge patches."""
        self.show(self.printer(patch=True), {"a": 1, "b": 2}, {"a": 1, "c": 3}, [4])
        self.assertEqual(self.output.decode(), '{"a":1,"b":2}\n{"b":null,"c":3}\n[4]\n')

    def test_patches_with_versions(self):
        """With both, each line says whether it is a state or a patch."""
        self.show(self.printer(patch=True, lines=True), {"a": 1}, {"a": 2}, {"a": None})
        self.assertEqual(
            self.output.decode(),
            '{"version":1,"state":{"a":1}}\n{"version":2,"patch":{"a":2}}\n{"version":3,"state":{"a":null}}\n',
        )
        self.assertEqual(self.errors.getvalue(), "")

    def test_no_patch(self):
        """A change that no merge patch can express is announced and printed as a whole state."""
        self.show(self.printer(patch=True), {"a": 1}, {"a": None})
        self.assertEqual(self.output.decode(), '{"a":1}\n{"a":null}\n')
        self.assertIn("printing the whole state", self.errors.getvalue())

    @many
    @given(st.lists(documents, min_size=1, max_size=6))
    def test_applied_in_order(self, values):
        """Applying the lines in order gives each document."""
        self.setUp()
        self.show(self.printer(patch=True, lines=True), *values)
        current: Any = None
        for line, value in zip(self.output.decode().splitlines(), values, strict=True):
            record = json.loads(line)
            current = record["state"] if "state" in record else apply(current, record["patch"])
            self.assertTrue(same(current, value), (current, value))

    def test_missing(self):
        """A missing part is reported once, and again after it was present."""
        printer = self.printer(patch=True)
        for _ in range(3):
            printer.missing("there is no /a")
        self.assertEqual(self.errors.getvalue(), "livestate: http://h/: there is no /a\n")
        self.show(printer, {"x": 1})
        printer.missing("there is no /a")
        self.assertEqual(self.errors.getvalue().count("\n"), 2)
        self.show(printer, {"y": 1})
        self.assertEqual(self.output, b'{"x":1}\n{"y":1}\n')

    def test_trouble(self):
        """A lasting trouble is reported once, with its newest reason, and so is its end; a short one is not."""
        printer = self.printer()
        printer.status(Status(False, "events", "the event stream ended"))
        self.clock.advance(REPORT_DELAY - 0.1)
        printer.status(Status(True, "events"))
        self.clock.advance(10)
        self.assertEqual(self.errors.getvalue(), "")
        printer.status(Status(False, "events", "the event stream ended"))
        self.clock.advance(REPORT_DELAY - 0.1)
        printer.status(Status(False, "events", "it was refused"))
        self.clock.advance(REPORT_DELAY)
        printer.status(Status(False, "poll", "no answer"))
        self.clock.advance(100)
        printer.status(Status(True, "events"))
        self.assertEqual(
            self.errors.getvalue(),
            "livestate: http://h/: it was refused; retrying\nlivestate: http://h/: reconnected\n",
        )
        printer.status(Status(False, "events", "gone"))
        printer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
