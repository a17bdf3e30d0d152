"""What the audit of the dependencies makes of what it hears."""

import json
import subprocess
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests import audit

FINDING = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": "…"}


class AuditTests(SynchronousTestCase):
    """`python -m tests.audit`, without a network."""

    def run_with(self, *services):
        """Run it, with what each service answers in turn; give its exit code and what it printed."""
        answers = [
            answer
            if isinstance(answer, Exception)
            else subprocess.CompletedProcess([], 0, stdout=answer, stderr="Traceback\nConnectionError: no network")
            for answer in services
        ]
        printed: list[str] = []
        with (
            mock.patch.object(audit, "installed", return_value={"a": "1.0", "b-c": "1.0"}),
            mock.patch.object(subprocess, "run", side_effect=answers),
            mock.patch("builtins.print", side_effect=printed.append),
        ):
            return audit.main(), printed

    def test_packages(self):
        """It asks about all that livestate needs to run, and the drivers, and not about the tools of the tests."""
        found = audit.installed(audit.ROOT)
        self.assertLessEqual(
            {"twisted", "pyopenssl", "cryptography", "hyperlink", "msgspec", "pymongo", "autobahn"}, set(found)
        )
        self.assertFalse({"livestate", "mypy", "selenium", "pip-audit", "bandit", "pip"} & set(found))

    def test_clean(self):
        """Nothing found of any package is success."""
        clean = '{"dependencies": [{"name": "a", "version": "1.0", "vulns": []}, {"name": "B_c", "version": "1.0", "vulns": []}]}'
        self.assertEqual(self.run_with(clean), (0, ["2 of 2 packages audited, 0 findings"]))

    def test_finding(self):
        """A finding is a failure, and says what mends it; one that is explained is not."""
        text = json.dumps({"dependencies": [{"name": "a", "version": "1.0", "vulns": [FINDING]}]})
        code, printed = self.run_with(text, '{"dependencies": []}')
        self.assertEqual(code, 1)
        self.assertIn("VULNERABLE: a 1.0: PYSEC-1, CVE-1; mended in 2.0", printed)
        with mock.patch.dict(audit.EXPLAINED, {"CVE-1": "not reached"}):
            code, printed = self.run_with(text, '{"dependencies": []}')
        self.assertEqual(code, 0)
        self.assertIn("explained: a 1.0: PYSEC-1, CVE-1: not reached", printed)

    def test_no_network(self):
        """Services that cannot be reached, or know nothing, are no failure, and it says that nothing was audited."""
        skipped = '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'
        for answers in (("", ""), (skipped, ""), (subprocess.TimeoutExpired([], 1), "")):
            code, printed = self.run_with(*answers)
            self.assertEqual(code, 0)
            self.assertIn("NOT AUDITED, since no advisory service told of them: a, b-c", printed)
            self.assertEqual(printed[-1], "0 of 2 packages audited, 0 findings")
