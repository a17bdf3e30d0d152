"""What the code must not do at all: run, or make objects of, what comes from outside."""

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import livestate

PACKAGE = Path(livestate.__file__).parent
PLUGINS = PACKAGE.parent / "twisted" / "plugins"

#: Modules that make objects, or code, of bytes; and a shell's way into the house.
MODULES = {
    "code", "dill", "cloudpickle", "imp", "joblib", "jsonpickle", "marshal", "pickle", "pickletools", "runpy", "shelve",
    "ruamel", "subprocess", "xml", "yaml", "twisted.persisted", "twisted.spread",
}  # fmt: skip

#: Functions, by the names that they are called by.
FUNCTIONS = {
    "eval", "exec", "compile", "__import__", "breakpoint", "os.system", "os.popen", "os.spawnv", "os.spawnl",
    "builtins.eval", "builtins.exec",
}  # fmt: skip

#: In a page: code, or markup, made of text.
SCRIPTS = re.compile(r"\beval\b|\bFunction\s*\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|javascript:")


def dangers(tree: ast.AST) -> list[str]:
    """Give what a module does of these."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function in FUNCTIONS or any(word.arg == "shell" for word in node.keywords):
                found.append(function)
            continue
        else:
            continue
        found += [name for name in names if any(name == danger or name.startswith(danger + ".") for danger in MODULES)]
    return found


class DangersTests(SynchronousTestCase):
    """The source of livestate."""

    def test_python(self):
        """No module unpickles, evaluates, or starts a shell; TOML and JSON are the only formats that are read."""
        files = [*PACKAGE.rglob("*.py"), *PLUGINS.glob("livestate*.py")]
        self.assertGreater(len(files), 80)
        for path in files:
            self.assertEqual(dangers(ast.parse(path.read_text(encoding="utf-8"))), [], path)

    def test_scripts(self):
        """No script of the viewer makes code or markup of text."""
        files = list((PACKAGE / "web" / "static").glob("*.js"))
        self.assertGreater(len(files), 3)
        for path in files:
            self.assertEqual(SCRIPTS.findall(path.read_text(encoding="utf-8")), [], path)

    def test_walk_sees(self):
        """The walk sees each of them in every spelling."""
        for text in (
            "import pickle", "import yaml as y", "from yaml import load", "import os, marshal", "import xml.sax",
            "from twisted.spread import pb", "def f():\n import pickle", "eval(x)", "f(eval(x))", "os.system(x)",
            "run(x, shell=True)", "from twisted.persisted.aot import unjellyFromSource",
        ):  # fmt: skip
            self.assertTrue(dangers(ast.parse(text)), text)
        for text in ("import json", "re.compile(x)", "from picklefish import x", "evaluate(x)", "self.compile(x)"):
            self.assertEqual(dangers(ast.parse(text)), [], text)
        self.assertTrue(SCRIPTS.search("x.innerHTML = y"))
