"""What a fuzzer's bytes are as the URL of a source: a source, or a SettingsError of one line, and no secret shown."""

import contextlib
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.python.reflect import namedAny

from livestate.config.settings import load_settings
from livestate.errors import SettingsError
from livestate.sources.factory import SCHEMES, make_source
from tests.support import FakeReactor

for _name in SCHEMES.values():
    # Now, while the fuzzer looks at what is imported.
    namedAny(_name)

#: What a fuzzer finds slowly by itself.
WORDS = (
    *(f"{scheme}:".encode() for scheme in SCHEMES),
    b"//", b"@", b"[::1]", b"?key=", b"&notify=", b"keyspace", b"changes", b"&cafile=", b"?collection=", b"&query=", b"{}",
    b"%00", b"%2f", b"&db=", b"&seed=", b":6379", b"/0", b"user:secret@", b"?password=", b"#", b"localhost", b"127.0.0.1",
    b"&tls=true", b"&authMechanism=", b"&replicaSet=", b"&readPreference=", b"{\"$oid\":\"", b"\xc3\xa9", b"?service=",
    b"&w=", b"&connectTimeoutMS=", b",", b"xn--", b"\xe2\x84\x80", b"\\", b"..", b"/path/to.sock",
)  # fmt: skip


def check(data: bytes) -> None:
    """Make a source of one input, if it is one.

    :raises AssertionError: a refusal has several lines, or the password is shown.
    """
    url = data.decode("utf-8", "surrogateescape")
    try:
        for option in (url, f"/a={url}"):
            settings = load_settings({"source": [option]})
        [wanted] = settings.documents
        source: Any = make_source(FakeReactor(), wanted.source, 1 << 20)
    except SettingsError as error:
        shown = str(error)
        assert len(shown.splitlines()) == 1, shown
    else:
        shown = str(source)
        source.close()
        _see_no_password(url, shown)


def _see_no_password(url: str, shown: str) -> None:
    """See that a password that stands where one belongs is not shown, unless it is there for another reason."""
    with contextlib.suppress(ValueError):
        password = urlsplit(url).password
        if password and len(password) > 3 and unquote(url).count(unquote(password)) == 1:
            assert password not in shown, shown
