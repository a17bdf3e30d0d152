"""Tests of the options on the command line and in TOML files."""

import json
import os
from datetime import date, datetime, time, timezone
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.options import DEFAULT_SOURCE, FILE_OPTIONS
from livestate.config.settings import DocumentSettings, Settings, load_settings
from livestate.errors import SettingsError
from tests.support import few, many

NAMES = sorted(option.name for option in FILE_OPTIONS)
REPEATING = ("http", "https", "source", "cors-origin", "admin-host")

words = st.one_of(
    st.text(max_size=12),
    st.sampled_from([
        "", "0", "1.5", "-1", "1e999", "nan", "inf", "1_0", "tcp:8080", "ssl:8443", "redis://h/0?key=a", "/a=demo:",
        "/a", "=", "/=", "/_live=demo:", "*", "null", "https://a.example", "://", "9" * 400, "\n", "\x00", "\udc80",
    ]),
)  # fmt: skip
command_lines = st.dictionaries(st.sampled_from(NAMES), st.lists(words, min_size=1, max_size=3), max_size=4)

scalars = st.one_of(
    words,
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63]),
    st.floats(),
    st.just(date(2026, 1, 2)),
    st.just(time(3, 4)),
    st.just(datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)),
)
toml_values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=2), max_leaves=4
)
tables = st.dictionaries(st.sampled_from(["path", "source", "interval", "max-stale", "nonsense"]), toml_values)
toml_files = st.dictionaries(st.sampled_from([*NAMES, "document", "nonsense"]), toml_values, max_size=4)


