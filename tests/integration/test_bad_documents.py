"""A key in a real Redis that is gone, or holds what is not to be served."""

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.servers import Livestate, RedisServer


class BadDocumentTests(SynchronousTestCase):
    """A Redis that answers with something that is not to be served."""

    def setUp(self):
        self.store = RedisServer(self)
        self.store.set('{"n":1}')
        self.service = Livestate(self, f"--source={self.store.url}", "--interval=0.5", "--max-size=1000")
        self.service.until_served()

    def assert_kept_and_mended(self, *words: str, refused: bool = False) -> None:
        """See that the last good document stays, that one line says why, and that a good one ends it."""
        before = self.service.status()
        status = self.service.until_status(failures=lambda n: n >= before["failures"] + 3)
        if refused:
            self.assertGreaterEqual(status["refusals"], 3)
        for word in words:
            self.assertIn(word, status["trouble"])
        answer = self.service.get()
        self.assertEqual((answer.status, answer.body), (200, b'{"n":1}'))
        [line] = self.service.about()
        self.assertIn(status["trouble"], line)
        self.store.command("DEL", "livestate")
        self.store.set('{"n":2}')
        self.service.until_body(b'{"n":2}')
        self.assertIsNone(self.service.status()["trouble"])

    def test_wrong_type(self):
        """A key that holds a list."""
        self.store.command("DEL", "livestate")
        self.service.until_status(trouble=bool)
        self.store.command("RPUSH", "livestate", "a")
        self.service.until_status(trouble=lambda text: text and "WRONGTYPE" in text)
        self.store.command("SET", "livestate", '{"n":2}')
        self.service.until_body(b'{"n":2}')
        self.assertEqual(len(self.service.about()), 3, self.service.about())
        self.assertEqual(self.service.get().status, 200)

    def test_missing(self):
        """A key that is gone."""
        self.store.command("DEL", "livestate")
        self.assert_kept_and_mended("no such key: 'livestate'")

    def test_not_json(self):
        """A value that is cut off."""
        self.store.set('{"n":')
        self.assert_kept_and_mended(refused=True)

    def test_not_utf8(self):
        """A value in Latin-1."""
        self.store.set(b'"caf\xe9"')
        self.assert_kept_and_mended("not UTF-8", refused=True)

    def test_too_large(self):
        """A value beyond --max-size, which is not even read."""
        self.store.set(json.dumps("x" * 2000))
        self.assert_kept_and_mended("2,002 bytes", "--max-size is 1,000")

    def test_each_change_is_one_line(self):
        """Each other trouble is a line of its own, and its end another."""
        for value in ("{", "[1]]", "true false"):
            failures = self.service.status()["failures"]
            self.store.set(value)
            self.service.until_status(failures=lambda n, least=failures: n >= least + 3)
        self.store.set('{"n":3}')
        self.service.until_body(b'{"n":3}')
        self.assertEqual(len(self.service.about()), 4, self.service.about())
