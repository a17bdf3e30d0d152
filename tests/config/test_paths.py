"""File names in the URLs of sources."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from livestate.config.paths import absolute_source, with_absolute_sources
from livestate.config.settings import load_settings


class AbsoluteSourceTests(SynchronousTestCase):
    """A working directory whose name has to be quoted in a URL."""

    def setUp(self):
        folder = Path(self.mktemp()).absolute() / "a b?#&%"
        folder.mkdir(parents=True)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        self.quoted = f"{folder.parent}/a%20b%3F%23%26%25"

    def test_relative(self):
        """A relative name gets the working directory in front of it, quoted, and stays as it was typed."""
        for url, expected in (
            ("file:a%20b.json", "file:CWD/a%20b.json"),
            ("FILE:./x/../a.json", "FILE:CWD/./x/../a.json"),
            ("file:{id}.json", "file:CWD/{id}.json"),
            ("rediss://:p@h/0?key=k&cafile=ca.pem", "rediss://:p@h/0?key=k&cafile=CWD/ca.pem"),
            ("rediss+cluster://a,[::1]:7/?cafile=x%20/ca.pem&key=k", "rediss+cluster://a,[::1]:7/?cafile=CWD/x%20/ca.pem&key=k"),
            ("rediss://h/?key=k&certfile=c.pem&keyfile=k.pem", "rediss://h/?key=k&certfile=CWD/c.pem&keyfile=CWD/k.pem"),
            ("mongodb://h/d?collection=c&TLSCAFile=ca.pem#x", "mongodb://h/d?collection=c&TLSCAFile=CWD/ca.pem#x"),
            ("mongodb://h/d?tlsCertificateKeyFile=k.pem", "mongodb://h/d?tlsCertificateKeyFile=CWD/k.pem"),
        ):  # fmt: skip
            self.assertEqual(absolute_source(url), expected.replace("CWD", self.quoted))

    def test_unchanged(self):
        """Absolute names, and what is no name of a file, stay as they are."""
        for url in (
            "file:/srv/a.json", "file:///srv/a.json", "file://localhost/a.json", "file:", "file:?x", "demo:", "demo:x?",
            "rediss://h/0?key=k&cafile=/etc/ca.pem", "rediss://h/0?key=k&cafile=%2Fetc%2Fca.pem",
            "rediss://h/0?key=cafile=x&cafile=", "redis://h/0?key=a.json", "http://h/a?cafile=ca.pem", "x", "",
        ):  # fmt: skip
            self.assertEqual(absolute_source(url), url)

    def test_settings(self):
        """The sources of all documents are made absolute, and once is enough."""
        settings = with_absolute_sources(load_settings({"source": ["/a=file:a.json", "/b=demo:"]}))
        self.assertEqual([document.source for document in settings.documents], [f"file:{self.quoted}/a.json", "demo:"])
        self.assertEqual(with_absolute_sources(settings), settings)