def toml(value):
    """Return a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(item)}" for name, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class SettingsTests(SynchronousTestCase):
    """The settings that result from the options."""

    def config(self, text):
        """Write a configuration file and return its name."""
        path = Path(self.mktemp())
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return str(path)

    def refusal(self, command_line, config=None):
        """Load options that must be rejected, and return the reason."""
        text = str(self.assertRaises(SettingsError, load_settings, command_line, config))
        self.assertEqual(len(text.splitlines()), 1, text)
        return text

    def assert_settings_or_one_line(self, command_line, config=None):
        """Assert that the options are accepted or rejected with one line, and that nothing else is raised."""
        try:
            settings = load_settings(command_line, config)
        except SettingsError as error:
            self.assertEqual(len(str(error).splitlines()), 1, str(error))
            return
        self.assertTrue(settings.http or settings.https)
        paths = [path for document in settings.documents for path in (document.path, document.events_path)]
        self.assertEqual(len(paths), len(set(paths)))
        for document in settings.documents:
            self.assertTrue(document.path.startswith("/") and not document.path.startswith("/_live/"))
            self.assertTrue(0.05 <= document.interval <= 86400)
            self.assertTrue(document.max_stale is None or document.max_stale >= 1)
        self.assertTrue(1 <= settings.max_size <= 2**30)

    def test_defaults(self):
        """Without options, a Redis key is served at / over plain HTTP, and the admin site on loopback."""
        expected = Settings(
            http=("tcp:8080",),
            https=(),
            admin="tcp:9180:interface=127.0.0.1",
            documents=(DocumentSettings("/", DEFAULT_SOURCE, 1.0, None),),
            cors_origins=("*",),
            max_size=16 * 1024 * 1024,
            state_dir=None,
            access_log=None,
            heartbeat=15.0,
            log_format="text",
            workers=1,
            max_connections=None,
            max_connections_per_address=None,
            ipv6_prefix_length=64,
            admin_hosts=(),
        )
        self.assertEqual(load_settings({}), expected)

    @many
    @given(command_lines)
    def test_any_command_line(self, command_line):
        """Any command line is accepted, or rejected with one line."""
        self.assert_settings_or_one_line(command_line)

    @many
    @given(toml_files, command_lines)
    @example({"interval": []}, {})
    @example({"admin": []}, {})
    @example({"http": [[]]}, {})
    @example({"interval": 10**400}, {})
    def test_any_toml(self, values, command_line):
        """Any content of the file is accepted, or rejected with one line."""
        text = "\n".join(f"{name} = {toml(value)}" for name, value in values.items())
        self.assert_settings_or_one_line(command_line, self.config(text))

    @many
    @given(st.lists(tables, min_size=1, max_size=3))
    def test_any_document_tables(self, documents):
        """Any content of a [[document]] table is accepted, or rejected with one line."""
        text = "\n".join(
            "[[document]]\n" + "\n".join(f"{name} = {toml(value)}" for name, value in table.items())
            for table in documents
        )
        self.assert_settings_or_one_line({}, self.config(text))

    @few
    @given(st.binary(max_size=60))
    def test_any_file(self, content):
        """A file of any bytes is accepted, or rejected with one line."""
        self.assert_settings_or_one_line({}, self.config(content))

    def test_hostile_files(self):
        """Nesting and numbers beyond the limits of the TOML parser are rejected with one line."""
        for content in ("interval = " + "[" * 100_000, "interval = " + "9" * 5000, "interval = 0x" + "f" * 5000):
            self.refusal({}, self.config(content))

    def test_no_secret_in_refusals(self):
        """No rejection repeats the password in a mistyped URL."""
        for text in (
            "/redis://:hush@h/0", "/redis://:hush@h/0?key=a", "/redis://:hu=hush@h", "/a b=redis://:hush@h", "redis://:hush@h\n",
            "/_live/x=redis://:hush@h", "/redis://me:hush@h/0?key=a\x00",
        ):  # fmt: skip
            self.assertNotIn("hush", self.refusal({"source": [text]}), text)
        for text in (
            'source = {url = "redis://:hush@h"}', 'source = [{a = "redis://:hush@h"}]', 'source = "redis://:hush@h',
            '[[document]]\nsource = ["redis://:hush@h", 1]', '[[document]]\n"redis://:hush@h" = 1', 'admin = ["redis://:hush@h", 1]',
            'interval = "redis://:hush@h"', 'cors-origin = "https://me:hush@h/"', '"redis://:hush@h" = 1',
            '[[document]]\npath = "redis://:hush@h"\nsource = "demo:"',
        ):  # fmt: skip
            self.assertNotIn("hush", self.refusal({}, self.config(text)), text)

    def test_command_line_wins(self):
        """An option on the command line replaces the one in the file; --source replaces the document tables."""
        config = self.config(
            'http = ["tcp:1", "tcp:2"]\nhttps = "ssl:3"\nadmin = "tcp:4"\ninterval = 2\nmax-stale = 10\n'
            'max-size = 100\ncors-origin = ["https://a.example"]\n'
            '[[document]]\npath = "/file"\nsource = "demo:"\n'
        )
        from_file = load_settings({}, config)
        self.assertEqual(from_file.http, ("tcp:1", "tcp:2"))
        self.assertEqual(from_file.https, ("ssl:3",))
        self.assertEqual(from_file.documents, (DocumentSettings("/file", "demo:", 2.0, 10.0),))
        self.assertEqual((from_file.max_size, from_file.cors_origins), (100, ("https://a.example",)))
        typed = load_settings(
            {"http": ["tcp:9"], "admin": [""], "interval": ["3"], "source": ["/typed=demo:?seed=2"]}, config
        )
        self.assertEqual(typed.http, ("tcp:9",))
        self.assertIsNone(typed.admin)
        self.assertEqual(typed.https, ("ssl:3",))
        self.assertEqual(typed.documents, (DocumentSettings("/typed", "demo:?seed=2", 3.0, 10.0),))

    @few
    @given(
        st.sampled_from(["interval", "max-stale", "max-size", "heartbeat"]), st.integers(1, 1000), st.integers(1, 1000)
    )
    def test_typed_number_wins(self, name, typed, filed):
        """A number on the command line overrides the one in the file, and the last of several counts."""
        config = self.config(f"{name} = {filed}\n")
        attribute = name.replace("-", "_")

        def value_of(settings):
            return getattr(settings if name in ("max-size", "heartbeat") else settings.documents[0], attribute)

        self.assertEqual(value_of(load_settings({name: [str(filed), str(typed)]}, config)), typed)
        self.assertEqual(value_of(load_settings({}, config)), filed)

    def test_tables_override_defaults(self):
        """A [[document]] table may set its own interval and max-stale; the defaults are those of the file."""
        config = self.config(
            'interval = 2\n[[document]]\npath="/a"\nsource="demo:"\n'
            '[[document]]\npath="/b"\nsource="file:b.json"\ninterval=0.5\nmax-stale=60\n'
        )
        self.assertEqual(
            load_settings({}, config).documents,
            (DocumentSettings("/a", "demo:", 2.0, None), DocumentSettings("/b", "file:b.json", 0.5, 60.0)),
        )

    def test_workers(self):
        """`workers` is a number, or auto for the number of usable cores; `max-connections` takes auto too."""
        self.assertEqual(load_settings({"workers": ["3"]}).workers, 3)
        self.assertEqual(load_settings({"max-connections": ["3"]}).max_connections, 3)
        self.assertIsNone(load_settings({"max-connections": ["auto"]}).max_connections)
        self.assertEqual(load_settings({"workers": ["auto"]}).workers, len(os.sched_getaffinity(0)))

    def test_source_forms(self):
        """A source is URL, served at /, or PATH=URL; further = signs belong to the URL."""
        for text, path, source in (
            ("redis://h/0?key=a", "/", "redis://h/0?key=a"),
            ("/a=redis://h/0?key=a", "/a", "redis://h/0?key=a"),
            ("/a/b.json=file:/srv/x=y", "/a/b.json", "file:/srv/x=y"),
        ):
            (document,) = load_settings({"source": [text]}).documents
            self.assertEqual((document.path, document.source), (path, source))

    def test_events_path(self):
        """The path of an event stream is below that of its document, with or without a trailing slash."""
        for path, events in (("/", "/events"), ("/a.json", "/a.json/events"), ("/a/", "/a/events")):
            self.assertEqual(DocumentSettings(path, "demo:", 1.0, None).events_path, events)

    def test_clashes(self):
        """Two documents, or a document and an event stream, cannot have the same path."""
        for sources in (
            ["demo:", "demo:"],
            ["/a=demo:", "/a=file:a"],
            ["demo:", "/events=demo:"],
            ["/events=demo:", "demo:"],
            ["/a=demo:", "/a/events=demo:"],
            ["/a=demo:", "/a/=demo:"],
        ):
            self.assertIn("already", self.refusal({"source": sources}), sources)

    def test_paths_refused(self):
        """Reserved paths, and paths that a client could not request literally, are rejected."""
        for path in ("/_live", "/_live/", "/_live/x", "//", "/a//b", "/a/..", "/./a", "/a b", "/ä", "/a%20b", "/a?b", "/a#b",
                     "/a\\b", "/a\tb", "/a\n"):  # fmt: skip
            self.assertIn("--source", self.refusal({"source": [f"{path}=demo:"]}), path)
        load_settings({"source": ["/_lively=demo:"]})

    def test_refusals_name_the_option(self):
        """Each rejection names the option as typed, and says what was expected."""
        for name, value, expected in (
            ("interval", "fast", "seconds from 0.05 to 86400"),
            ("interval", "0", "seconds from 0.05"),
            ("interval", "nan", "seconds from 0.05"),
            ("max-stale", "0.5", "seconds from 1"),
            ("heartbeat", "0.5", "seconds from 1"),
            ("heartbeat", "0", "seconds from 1"),
            ("max-connections", "0", "auto, or a number from 1"),
            ("max-connections", "many", "auto, or a number from 1"),
            ("max-connections", "1.5", "a whole number"),
            ("max-connections-per-address", "0", "a number from 1"),
            ("max-connections-per-address", "auto", "a number from 1"),
            ("ipv6-prefix-length", "129", "bits from 1 to 128"),
            ("workers", "0", "auto, or a number from 1 to 1024"),
            ("workers", "many", "auto, or a number from 1"),
            ("workers", "2.5", "a whole number"),
            ("log-format", "xml", "expected text or json"),
            ("max-size", "2e9", "bytes from 1"),
            ("admin-host", "live.example:9180", "without a port"),
            ("admin-host", "http://live.example", "without a port"),
            ("admin-host", "", "without a port"),
            ("cors-origin", "example.org", "such as https://example.org"),
            ("cors-origin", "https://example.org/", "without a path"),
            ("source", "results.json", "expected a URL"),
            ("source", "/srv/results.json", "file:/srv/results.json"),
            ("state-dir", "", "expected a file name"),
        ):
            text = self.refusal({name: [value]})
            self.assertIn(f"--{name}", text)
            self.assertIn(expected, text)

    def test_line_ends(self):
        """A value that contains a line end of any kind is rejected."""
        for end in ("\n", "\r", "\r\n", "\f", "\v", "\x1c", "\x85", "\u2028"):
            for value in (f"http://h/{end}", f"http://h/{end}x", f"{end}http://h/"):
                self.assertIn("a single line", self.refusal({"source": [value]}))

    def test_no_listener(self):
        """HTTP can be off if HTTPS is on, but not both."""
        self.assertIn("both off", self.refusal({"http": [""]}))
        settings = load_settings({"http": [""], "https": ["ssl:8443"]})
        self.assertEqual((settings.http, settings.https), ((), ("ssl:8443",)))

    def test_unknown_names(self):
        """An unknown name in the file is rejected, and the known names are listed."""
        self.assertIn("max-stale", self.refusal({}, self.config("max-stail = 3")))
        text = self.refusal({}, self.config('[[document]]\nsource="demo:"\nintervall=1'))
        self.assertIn("'intervall'", text)
        self.assertIn("no source", self.refusal({}, self.config('[[document]]\npath="/a"')))
        self.assertIn("[[document]]", self.refusal({}, self.config('[document]\nsource="demo:"')))

    def test_no_file(self):
        """A file that cannot be read is rejected with its name and the reason."""
        self.assertIn("No such file", self.refusal({}, "missing.toml"))
        self.assertIn("directory", self.refusal({}, "."))

    def test_file_names(self):
        """File names are relative to the directory in which they were typed, since a daemon changes its own later."""
        settings = load_settings({"state-dir": ["state"], "access-log": ["/var/log/x"]})
        self.assertEqual(settings.state_dir, Path.cwd() / "state")
        self.assertEqual(settings.access_log, Path("/var/log/x"))
