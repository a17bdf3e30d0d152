"""Reading a document of livestate, live, from Python.

    async with watch("https://live.example/results.json") as states:
        async for state in states:
            print(state.version, state.value)

The document comes as server-sent events, with merge patches for what changed. Where there are none, or they do not get
through, it is asked for with requests that the server holds until there is news, and where it does not hold them, each
second. A server that cannot be reached is asked again for ever, with growing and jittered pauses. Certificates are
verified.
"""

from livestate.client.state import State, Status
from livestate.client.watch import Watch, subscribe, watch
from livestate.errors import WatchError

__all__ = ["State", "Status", "Watch", "WatchError", "subscribe", "watch"]
