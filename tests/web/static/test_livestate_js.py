"""The client module `livestate.js`, tested in Node.js."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

TESTS = Path(__file__).parents[2] / "js" / "livestate.test.js"


class LivestateJSTests(SynchronousTestCase):
    """Runs the tests in `tests/js`."""

    not_a_unit_test = "takes 15 s in Node.js, whose timers are real"

    def test_in_node(self):
        """All tests of the module pass in Node.js, and none is skipped."""
        node = shutil.which("node")
        if node is None and not os.environ.get("CI"):
            raise SkipTest("node is not installed (Debian: apt install nodejs)")
        assert node is not None, "node is not installed"
        ran = subprocess.run(
            [node, "--test", "--test-reporter=tap", TESTS], capture_output=True, text=True, timeout=180, check=False
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        counts = dict(re.findall(r"^# (tests|pass|skipped) (\d+)$", ran.stdout, re.MULTILINE))
        self.assertGreater(int(counts["tests"]), 30)
        self.assertEqual((counts["pass"], counts["skipped"]), (counts["tests"], "0"))
