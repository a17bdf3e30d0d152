"""What `livestate watch` prints into a pipe."""

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from livestate.cli.printer import PATIENCE, Printer
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
        """Each state is JSON, indented."""
        self.show(self.printer(), {"a": [1], "é": "ü"}, 2)
        self.assertEqual(self.output.decode(), '{\n  "a": [\n    1\n  ],\n  "é": "ü"\n}\n2\n')

    def test_lines(self):
        """With --jsonl each is a line with its version, or its entity tag where it came by polling."""
        printer = self.printer(lines=True)
        self.show(printer, {"a": 1})
        printer.show(2, State(2, None, '"tag"', None, "poll"))
        self.assertEqual(
            self.output.decode(), '{"version":1,"state":{"a":1}}\n{"version":null,"etag":"\\"tag\\"","state":2}\n'
        )

    def test_patches(self):
        """With --patch the first is the state, and what follows are merge patches, a line each."""
        self.show(self.printer(patch=True), {"a": 1, "b": 2}, {"a": 1, "c": 3}, [4])
        self.assertEqual(self.output.decode(), '{"a":1,"b":2}\n{"b":null,"c":3}\n[4]\n')

    def test_patches_with_versions(self):
        """With both, lines say whether they are a state or a patch."""
        self.show(self.printer(patch=True, lines=True), {"a": 1}, {"a": 2}, {"a": None})
        self.assertEqual(
            self.output.decode(),
            '{"version":1,"state":{"a":1}}\n{"version":2,"patch":{"a":2}}\n{"version":3,"state":{"a":null}}\n',
        )
        self.assertEqual(self.errors.getvalue(), "")

    def test_no_patch(self):
        """A change that no merge patch can say is said to be a whole state."""
        self.show(self.printer(patch=True), {"a": 1}, {"a": None})
        self.assertEqual(self.output.decode(), '{"a":1}\n{"a":null}\n')
        self.assertIn("the whole state follows", self.errors.getvalue())

    @many
    @given(st.lists(documents, min_size=1, max_size=6))
    def test_applied_in_order(self, values):
        """The lines, applied one after the other, give the document after each of them, whatever it is."""
        self.setUp()
        self.show(self.printer(patch=True, lines=True), *values)
        held: Any = None
        for line, value in zip(self.output.decode().splitlines(), values, strict=True):
            record = json.loads(line)
            held = record["state"] if "state" in record else apply(held, record["patch"])
            self.assertTrue(same(held, value), (held, value))

    def test_missing(self):
        """A part that is not there is said once, and again after it was."""
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
        """Trouble that lasts is said once, with the newest reason, and that it is over; a short one is not said."""
        printer = self.printer()
        printer.status(Status(False, "events", "the event stream ended"))
        self.clock.advance(PATIENCE - 0.1)
        printer.status(Status(True, "events"))
        self.clock.advance(10)
        self.assertEqual(self.errors.getvalue(), "")
        printer.status(Status(False, "events", "the event stream ended"))
        self.clock.advance(PATIENCE - 0.1)
        printer.status(Status(False, "events", "it was refused"))
        self.clock.advance(PATIENCE)
        printer.status(Status(False, "poll", "no answer"))
        self.clock.advance(100)
        printer.status(Status(True, "events"))
        self.assertEqual(
            self.errors.getvalue(),
            "livestate: http://h/: it was refused; asking on\nlivestate: http://h/: good again\n",
        )
        printer.status(Status(False, "events", "gone"))
        printer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
