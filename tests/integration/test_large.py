"""A document of 5 MB that changes each second: every answer is whole and of one version, in the coding it says."""

import json
import time
from collections.abc import Callable
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.codings import DECODERS
from tests.integration.http import Client
from tests.integration.load import Background
from tests.integration.processes import folder_for
from tests.integration.servers import Livestate, RedisServer
from tests.support import replace

SECONDS = 8


def large_document(version: int) -> str:
    """Give about 5 MB that say in the first, a middle and the last place which version they are."""
    place = {"name": "Alderbrook", "electorate": 56369, "leader": "Meadow", "votes": [15529, 4254, 9666, 5534, 4064]}
    places = [{**place, "electorate": version * 100_000 + number, "version": version} for number in range(47_000)]
    return json.dumps({"version": version, "places": places, "end": version}, separators=(",", ":"))


class LargeDocumentTests(SynchronousTestCase):
    """5 MB each second."""

    put: Callable[[str], object]

    def setUp(self):
        self.documents = [large_document(version) for version in range(SECONDS)]
        self.assertGreater(len(self.documents[0]), 4_500_000)
        self.answers: dict[str, dict[str, tuple[str, bytes]]] = {coding: {} for coding in DECODERS}
        self.wrong: list[str] = []
        self.etags = dict.fromkeys(DECODERS, "")

    def poll(self, client: Client, coding: str) -> None:
        """Store the response if it is a new one. Checking it happens later, because that would slow all others down."""
        etag = self.etags[coding]
        fields = {"Accept_Encoding": coding} | ({"If_None_Match": etag} if etag else {})
        answer = client.get(**fields)
        if answer.status == 200:
            self.etags[coding] = answer["ETag"]
            self.answers[coding][answer["ETag"]] = (answer["Content-Encoding"] or "identity", answer.body)
        elif answer.status != 304:
            self.wrong.append(f"{coding}: {answer.status}")

    def assert_whole(self) -> None:
        """See that everything that came is one of the versions."""
        self.assertEqual(self.wrong, [])
        published = {document.encode(): version for version, document in enumerate(self.documents)}
        for asked, answers in self.answers.items():
            for coding, body in answers.values():
                # While a coding is being made, the plain bytes are given.
                self.assertIn(coding, (asked, "identity"))
                self.assertIn(DECODERS[coding](body), published)
            self.assertGreater(len(answers), 2)

    def poll_while(self, service: Livestate, put: list[str]) -> None:
        """Read in every coding, over HTTP and HTTPS in turn, while something is done to the document."""
        clients = {coding: service.client(https=index % 2 == 1) for index, coding in enumerate(DECODERS)}
        polls = [partial(self.poll, client, coding) for coding, client in clients.items()]
        polling = Background(self, *polls, pause=0.05)
        for document in put[1:]:
            self.put(document)
            time.sleep(1)
        time.sleep(2)
        polling.stop()
        for client in clients.values():
            client.close()
        # A reader who has the plain bytes of a version keeps them: those who have nothing show that each coding is made.
        for coding in DECODERS:
            answer = service.get(Accept_Encoding=coding)
            self.assertEqual(answer["Content-Encoding"] or "identity", coding)
            self.answers[coding][answer["ETag"]] = (coding, answer.body)
        self.assert_whole()

    def test_from_redis(self):
        """From Redis."""
        store = RedisServer(self)
        self.put = store.set
        self.put(self.documents[0])
        service = Livestate(self, f"--source={store.url}", https="")
        service.until_served()
        self.poll_while(service, self.documents)

    def test_from_a_file(self):
        """From a file, with a folder to save it in."""
        folder = folder_for(self)

        def put(document: str) -> None:
            replace(folder / "large.json", document)

        self.put = put
        self.put(self.documents[0])
        service = Livestate(self, f"--source=file:{folder}/large.json", f"--state-dir={folder}/state", https="")
        service.until_served()
        self.poll_while(service, self.documents)
        self.assertEqual(service.about(), [])
        service.stop()
        [saved] = (folder / "state").iterdir()
        self.assertIn(self.documents[-1].encode(), saved.read_bytes())
