"""Tests of the options of twistd livestate."""

from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from livestate.tap import Options
from tests.support import log_lines, written


class SecretsTests(SynchronousTestCase):
    """Passwords in options."""

    def warnings(self, *arguments):
        """Return the warnings about exposed secrets."""
        options = Options()
        options.parseOptions(arguments)
        with log_lines(LogLevel.warn) as lines:
            options.warn_about_exposed_secrets()
        self.assertNotIn("hush", "".join(lines))
        return lines

    def test_command_line(self):
        """Passwords on the command line cause one warning; sources without one cause none."""
        self.assertEqual(self.warnings("--source=demo:", "--source=/a=redis://h/0?key=a@b"), [])
        lines = self.warnings("--source=demo:", "--source=/a=redis://:hush@h/0", "--source=/b=redis://:hush@h/0")
        self.assertEqual(len(lines), 1)
        self.assertIn("--config", lines[0])

    def test_file(self):
        """A file with a password that others can read causes a warning; owner and group may read it."""
        path = Path(self.mktemp())
        for source, mode, warned in (
            ("redis://:hush@h/0", 0o600, False), ("redis://:hush@h/0", 0o640, False), ("redis://:hush@h/0", 0o644, True),
            ("redis://h/0", 0o644, False),
        ):  # fmt: skip
            lines = self.warnings("--config", written(path, f'source = "{source}"\n'.encode(), mode))
            self.assertEqual([str(path) in line for line in lines], [True] if warned else [], (source, oct(mode)))
        # The sources in the file do not count if the command line names others.
        self.assertEqual(
            self.warnings("--config", written(path, b'source = "redis://:hush@h/0"', 0o644), "--source=demo:"), []
        )

    def test_stray(self):
        """An argument that is not an option, and a mistyped source, are rejected without showing the password."""
        for argument in ("redis://:hush@h/0", "--source=/redis://:hush@h/0", "--sauce=redis://:hush@h/0"):
            error = self.assertRaises(SystemExit, Options().parseOptions, [argument])
            self.assertNotIn("hush", str(error))
            self.assertTrue(str(error).startswith("livestate: "))
