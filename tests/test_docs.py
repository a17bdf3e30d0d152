"""The pages in docs/: what they say of log lines is so, and their links lead somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import livestate

PACKAGE = Path(livestate.__file__).parent
#: Of a checkout: the pages are not installed.
ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])

#: What is put in, in code and on the page.
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|…")

#: A file of the checkout, as pages name it: from its root, or from the package's.
_FILE = re.compile(r"`((?:[\w-]+/)+[\w-]+\.(?:cfg|conf|json|md|py|service|socket|svg|toml|vcl|ya?ml))`")

#: A name of the code, such as `Settings` or `Options.optParameters`.
_NAME = re.compile(r"`([A-Za-z_]{4,}(?:\.[A-Za-z_]{3,})*)`")

#: The functions of a Logger that someone has to look at, when their line comes.
_SERIOUS = {"warn", "error", "critical", "failure"}


def text_of(node: ast.AST) -> str:
    """Give a string of the code with … for what is put in; "" where it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(value.value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    return ""


def nodes() -> Iterator[ast.AST]:
    """Give each node of the package's code."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def pieces(text: str) -> list[str]:
    """Give what always stands in a line."""
    return [piece.strip(" ,;:()'") for piece in _PLACEHOLDER.split(text) if len(piece.strip(" ,;:()'")) > 3]


def said() -> list[tuple[str, str]]:
    """Give what the package logs as a warning or worse: how, and the text."""
    return [
        (node.func.attr, text_of(node.args[0]))
        for node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _SERIOUS
        and ast.unparse(node.func.value) in ("log", "self.log")
    ]


class TroubleshootingTests(SynchronousTestCase):
    """docs/troubleshooting.md."""

    def setUp(self):
        self.page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
        #: The lines that it explains, each the first of an item.
        self.quoted = re.findall(r"^- `([^`\n]+)`$", self.page, re.MULTILINE)

    def test_complete(self):
        """Each line that livestate logs as a warning or worse is explained."""
        logged = said()
        self.assertGreater(len(logged), 20)
        for level, text in logged:
            self.assertTrue(text, f"a log.{level} whose text is no constant")
            for piece in pieces(text):
                self.assertTrue(any(piece in line for line in self.quoted), f"{level}: {text!r}")

    def test_true(self):
        """Each line that it explains is there in the code, piece by piece."""
        code = {text for node in nodes() if (text := text_of(node))}
        self.assertGreater(len(self.quoted), 60)
        for line in self.quoted:
            for piece in pieces(line):
                # What an option expects is a text of its own (livestate.config.option_types).
                found = any(piece.removeprefix("expected ") in text for text in code)
                self.assertTrue(found, f"{piece!r} of {line!r}")


class LinkTests(SynchronousTestCase):
    """All pages."""

    def test_links(self):
        """What a page links to, or shows, is there."""
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for target in re.findall(r"\]\(([^)\s]+)\)", text):
                name, _, anchor = target.partition("#")
                if "://" in name:
                    continue
                file = page.parent / name if name else page
                self.assertTrue(file.exists(), f"{page.name}: {target}")
                if anchor:
                    self.assertIn(anchor, anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}")

    def test_files(self):
        """Every file that a page names exists."""
        found = {name for page in PAGES for name in _FILE.findall(page.read_text(encoding="utf-8"))}
        self.assertGreater(len(found), 60)
        self.assertEqual({name for name in found if not ((ROOT / name).exists() or (PACKAGE / name).exists())}, set())

    def test_names(self):
        """Every name of the code that CONTRIBUTING.md mentions exists."""
        names = set(_NAME.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
        self.assertGreater(len(names), 20)
        files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
        words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in files)))
        self.assertEqual({name for name in names if not set(name.split(".")) <= words}, set())

    def test_linked(self):
        """Each page in docs/ is linked from README.md."""
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
        self.assertEqual(pages - set(re.findall(r"\]\(([^)#]+)", readme)), set())


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
