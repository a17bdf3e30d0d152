"""What is installed, from a wheel and from a checkout, works with the checkout out of the way."""

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from livestate import __version__
from tests.integration.http import get
from tests.integration.processes import Child, folder_for, free_port, run, twistd_arguments
from tests.integration.venvs import copy_checkout, environment, make_venv


class PackageTests(SynchronousTestCase):
    """A wheel, `pip install .` and `pip install -e .`, each in an environment of its own."""

    def setUp(self):
        self.folder = folder_for(self)
        self.checkout = copy_checkout(self.folder / "checkout")

    def run_in(self, programs: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an installed program in an empty folder."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        return run(programs / name, *arguments, cwd=empty, env=environment())

    def assert_works(self, programs: Path) -> None:
        """See that twistd finds livestate, that its help comes, and that it serves."""
        listed = self.run_in(programs, "twistd", "--help")
        self.assertRegex(listed.stdout, r"\n +livestate +Live JSON documents")
        self.assertRegex(self.run_in(programs, "twistd", "--help-reactors").stdout, r"\n +livestate\s+epoll")
        shown = self.run_in(programs, "twistd", "livestate", "--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertIn("--source=", shown.stdout)
        self.assertEqual(self.run_in(programs, "livestate", "--version").stdout, f"livestate {__version__}\n")

        folder = folder_for(self)
        http, admin = free_port(), free_port()
        arguments = [str(programs / "twistd"), *twistd_arguments()[1:], "-n", "--pidfile=", "livestate"]
        arguments += ["--source=demo:", f"--http=tcp:{http}:interface=127.0.0.1", f"--https=ssl:{free_port()}"]
        arguments += [f"--admin=tcp:{admin}:interface=127.0.0.1"]
        child = Child(self, arguments, folder, environment())

        def answers() -> bool:
            try:
                return get(f"http://127.0.0.1:{http}").status == 200
            except OSError:
                return False

        child.wait_for(answers, "the installed livestate")
        self.assertIn("parties", get(f"http://127.0.0.1:{http}", Accept_Encoding="br").json())
        self.assertTrue((folder / "server.pem").exists())
        for name, part in (
            ("", b"<title>livestate"),
            ("viewer.js", b"import "),
            ("livestate.js", b"function subscribe"),
        ):
            self.assertIn(part, get(f"http://127.0.0.1:{http}", f"/_live/{name}").body)
        child.stop()

    def test_wheel(self):
        """The wheel holds the plugin, the type marker and all modules, no tests, and works without the checkout."""
        built = run(
            *(make_venv(self.folder / "builder", "wheel") / "pip", "wheel", "--quiet", "--no-deps"),
            *("--wheel-dir", self.folder, self.checkout),
            cwd=self.folder, env=environment(), timeout=300,
        )  # fmt: skip
        self.assertEqual(built.returncode, 0, built.stdout + built.stderr)
        [wheel] = self.folder.glob("livestate-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        modules = {str(path.relative_to(self.checkout)) for path in (self.checkout / "livestate").rglob("*.py")}
        self.assertLessEqual(modules, names)
        self.assertLessEqual({"twisted/plugins/livestate_plugin.py", "livestate/py.typed"}, names)
        static = {str(path.relative_to(self.checkout)) for path in (self.checkout / "livestate/web/static").iterdir()}
        self.assertLessEqual(static, names)
        self.assertIn("livestate/web/static/livestate.js", static)
        info = f"livestate-{__version__}.dist-info/"
        others = {name for name in names if not re.match(r"livestate/|twisted/plugins/livestate_plugin\.py", name)}
        self.assertEqual([name for name in others if not name.startswith(info)], [])
        self.assertNotIn("twisted/__init__.py", names)
        self.assertTrue(any(name.startswith(info) and name.endswith("LICENSE") for name in names), names)
        shutil.rmtree(self.checkout)
        self.assert_works(make_venv(self.folder / "venv", wheel))

    def test_installed(self):
        """`pip install .` works once the checkout is gone."""
        programs = make_venv(self.folder / "venv", self.checkout)
        shutil.rmtree(self.checkout)
        self.assert_works(programs)

    def test_editable(self):
        """`pip install -e .` works, from any folder."""
        self.assert_works(make_venv(self.folder / "venv", "--editable", self.checkout))
