"""Three nodes on one Redis behind HAProxy, as etc/haproxy-nodes.cfg has them, of which some are lost under load."""

import json
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from livestate.formats.event_stream import LAST_CHUNK
from livestate.formats.merge_patch import apply
from tests.integration.events import EventReader, document
from tests.integration.fronts import Front, Fronts
from tests.integration.http import Answer, get
from tests.integration.load import Load
from tests.integration.processes import TERMINATED, until
from tests.integration.servers import Livestate, RedisServer


class Follower:
    """A reader of events who comes back at once, with the id of the last, each time that a stream ends."""

    def __init__(self, case: SynchronousTestCase, front: Front) -> None:
        self.state: Any = None
        self.streams = 0
        self._case, self._front = case, front
        self._stop = threading.Event()
        case.addCleanup(self._stop.set)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        last = ""
        while not self._stop.is_set():
            fields: Any = {"Last_Event_ID": last} if last else {}
            before = self.state
            try:
                reader = EventReader(self._case, self._front, "/events?delta=merge", **fields)
                self.streams += 1
                # HAProxy keeps the connection when a stream has come to an orderly end.
                while not reader.received.endswith(LAST_CHUNK) and not self._stop.is_set() and reader.read():
                    state = before
                    for kind, last, data in reader.events():  # noqa: B007
                        value = json.loads(data)
                        state = apply(state, value) if kind == "patch" else value
                    self.state = state
            except OSError:
                pass
            self._stop.wait(0.1)


class NodesTests(SynchronousTestCase):
    """The three, and HAProxy."""

    def setUp(self) -> None:
        self.store, self.other_store = RedisServer(self), RedisServer(self)
        self.version = 0
        self.change()
        stores = self.store, self.store, self.other_store
        self.nodes = [
            Livestate(self, f"--source={store.url}?key=livestate&notify=changes", "--interval=0.2") for store in stores
        ]
        for node in self.nodes:
            node.until_served()
        fronts = Fronts(self)
        self.front = fronts.haproxy_of_nodes([int(node.http.rpartition(":")[2]) for node in self.nodes])
        until(lambda: self.get("/").status == 200, "HAProxy knows the nodes")

    def get(self, path: str, **fields: str) -> Answer:
        return get(self.front.http, path, **fields)

    def change(self) -> str:
        """Give both stores the next version, and tell of it."""
        self.version += 1
        text = document(self.version)
        for store in (self.store, self.other_store):
            store.set(text)
            store.command("PUBLISH", "changes", "")
        return text

    def answered(self, node: Livestate) -> int:
        """Give how many requests for the document a node has answered."""
        return sum(node.status()["answers"].values())

    def begin_load(self) -> list[Load]:
        """Begin to ask, over HTTP and HTTPS."""
        loads = [Load(self, self.front.http, 12).start(), Load(self, self.front.https, 4).start()]
        until(lambda: all(load.answers > 50 for load in loads), "load")
        return loads

    def failures(self, loads: list[Load]) -> list[Any]:
        """Give all requests that were not answered with a 200."""
        kinds = [kind for load in loads for kind in (load.lost, load.unaccepted, load.refused, load.wrong)]
        return [failure for kind in kinds for failure in kind]

    def until_converged(self, followers: list[Follower]) -> None:
        """Change the document, and wait until all who read events have it."""
        wanted = json.loads(self.change())
        until(lambda: all(follower.state == wanted for follower in followers), "the change reaches all")

    def test_a_node_is_lost(self) -> None:
        """`kill -9` of a node loses nothing but what it had under way, and a frozen one and SIGTERM lose nothing at
        all; readers of events come back; a node that returns is given requests again."""
        followers = [Follower(self, self.front) for _ in range(12)]
        self.until_converged(followers)
        streams = [node.status()["event_readers"] for node in self.nodes]
        self.assertEqual(streams, [4, 4, 4])
        loads = self.begin_load()
        killed, ended, frozen = self.nodes

        held = get(killed.admin, "/status").json()["connections"]
        killed.kill()
        answers = loads[0].answers
        until(lambda: loads[0].answers > answers + 500, "answers without it")
        failures = self.failures(loads)
        self.assertLessEqual(len(failures), held, failures)
        self.until_converged(followers)

        killed.start()
        until(lambda: self.answered(killed) > 100, "requests go to the node that returned")
        self.assertEqual(self.failures(loads), failures)

        frozen.freeze()
        answers = loads[0].answers
        # Soon all connections wait for it, until HAProxy asks another node, after three seconds.
        until(lambda: loads[0].answers > answers + 100, "answers in place of those of the frozen one")
        frozen.thaw()

        self.assertEqual(ended.stop(), TERMINATED)
        self.until_converged(followers)
        self.assertEqual(self.failures(loads), failures)
        for load in loads:
            load.stop()
        self.assertEqual(self.failures(loads), failures)
        self.assertTrue(all(follower.streams <= 3 for follower in followers))
        for node in self.nodes:
            self.assertNotIn("Traceback", node.log)

    def test_a_store_is_lost(self) -> None:
        """A node that alone is stale is left out; if all are, all serve what they have; and if none is there at all,
        readers of events are told to come back."""
        loads = self.begin_load()
        alone = self.nodes[2]
        self.other_store.stop()
        until(lambda: alone.get("/_live/ready").body == b"stale\n", "it is stale")

        def left_out() -> bool:
            before, answers = self.answered(alone), loads[0].answers
            # They are counted each second.
            time.sleep(1.2)
            return self.answered(alone) == before and loads[0].answers > answers + 100

        until(left_out, "others answer in its place")
        before = self.answered(alone)
        self.store.stop()
        until(lambda: self.answered(alone) > before + 100, "all serve")
        answer = self.get("/")
        self.assertEqual((answer.status, answer.json()["version"]), (200, self.version))
        reader = EventReader(self, self.front)
        reader.until_version(self.version)
        for load in loads:
            load.stop()
        self.assertEqual(self.failures(loads), [])

        for node in self.nodes:
            node.kill()
        self.assertEqual(self.get("/").status, 503)
        stream = self.get("/events", Accept="text/event-stream")
        self.assertEqual((stream.status, stream.body), (200, b"retry: 3000\n\n"))
        self.assertEqual((stream["Content-Type"], stream["Cache-Control"]), ("text/event-stream", "no-store"))
        self.assertEqual(stream["Access-Control-Allow-Origin"], "*")
