"""Source URLs: each is either accepted or refused, and no message shows a secret in one."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from livestate.errors import SettingsError, SourceError
from livestate.sources.factory import make_source
from livestate.sources.http.source import HTTPSource
from tests.support import many


class URLTests(SynchronousTestCase):
    """Making a source from a URL."""

    def test_unknown_host(self):
        """A host name that cannot be resolved raises SourceError."""
        clock: Any = MemoryReactorClock()

        class Resolver:
            def resolveHostName(self, receiver, *args, **kwargs):
                receiver.resolutionBegan(self)
                receiver.resolutionComplete()
                return receiver

        clock.nameResolver = Resolver()
        source = HTTPSource(clock, "http://nowhere.example/", 100)
        fetching = Deferred.fromCoroutine(source.fetch())
        error = self.failureResultOf(fetching, SourceError).value
        self.assertNotIsInstance(error, DNSLookupError)
        self.assertIn("nowhere.example", str(error))

    def test_no_host_name(self):
        """A fetch from Redis at an invalid host name raises SourceError."""
        for host in ("a..b", "-a-", "a" * 70, "a_b"):
            source = make_source(MemoryReactorClock(), f"redis://{host}/0", 100)
            fetching = Deferred.fromCoroutine(source.fetch())
            self.assertIn("invalid hostname", str(self.failureResultOf(fetching, SourceError).value))

    def test_wrong_urls(self):
        """A URL without a host, or with an invalid port, is refused without showing its password."""
        for url in ("http:", "http://", "http:///x", "http://:80/", "http://[::1", "http://h:x/", "http://h:99999/",
                    "http://me:hush/hush@h/", "http://me:hush?hush@h/", "http://me:hush#hush@h/"):  # fmt: skip
            error = self.assertRaises(SettingsError, make_source, MemoryReactorClock(), url, 100)
            self.assertNotIn("hush", str(error))
            self.assertIn("--source", str(error))

    @many
    @given(st.sampled_from(["http://", "https://", "http:", "redis://", "rediss://", "redis+unix://", "demo:", "nonsense:", ""]),
           st.text(st.sampled_from("ab:/?#[]@%&=*.0123é \n\t\x00-"), max_size=14))  # fmt: skip
    def test_any_url(self, scheme, rest):
        """Any URL either makes a source or raises SettingsError."""
        try:
            str(make_source(MemoryReactorClock(), scheme + rest, 100))
        except SettingsError:
            pass

    def test_one_line(self):
        """An error message is one line, even if the URL has percent-encoded line breaks."""
        for url in ("rediss://h/1?cafile=no%0afile", "rediss://h/1?cafile=no%0cfile", "rediss://h/1?cafile=%e2%80%a8"):
            error = self.assertRaises(SettingsError, make_source, MemoryReactorClock(), url, 100)
            self.assertEqual(len(str(error).splitlines()), 1, str(error))
