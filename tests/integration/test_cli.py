"""The `livestate` command."""

import os
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from livestate import __version__
from tests.integration.certificates import Authority
from tests.integration.processes import folder_for, free_port, program, run
from tests.integration.servers import Livestate, RedisServer


def livestate(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return run(program("livestate"), *arguments, stdin=stdin)


class CommandTests(SynchronousTestCase):
    """Helpers for the tests of all commands."""

    def assert_one_line(self, ran: subprocess.CompletedProcess[str], *words: str) -> None:
        """Check that a command failed with one line that contains these words."""
        self.assertEqual(ran.returncode, 1, ran)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        for word in words:
            self.assertIn(word, ran.stderr)
        self.assertNotIn("Traceback", ran.stdout + ran.stderr)


class GeneralTests(CommandTests):
    """The command itself."""

    def test_version(self):
        """--version prints the version."""
        self.assertEqual(livestate("--version").stdout, f"livestate {__version__}\n")

    def test_help(self):
        """--help lists the commands."""
        shown = livestate("--help").stdout
        for command in ("publish", "watch", "check"):
            self.assertIn(command, shown)

    def test_usage(self):
        """Wrong usage exits with status 2."""
        for arguments in ((), ("frobnicate",), ("publish",), ("publish", "x.json"), ("check",), ("watch",)):
            ran = livestate(*arguments)
            self.assertEqual(ran.returncode, 2, arguments)
            self.assertIn("usage: livestate", ran.stderr)


class PublishTests(CommandTests):
    """`livestate publish`."""

    def setUp(self):
        self.folder = folder_for(self)
        self.file = self.folder / "results.json"
        self.file.write_text('{"votes": 1}\n')

    def test_file_and_standard_input(self):
        """A file or standard input is stored in Redis unchanged, with the login from the URL."""
        store = RedisServer(self, password="quiet")
        url = f"redis://:quiet@127.0.0.1:{store.port}/0?key=results"
        ran = livestate("publish", str(self.file), "--to", url)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertEqual(store.command("GET", "results"), b'{"votes": 1}\n')
        ran = livestate("publish", "-", "--to", url, stdin=b"[2]")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertEqual(store.command("GET", "results"), b"[2]")

    def test_bad_json(self):
        """Input that is not JSON is rejected, and Redis keeps its value."""
        store = RedisServer(self)
        store.set("[1]")
        for content in (b"{", b"", b'"caf\xe9"'):
            self.assert_one_line(livestate("publish", "-", "--to", store.url, stdin=content), "- was not published")
        self.assertEqual(store.command("GET", "livestate"), b"[1]")

    def test_missing_file(self):
        """A missing file is reported."""
        self.assert_one_line(livestate("publish", "missing.json", "--to", "redis://127.0.0.1/0"), "missing.json")

    def test_store_down(self):
        """A store that is down is reported without the password."""
        url = f"redis://:hush@127.0.0.1:{free_port()}/0"
        ran = livestate("publish", str(self.file), "--to", url)
        self.assert_one_line(ran, "refused")
        self.assertNotIn("hush", ran.stderr)

    def test_store_refuses(self):
        """A missing or wrong password is reported."""
        store = RedisServer(self, password="right")
        self.assert_one_line(livestate("publish", str(self.file), "--to", store.url), "NOAUTH")
        url = f"redis://:wrong@127.0.0.1:{store.port}/0"
        self.assert_one_line(livestate("publish", str(self.file), "--to", url), "rejected the login")

    def test_not_a_store(self):
        """A source that cannot be written to and an invalid URL are rejected."""
        self.assert_one_line(livestate("publish", str(self.file), "--to", "demo:"), "cannot publish to")
        self.assert_one_line(livestate("publish", str(self.file), "--to", "nonsense"), "--to nonsense")


class CheckTests(CommandTests):
    """`livestate check`."""

    def test_good(self):
        """For a document that is served well, it shows status, codings, entity tags and age."""
        service = Livestate(self, "--source=demo:", https="")
        service.until_served()
        for arguments in ((service.http,), (f"{service.https}/", "--cafile", str(service.cafile))):
            ran = livestate("check", *arguments)
            self.assertEqual((ran.returncode, ran.stderr), (0, ""), ran.stdout)
            for word in (
                "answered 200",
                "identity",
                "gzip",
                "br",
                "zstd",
                "ETag",
                "Livestate-Age",
                "no problems found",
            ):
                self.assertIn(word, ran.stdout)

    def test_problems(self):
        """404 and 503 are shown with their explanations, and the exit status is 1."""
        service = Livestate(self, f"--source=redis://127.0.0.1:{free_port()}/0")
        for path, status in (("/", "503"), ("/missing", "404")):
            ran = livestate("check", service.http + path)
            self.assertEqual(ran.returncode, 1)
            self.assertIn(f"problem: identity: answered {status}", ran.stdout)
            self.assertNotIn("Traceback", ran.stderr)

    def test_old(self):
        """The age of a document that the store no longer confirms is reported once."""
        folder = folder_for(self)
        (folder / "a.json").write_text("1")
        first = Livestate(self, "--source=file:a.json", "--state-dir=.", folder=folder)
        first.until_served()
        first.stop()
        (folder / "a.json").unlink()
        [saved] = folder.glob("*.saved")
        os.utime(saved, (time.time() - 3600,) * 2)
        ran = livestate("check", Livestate(self, "--source=file:a.json", "--state-dir=.", folder=folder).http)
        self.assertEqual(ran.returncode, 1)
        self.assertRegex(ran.stdout, r"problem: the document is 3,60\d s old")
        self.assertEqual(ran.stdout.count("problem: "), 1)

    def test_certificate(self):
        """A certificate of an unknown or different authority is reported in one line."""
        service = Livestate(self, "--source=demo:", https="")
        other = Authority(folder_for(self))
        for arguments in ((), ("--cafile", str(other.certificate))):
            self.assert_one_line(livestate("check", service.https, *arguments), "certificate", "--cafile")
        self.assert_one_line(livestate("check", service.https, "--cafile", "missing.pem"), "missing.pem")

    def test_unreachable(self):
        """A server that is down, an unknown host and an invalid URL are reported in one line."""
        self.assert_one_line(livestate("check", f"http://127.0.0.1:{free_port()}/"), "refused")
        self.assert_one_line(livestate("check", "http://no-such-host.invalid/"), "no-such-host.invalid")
        self.assert_one_line(livestate("check", "ftp://127.0.0.1/"), "ftp://127.0.0.1/")
        self.assert_one_line(livestate("check", "nonsense"), "nonsense")
        self.assert_one_line(livestate("check", "http://127.0.0.1:port/"), "127.0.0.1:port")
