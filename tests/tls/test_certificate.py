"""Replacing the certificate of a listener."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SettingsError
from livestate.tls import certificate as certificate_module
from livestate.tls.certificate import Certificate, reload_all
from livestate.tls.contexts import server_options
from tests.support import Authority, log_lines, pem, unsupported, written


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

    def test_repaired(self):
        """Files that were rejected are tried again, so that a repair is noticed that leaves no trace in them."""
        before = self.certificate.options

        def refuse(*files):
            raise SettingsError("cannot read key.pem: Permission denied")

        self.renew()
        self.patch(certificate_module, "server_options", refuse)
        self.certificate.settled()
        with log_lines() as lines:
            for _ in range(5):
                self.assertTrue(self.certificate.settled())
                self.assertFalse(self.certificate.reload())
        self.assertEqual(len(lines), 1, lines)
        self.patch(certificate_module, "server_options", server_options)
        self.assertTrue(self.certificate.settled())
        self.assertTrue(self.certificate.reload())
        self.assertIsNot(self.certificate.options, before)
        self.assertFalse(self.certificate.settled())

    def test_permissions(self):
        """A change of permissions, or of the content only, counts as a change."""
        os.chmod(self.key, 0o400)
        self.certificate.settled()
        self.assertTrue(self.certificate.settled())
        self.certificate.reload()
        self.assertFalse(self.certificate.settled())
        status = os.stat(self.file)
        written(Path(self.file), Path(self.file).read_bytes()[:-1] + b" ")
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.certificate.settled()
        self.assertTrue(self.certificate.settled())

    def test_same(self):
        """Files that were touched, or put back after a rejection, are no new certificate."""
        before = self.certificate.options
        data = Path(self.file).read_bytes()
        os.utime(self.file)
        with log_lines() as lines:
            self.assertFalse(self.certificate.reload())
            self.assertEqual(lines, [])
            written(Path(self.file), b"")
            self.assertFalse(self.certificate.reload())
            written(Path(self.file), data)
            self.assertFalse(self.certificate.reload())
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("is the one that is served", lines[1])
        self.assertIs(self.certificate.options, before)

    def test_unexpected(self):
        """Whatever is wrong with one certificate, it is rejected, and the others are loaded."""
        other = Certificate(self.key, self.file)
        key, certificate = self.authority.issue()
        written(Path(self.key), unsupported(pem(key)))
        written(Path(self.file), pem(certificate))
        with log_lines() as lines:
            self.assertFalse(reload_all([self.certificate]))
        self.assertIn("of an unsupported kind", lines[0])
        self.renew()
        failures: list[Exception] = [ZeroDivisionError("a bug")]

        def fail_once(*files):
            if failures:
                raise failures.pop()
            return server_options(*files)

        self.patch(certificate_module, "server_options", fail_once)
        with log_lines() as lines:
            self.assertTrue(reload_all([self.certificate, other]))
        self.assertIn("ZeroDivisionError: a bug", lines[0])

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
