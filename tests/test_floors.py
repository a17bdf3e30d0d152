"""The floors: a module imports only from its own floor and those below, and nothing goes round in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import livestate

PACKAGE = Path(livestate.__file__).parent

#: Floor of each module, by its name without "livestate."; a name that ends in a dot stands for all below it.
FLOORS = {
    "pure": (
        *("", "errors", "settings", "strports", "values", "negotiate", "snapshot", "backoff", "merge"),
        *("eventstream", "garbage", "pointer", "jsontext", "outline", "histogram", "reasons", "redaction"),
    ),
    "seams": ("interfaces",),
    "engine": (
        *(
            "document",
            "history",
            "poller",
            "saved",
            "ticker",
            "lag",
            "logs",
            "listen",
            "endpoint",
            "tls",
            "sources",
            "sources.",
        ),
        *("names", "notify", "limits", "certificate", "signals", "supplies"),
    ),
    "net": ("net", "net."),
    "web": ("web", "web."),
    "process": ("workers", "workers."),
    "roots": (
        "tap",
        "service",
        "client",
        "client.",
        "cli",
        "check",
        "publish",
        "watch",
        "printer",
        "screen",
        "terminal",
    ),
}

#: The floors that each floor may import from.
ALLOWED = {
    "pure": {"pure"},
    "seams": {"pure", "seams"},
    "engine": {"pure", "seams", "engine", "net"},
    "net": {"net"},
    "web": {"pure", "seams", "engine", "net", "web"},
    "process": {"pure", "seams", "engine", "net", "web", "process"},
    "roots": set(FLOORS),
}

#: What else may be imported, beside the standard library; None: anything that is a dependency.
OTHERS = {
    "pure": {"brotli", "zstandard", "msgspec", "tomli", "tomllib"},  # tomllib: since Python 3.11
    "seams": {"zope"},
    "net": {"twisted", "zope", "OpenSSL"},
}


def modules():
    """Give the syntax tree of every module, by its name."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def imports_of(tree, known, everything=True):
    """Give the names of the modules that one imports, inside functions too; those for type checkers are left out."""
    names = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if not everything and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they go"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in known else node.module)
        waiting += ast.iter_child_nodes(node)
    return names


def floor_of(name):
    """Give the floor of one of livestate's modules."""
    short = name.removeprefix("livestate").removeprefix(".")
    found = [
        floor
        for floor, members in FLOORS.items()
        if short in members or any(m.endswith(".") and short.startswith(m) for m in members)
    ]
    assert len(found) == 1, f"{name} is on {found or 'no floor'}"
    return found[0]


class FloorsTests(SynchronousTestCase):
    """What imports what."""

    def setUp(self):
        self.trees = modules()

    def test_every_module_has_a_floor(self):
        """Every module is on exactly one floor, and there are modules to speak of."""
        self.assertGreater(len(self.trees), 25)
        for name in self.trees:
            floor_of(name)

    def test_nothing_goes_up(self):
        """No module imports from a floor that it must not know, not even inside a function."""
        for name, tree in self.trees.items():
            floor = floor_of(name)
            for imported in imports_of(tree, self.trees):
                if imported.partition(".")[0] == "livestate":
                    self.assertIn(floor_of(imported), ALLOWED[floor], f"{name} imports {imported}")

    def test_others(self):
        """The lower floors know only the libraries that they are to know, and no floor below the web's knows HTTP."""
        for name, tree in self.trees.items():
            floor = floor_of(name)
            for imported in imports_of(tree, self.trees):
                top = imported.partition(".")[0]
                if top == "livestate" or top in sys.stdlib_module_names:
                    continue
                if floor in OTHERS:
                    self.assertIn(top, OTHERS[floor], f"{name} imports {imported}")
                if floor == "engine" and not name.startswith("livestate.sources."):
                    self.assertFalse(imported.startswith("twisted.web"), f"{name} imports {imported}")

    def test_no_circle(self):
        """No chain of imports comes back to where it began."""
        edges = {
            name: {other for other in imports_of(tree, self.trees) if other in self.trees}
            for name, tree in self.trees.items()
        }
        done: set[str] = set()

        def visit(name, chain):
            self.assertNotIn(name, chain, " -> ".join([*chain, name]))
            if name not in done:
                for other in sorted(edges[name]):
                    visit(other, [*chain, name])
                done.add(name)

        for name in edges:
            visit(name, [])

    def test_type_checkers_only(self):
        """What is imported for type checkers only comes from livestate's own floor or below, too."""
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("livestate"):
                    self.assertIn(floor_of(str(node.module)), ALLOWED[floor_of(name)], f"{name}: {node.module}")

    def test_walk_sees(self):
        """The walk sees imports of every spelling, and leaves out what only type checkers read."""
        tree = ast.parse(
            "import livestate.tap\nfrom livestate import errors as e, __version__\n"
            "if TYPE_CHECKING:\n    from livestate.web.site import LiveSite\n"
            "def later():\n    from livestate.net.reactor import install\n"
        )
        known = {"livestate.errors", "livestate.tap"}
        expected = {"livestate.tap", "livestate.errors", "livestate", "livestate.net.reactor"}
        self.assertEqual(imports_of(tree, known), expected)
        self.assertEqual(imports_of(tree, known, everything=False), expected - {"livestate.net.reactor"})

    def run_python(self, program):
        """Run a program in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=PACKAGE.parent
        )

    def test_no_reactor(self):
        """What twistd imports to parse the options installs no reactor: livestate's own is chosen after that."""
        for module in (
            "livestate.tap",
            "livestate.cli.main",
            "livestate.workers.zygote",
            "twisted.plugins.livestate_plugin",
        ):
            ended = self.run_python(f"import {module}, sys; sys.exit('twisted.internet.reactor' in sys.modules)")
            self.assertEqual((ended.returncode, ended.stderr), (0, ""), module)

    def test_no_driver(self):
        """No database driver is imported before a document's source asks for it, and no Autobahn before the reactor."""
        ended = self.run_python(
            "import livestate.tap, sys; "
            "sys.exit(bool({'txredisapi', 'treq', 'txmongo', 'pymongo', 'autobahn'} & set(sys.modules)))"
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_plugin_is_strings(self):
        """The plugin file imports nothing of livestate's: `twistd --help` alone must not pay for it."""
        ended = self.run_python(
            "import twisted.plugins.livestate_plugin, sys; sys.exit(any(m.startswith('livestate') for m in sys.modules))"
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
