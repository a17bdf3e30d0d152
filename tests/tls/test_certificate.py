"""Replacing the certificate of a listener."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SettingsError
from livestate.tls.certificate import Certificate, reload_all
from tests.support import Authority, log_lines, pem, written


class CertificateTests(SynchronousTestCase):
    """Certificate files that change."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.key, self.file = str(self.folder / "key.pem"), str(self.folder / "certificate.pem")
        self.renew()
        self.certificate = Certificate(self.key, self.file)

    def renew(self) -> None:
        """Replace key and certificate."""
        key, certificate = self.authority.issue()
        written(Path(self.key), pem(key))
        written(Path(self.file), pem(certificate))

    def test_unchanged(self):
        """Unchanged files are not loaded again."""
        before = self.certificate.options
        self.assertFalse(self.certificate.settled())
        self.assertFalse(reload_all([self.certificate]))
        self.assertIs(self.certificate.options, before)

    def test_changed(self):
        """Files that have changed, and are the same at the next check, are loaded for new connections."""
        before = self.certificate.options
        self.renew()
        self.assertFalse(self.certificate.settled())
        self.assertTrue(self.certificate.settled())
        self.assertTrue(self.certificate.reload())
        self.assertIsNot(self.certificate.options, before)
        context = self.certificate.serverConnectionForTLS(None).get_context()
        self.assertIs(context, self.certificate.options.getContext())
        self.assertFalse(self.certificate.settled())

    def test_refused(self):
        """A mismatched key is rejected and logged once; the current certificate stays until the next change."""
        before = self.certificate.options
        written(Path(self.key), pem(self.authority.issue()[0]))
        with log_lines() as lines:
            for _ in range(3):
                self.assertFalse(self.certificate.reload())
            os.unlink(self.file)
            self.assertFalse(self.certificate.reload())
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("does not match", lines[0])
        self.assertIn("cannot read", lines[1])
        self.assertIs(self.certificate.options, before)
        self.renew()
        self.assertTrue(self.certificate.reload())

    def test_another_folder(self):
        """File names are relative to the working directory at the time they were given."""
        folder = os.getcwd()
        self.addCleanup(os.chdir, folder)
        os.chdir(self.folder)
        certificate = Certificate("key.pem", "certificate.pem")
        os.chdir(folder)
        self.assertFalse(certificate.reload())
        self.renew()
        self.assertTrue(certificate.reload())

    def test_at_the_start(self):
        """At startup, files that cannot be used are an error."""
        self.assertRaises(SettingsError, Certificate, self.file, self.file)
