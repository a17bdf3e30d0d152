"""Tests of the table of options."""

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.option_help import option_help
from livestate.config.options import (
    DOCUMENT_KEYS,
    FILE_OPTIONS,
    OPTIONS,
    PROCESS_OPTIONS,
    RESTART_ONLY,
)
from livestate.config.settings import DocumentSettings, Settings, load_settings
from tests.option_pages import ROOT, options_page, readme, toml_line


class TableTests(SynchronousTestCase):
    """The table itself."""

    def examples(self) -> Settings:
        """Return the settings if every option is given, on the command line."""
        return load_settings({option.name: [option.example or option.default or ""] for option in FILE_OPTIONS})

    def test_names(self):
        """No name is declared twice."""
        for options in (OPTIONS, DOCUMENT_KEYS):
            self.assertEqual(len({option.name for option in options}), len(options))

    def test_fields(self):
        """Each option of the process is a field of Settings, and each name in a [[document]] one of DocumentSettings."""
        self.assertEqual(
            sorted(["documents", *(option.field for option in PROCESS_OPTIONS)]),
            sorted(field.name for field in fields(Settings)),
        )
        self.assertEqual([option.field for option in DOCUMENT_KEYS], [field.name for field in fields(DocumentSettings)])

    def test_types(self):
        """What the types of the options return, and the defaults, have the types of the fields."""

        def path(_: type, value: Any) -> Path:
            return Path(value)

        for settings in (load_settings({}), self.examples()):
            values = msgspec.to_builtins(asdict(settings), enc_hook=str)
            self.assertEqual(msgspec.convert(values, Settings, dec_hook=path), settings)

    def test_examples_in_toml(self):
        """The example of each option in TOML means the same as the one on the command line."""
        file = Path(self.mktemp())
        file.write_text("\n".join(map(toml_line, FILE_OPTIONS)))
        self.assertEqual(load_settings({}, str(file)), self.examples())
        document = [toml_line(key) for key in DOCUMENT_KEYS]
        top = [toml_line(option) for option in PROCESS_OPTIONS]
        file.write_text("\n".join([*top, "[[document]]", *document]))
        self.assertEqual(load_settings({}, str(file)), self.examples())

    def test_restart_only(self):
        """A reload can compare every option that it cannot change."""
        self.assertTrue(RESTART_ONLY)
        self.assertLessEqual(set(RESTART_ONLY), set(PROCESS_OPTIONS))


class PagesTests(SynchronousTestCase):
    """What is generated from the table."""

    def test_up_to_date(self):
        """docs/options.md and the table in README.md are what `python -m tests.option_pages` writes."""
        page = (ROOT / "README.md").read_text(encoding="utf-8")
        self.assertEqual(readme(page), page)
        self.assertEqual((ROOT / "docs" / "options.md").read_text(encoding="utf-8"), options_page())
        # The comments around the table are there.
        self.assertNotEqual(readme(page.replace(OPTIONS[0].help, "")), page.replace(OPTIONS[0].help, ""))

    def test_restart_only(self):
        """README.md names the options that a reload cannot change."""
        page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
        names = [option.name for option in RESTART_ONLY]
        found = re.search("Changing ([^.]*), or the supervisor's code, takes a restart", page)
        assert found is not None
        self.assertEqual(re.findall("`(.*?)`", found[1]), names)

    def test_example_configuration(self):
        """etc/livestate.toml names every option, and what is not commented out in it is the default."""
        file = ROOT / "etc" / "livestate.toml"
        text = file.read_text(encoding="utf-8")
        named = set(re.findall("^#?([a-z0-9-]+) = ", text.partition("[[document]]")[0], re.MULTILINE))
        self.assertEqual(named, {option.name for option in FILE_OPTIONS} - {"source"})
        self.assertEqual(load_settings({}, str(file)), load_settings({}))
        tables = text[text.index("[[document]]") :]
        self.assertEqual(
            set(re.findall("^#?([a-z0-9-]+) = ", tables, re.MULTILINE)), {option.name for option in DOCUMENT_KEYS}
        )


class HelpTests(SynchronousTestCase):
    """The list of options in `--help`."""

    def test_complete(self):
        """Every option is there with its metavariable, its meaning and its default; nothing is torn apart."""
        shown = option_help({"version": "show it"}, 80)
        words = " ".join(shown.split())
        for option in OPTIONS:
            self.assertIn(f"\n  --{option.name}={option.metavar}", shown)
            self.assertIn(option.help[1:].replace("`", ""), words)
            if option.default or option.without:
                self.assertIn(f"[default: {option.default or option.without}", words)
        self.assertIn("\n  --version              Show it.\n", shown)

    def test_width(self):
        """Lines are as wide as the terminal, within reason; only what cannot be broken is wider."""
        for width, widest in ((10, 80), (60, 80), (80, 80), (100, 100), (500, 100)):
            lines = option_help({}, width).splitlines()
            self.assertLessEqual(max(map(len, lines)), widest)
        self.assertNotIn("\xa0", option_help({}, 80))
