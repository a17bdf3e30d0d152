"""Follow a livestate document from Python.

    async with watch("https://live.example/results.json") as states:
        async for state in states:
            print(state.version, state.value)

The document arrives as server-sent events, with merge patches for changes. If the server has no event stream, or the
stream does not get through, the client long-polls, and if the server does not hold requests, it polls every second. An
unreachable server is retried indefinitely with growing, jittered delays. Certificates are verified.
"""

from livestate.client.state import State, Status
from livestate.client.watch import Watch, subscribe, watch
from livestate.errors import WatchError

__all__ = ["State", "Status", "Watch", "WatchError", "subscribe", "watch"]
