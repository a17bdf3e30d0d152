"""The rooms: a module imports only from its own room and the rooms below it, and no imports form a circle."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import livestate

PACKAGE = Path(livestate.__file__).parent

#: The rooms, lowest first: packages and the modules at the root, by their names without "livestate.". A module is in
#: the most specific of these; "web" is what is directly in livestate/web.
ROOMS = (
    *("", "errors"),
    *("net", "formats", "system", "config", "tls", "listeners"),
    *("sources", "sources.file", "sources.http", "sources.mongodb", "sources.redis"),
    "documents",
    *("web.responses", "web.streams", "web.http1", "web.resources", "web", "web.admin"),
    "workers",
    *("client", "cli"),
    *("service", "tap"),
)

#: Of the libraries, what some rooms may import; the others may import any that livestate depends on.
LIBRARIES = {
    "errors": set(),
    "formats": {"msgspec"},
    "net": {"twisted", "zope", "OpenSSL"},
    "config": {"msgspec", "tomli", "tomllib"},  # tomllib: since Python 3.11
}

#: The rooms that may import twisted.web: nothing below the web depends on HTTP, but for the sources that speak it.
HTTP = {room for room in ROOMS if room.startswith("web")} | {"sources.http", "client", "cli", "service", "tap"}


@functools.cache
def modules():
    """Return the syntax tree of every module, by its name."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def imports_of(tree, known, everything=True):
    """Return the names of the modules that `tree` imports, also inside functions and for type checkers only.

    :param known: the modules there are, to tell `from package import module` from `from module import name`.
    :param everything: whether imports inside functions count.
    """
    names = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
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


def room_of(name):
    """Return the room of one of livestate's modules, the most specific one."""
    short = name.removeprefix("livestate").removeprefix(".")
    while short and short not in ROOMS:
        short = short.rpartition(".")[0]
    return short


def circles(edges):
    """Return the first circle of each chain of edges, as lists of names that end where they begin."""
    found, done = [], set()

    def visit(name, chain):
        if name in chain:
            found.append([*chain[chain.index(name) :], name])
        elif name not in done:
            for other in sorted(edges[name]):
                visit(other, [*chain, name])
            done.add(name)

    for name in sorted(edges):
        visit(name, [])
    return found


class FloorsTests(SynchronousTestCase):
    """What imports what."""

    def setUp(self):
        self.trees = modules()
        self.edges = {
            name: {other for other in imports_of(tree, self.trees) if other in self.trees}
            for name, tree in self.trees.items()
        }

    def test_every_module_has_a_room(self):
        """Every module but the package itself is in a room, every room has modules, and few are at the root."""
        rooms = {name: room_of(name) for name in self.trees}
        self.assertEqual([name for name, room in rooms.items() if not room], ["livestate"])
        self.assertEqual(set(rooms.values()), set(ROOMS))
        self.assertLessEqual(len(list(PACKAGE.glob("*.py"))), 7)

    def test_imports_go_down(self):
        """No module imports from a room above its own, not even inside a function or for type checkers."""
        for name, others in self.edges.items():
            for other in others:
                self.assertLessEqual(ROOMS.index(room_of(other)), ROOMS.index(room_of(name)), f"{name} imports {other}")

    def test_libraries(self):
        """The lower rooms import only the libraries that they are allowed to, and only the upper ones twisted.web."""
        for name, tree in self.trees.items():
            room = room_of(name)
            for imported in imports_of(tree, self.trees):
                top = imported.partition(".")[0]
                if top == "livestate" or top in sys.stdlib_module_names:
                    continue
                if room in LIBRARIES:
                    self.assertIn(top, LIBRARIES[room], f"{name} imports {imported}")
                if room not in HTTP:
                    self.assertFalse(imported.startswith("twisted.web"), f"{name} imports {imported}")

    def test_no_circle(self):
        """No chain of imports leads back to the module, or to the room, where it began."""
        self.assertEqual(circles(self.edges), [])
        rooms: dict[str, set[str]] = {room: set() for room in ROOMS}
        for name, others in self.edges.items():
            rooms[room_of(name)] |= {room_of(other) for other in others} - {room_of(name)}
        self.assertEqual(circles(rooms), [])

    def test_circles_are_seen(self):
        """A circle is found, however long it is and wherever it is entered."""
        self.assertEqual(circles({"a": {"b"}, "b": set()}), [])
        self.assertEqual(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}), [["b", "c", "b"]])

    def test_imports_are_seen(self):
        """Imports of every spelling are seen, those for type checkers included."""
        tree = ast.parse(
            "import livestate.tap\nfrom livestate import errors as e, __version__\n"
            "if TYPE_CHECKING:\n    from livestate.web.site import LiveSite\n"
            "def later():\n    from livestate.net.reactor import install\n"
        )
        known = {"livestate.errors", "livestate.tap"}
        expected = {"livestate.tap", "livestate.errors", "livestate", "livestate.web.site", "livestate.net.reactor"}
        self.assertEqual(imports_of(tree, known), expected)
        self.assertEqual(imports_of(tree, known, everything=False), expected - {"livestate.net.reactor"})

    def run_python(self, program):
        """Run a program in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=PACKAGE.parent
        )

    def test_no_reactor(self):
        """What twistd imports to parse the options installs no reactor: livestate's own is chosen after that."""
        modules = "livestate.tap", "livestate.cli.main", "livestate.workers.zygote", "twisted.plugins.livestate_plugin"
        ended = self.run_python(
            "import importlib, sys\n"
            f"for name in {modules}:\n"
            "    importlib.import_module(name)\n"
            "    if 'twisted.internet.reactor' in sys.modules: sys.exit(name)"
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_no_driver(self):
        """No database driver is imported before a source needs it, and Autobahn not before the reactor is chosen."""
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
