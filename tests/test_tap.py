"""Tests of the options of twistd livestate."""

import io
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.options import FILE_OPTIONS, OPTIONS
from livestate.config.settings import load_settings
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


class CommandLineTests(SynchronousTestCase):
    """How options on the command line become settings."""

    def settings(self, *arguments):
        """Return the settings from a command line."""
        options = Options()
        options.parseOptions(arguments)
        return options.settings

    def test_repeated(self):
        """A repeatable option keeps all its values in order; of another one, the last counts."""
        settings = self.settings("--http=tcp:1", "--http", "tcp:2", "--interval=2", "--interval=3", "--source=demo:")
        self.assertEqual(settings.http, ("tcp:1", "tcp:2"))
        self.assertEqual(settings.documents[0].interval, 3.0)

    def test_last_file(self):
        """If several files are named, the last one counts."""
        files = [written(Path(self.mktemp()), f"interval = {number}\n".encode()) for number in (2, 3)]
        self.assertEqual(self.settings(*(f"--config={file}" for file in files)).documents[0].interval, 3.0)

    def test_independent(self):
        """Two parsers share no values."""
        self.settings("--http=tcp:1", "--max-stale=5")
        self.assertEqual(self.settings(), load_settings({}))

    def test_every_option(self):
        """Every option of the table is one of the command line."""
        for option in FILE_OPTIONS:
            text = option.example or option.default or ""
            self.assertEqual(self.settings(f"--{option.name}={text}"), load_settings({option.name: [text]}))

    def test_completion(self):
        """The shell completes the names, the files, and what may be repeated."""
        options = Options()
        options._shellCompFile = io.BytesIO()
        self.assertRaises(SystemExit, options.parseOptions, ["--", "--_shell-completion", "zsh:2"])
        shown = options._shellCompFile.getvalue().decode()
        for option in OPTIONS:
            self.assertIn(f"--{option.name}=", shown)
        self.assertIn("*.toml", shown)
