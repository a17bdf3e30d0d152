"""The options of twistd livestate."""

from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from livestate.tap import Options
from tests.support import log_lines, written


class SecretsTests(SynchronousTestCase):
    """Passwords among the options."""

    def warnings(self, *arguments):
        """Give what is warned of."""
        options = Options()
        options.parseOptions(arguments)
        with log_lines(LogLevel.warn) as lines:
            options.warn_of_open_secrets()
        self.assertNotIn("hush", "".join(lines))
        return lines

    def test_command_line(self):
        """A password in the command line is warned of, once; a source without one is not."""
        self.assertEqual(self.warnings("--source=demo:", "--source=/a=redis://h/0?key=a@b"), [])
        lines = self.warnings("--source=demo:", "--source=/a=redis://:hush@h/0", "--source=/b=redis://:hush@h/0")
        self.assertEqual(len(lines), 1)
        self.assertIn("--config", lines[0])

    def test_file(self):
        """A file with a password that everyone can read is warned of; for its owner and group it is right."""
        path = Path(self.mktemp())
        for source, mode, warned in (
            ("redis://:hush@h/0", 0o600, False), ("redis://:hush@h/0", 0o640, False), ("redis://:hush@h/0", 0o644, True),
            ("redis://h/0", 0o644, False),
        ):  # fmt: skip
            lines = self.warnings("--config", written(path, f'source = "{source}"\n'.encode(), mode))
            self.assertEqual([str(path) in line for line in lines], [True] if warned else [], (source, oct(mode)))
        # What it says of sources does not count where there are others in the command line.
        self.assertEqual(
            self.warnings("--config", written(path, b'source = "redis://:hush@h/0"', 0o644), "--source=demo:"), []
        )

    def test_stray(self):
        """What is no option is refused without the password in it, and so is a source that is typed wrong."""
        for argument in ("redis://:hush@h/0", "--source=/redis://:hush@h/0", "--sauce=redis://:hush@h/0"):
            error = self.assertRaises(SystemExit, Options().parseOptions, [argument])
            self.assertNotIn("hush", str(error))
            self.assertTrue(str(error).startswith("livestate: "))
