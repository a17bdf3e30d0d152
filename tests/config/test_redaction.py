"""Tests of redaction: secrets in a URL are hidden, and the rest can be read."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from livestate.config.redaction import holds_secret, redacted
from tests.support import many

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@"), min_size=1, max_size=9)
#: Secrets that can be part of a query.
PARAMETERS = SECRETS.filter(lambda text: not {"&", "#"} & set(text))


class RedactionTests(SynchronousTestCase):
    """`redacted`."""

    @many
    @given(
        st.sampled_from(["", "/results.json=", "--source=", "'"]),
        st.sampled_from(["http://", "redis://", "rediss://", "mongodb://", "redis:/", "redis:", "postgres:///"]),
        st.sampled_from(["me", ""]),
        SECRETS,
        st.sampled_from(["", "0", "x?key=a"]),
    )
    def test_password(self, before, scheme, user, password, rest):
        """A password is hidden, escaped or not, also in a malformed URL; user and host are shown."""
        secret = f"S{password}S"
        shown = redacted(f"{before}{scheme}{user}:{secret}@host:1/{rest}")
        self.assertNotIn(secret, shown)
        self.assertIn(f"{scheme}{user}:***@host:1/", shown)

    @many
    @given(
        st.sampled_from(["http://h/", "https://me:hush@h:1/x", "HTTP://h"]),
        st.sampled_from(["key", "api_key", "X-Api-Key", "sig", "X-Amz-Signature", "access_token", "code", "Password"]),
        PARAMETERS,
    )
    def test_parameters(self, url, name, value):
        """The value of a parameter with the name of a secret is hidden."""
        secret = f"S{value}S"
        for text in (f"{url}?{name}={secret}", f"{url}?a=1&{name}={secret}&b=2", f"{url}?a=1#{name}={secret}"):
            self.assertNotIn(secret, redacted(text))
            self.assertIn(f"{name}=***", redacted(text))

    def test_tokens(self):
        """A user without a password may be a token, and is hidden."""
        for url in ("https://sk_live@h/x", "https://sk_live:@h/x", "redis://sk_live@h/0"):
            self.assertNotIn("sk_live", redacted(url))
            self.assertIn("***@h/", redacted(url))

    def test_within_text(self):
        """A password in a URL within other text is hidden as well."""
        for text in ("{'url': 'redis://:hush@h/0'}", "['redis://:hush@h']", "me:hush@h", "/redis://:hush@h/0?key"):
            self.assertNotIn("hush", redacted(text))

    def test_unchanged(self):
        """A URL without a secret is shown unchanged."""
        for url in (
            "redis://127.0.0.1:6379/0?key=livestate",
            "redis://host/0?key=live@state",
            "file:/srv/a@b.json",
            "file:///srv/a:c@b.json",
            "mongodb://a:1,b:2/db?collection=c",
            "http://h:80/x?m=n",
            "http://h/x?mail=a@b",
            "demo:",
            "nonsense",
            "",
        ):
            self.assertEqual(redacted(url), url)
            self.assertFalse(holds_secret(url))
        self.assertTrue(holds_secret("redis://:hush@h"))
