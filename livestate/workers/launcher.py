"""The zygote as the supervisor sees it."""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from livestate.workers.setup import CONTROL, Setup

#: Seconds until a zygote that was told to end is killed.
PATIENCE = 5.0


class Launcher(ProcessProtocol):
    """One zygote process, from its start to its end."""

    log = Logger()

    transport: Any

    def __init__(self, reactor: Any, on_end: Callable[["Launcher"], None]) -> None:
        """:param on_end: called if it ends without having been told to."""
        self._reactor = reactor
        self._on_end = on_end
        self._control: socket.socket | None = None
        self._ended: Deferred[None] = Deferred()
        self._line = b""

    def start(self, setup: Setup) -> None:
        """Start it, to fork workers that are made as `setup` says."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r", CONTROL: theirs.fileno()}
        # In a folder of its own choice, a module of the user's might stand in place of one of the library's.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
        arguments = [sys.executable, "-m", "livestate.workers.zygote"]
        self._reactor.spawnProcess(self, sys.executable, arguments, environment, "/", childFDs=descriptors)
        theirs.close()
        self.transport.write(setup.to_json())
        self.transport.closeStdin()

    def fork(self, number: int, end: socket.socket, listening: Sequence[socket.socket]) -> bool:
        """Have worker `number` forked; tells whether that could be asked for.

        The zygote keeps none of the sockets: the last who closes one that listens is to be the one who accepts from it.

        :param end: its end of a pipe.
        :param listening: what it accepts from, in the order of the Setup's ports.
        """
        if self._control is None:
            return False
        try:
            socket.send_fds(self._control, [b"%d" % number], [sock.fileno() for sock in (end, *listening)])
        except OSError:  # it is gone, or so stuck that it reads nothing
            return False
        return True

    def stop(self) -> Deferred[None]:
        """Have it end, and its workers killed; done when it has."""
        self._close()
        if self.transport is None or self.transport.pid is None:
            return succeed(None)
        late = self._reactor.callLater(PATIENCE, self.kill)
        return self._ended.addCallback(lambda _: late.cancel() if late.active() else None)

    def kill(self) -> None:
        """End it at once."""
        if self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Log what it or a worker prints: there is hardly anything but what went wrong."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self.log.warn("{line}", line=line.decode("utf-8", "backslashreplace"))

    errReceived = outReceived

    def processExited(self, reason: Failure) -> None:
        """Note its end; workers may still have its standard error."""
        wanted = self._control is None
        self._close()
        if not wanted:
            how = "" if reason.check(ProcessDone) else f": {reason.getErrorMessage()}"
            self.log.error("the process that forks the workers has ended{how}; starting another", how=how)
        self._ended.callback(None)
        if not wanted:
            self._on_end(self)

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
