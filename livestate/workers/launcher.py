"""The zygote process, as the supervisor sees it."""

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

from livestate.workers.setup import CONTROL_FD, Setup

#: Seconds that a zygote has to exit before it is killed.
STOP_TIMEOUT = 5.0


class Launcher(ProcessProtocol):
    """Starts, instructs and stops one zygote."""

    log = Logger()

    transport: Any

    def __init__(self, reactor: Any, on_exit: Callable[["Launcher"], None]) -> None:
        """:param on_exit: called when the zygote exits without having been stopped."""
        self._reactor = reactor
        self._on_exit = on_exit
        #: None before the start and after the stop.
        self._control: socket.socket | None = None
        self._exited: Deferred[None] = Deferred()
        self._partial_line = b""

    def start(self, setup: Setup) -> None:
        """Start a zygote whose workers are configured by `setup`."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r", CONTROL_FD: theirs.fileno()}
        # The zygote runs in "/": in the current folder, a module of the user's might shadow one of the library's.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
        arguments = [sys.executable, "-m", "livestate.workers.zygote"]
        self._reactor.spawnProcess(self, sys.executable, arguments, environment, "/", childFDs=descriptors)
        theirs.close()
        self.transport.write(setup.to_json())
        self.transport.closeStdin()

    def fork(self, number: int, pipe: socket.socket, listening: Sequence[socket.socket]) -> bool:
        """Ask the zygote to fork worker `number`; return whether the request was sent.

        The zygote keeps none of the sockets open, so that the last process to close a listening socket is the one that
        accepts from it.

        :param pipe: the worker's end of its pipe.
        :param listening: the sockets that it accepts from, in the order of the Setup's ports.
        """
        if self._control is None:
            return False
        try:
            socket.send_fds(self._control, [b"%d" % number], [sock.fileno() for sock in (pipe, *listening)])
        except OSError:  # the zygote has exited, or hangs and reads nothing
            return False
        return True

    def stop(self) -> Deferred[None]:
        """Stop the zygote, which kills its workers; fire once it has exited."""
        self._close()
        if self.transport is None or self.transport.pid is None:
            return succeed(None)
        timeout = self._reactor.callLater(STOP_TIMEOUT, self.kill)
        return self._exited.addCallback(lambda _: timeout.cancel() if timeout.active() else None)

    def kill(self) -> None:
        """Kill the zygote."""
        if self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Log what the zygote or a worker prints, as warnings: it is hardly ever anything but an error."""
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            self.log.warn("{line}", line=line.decode("utf-8", "backslashreplace"))

    errReceived = outReceived

    def processExited(self, reason: Failure) -> None:
        """Handle the exit of the zygote. Workers may still have its standard error open."""
        expected = self._control is None
        self._close()
        if not expected:
            how = "" if reason.check(ProcessDone) else f": {reason.getErrorMessage()}"
            self.log.error("the process that forks workers (the zygote) exited{how}; starting another", how=how)
        self._exited.callback(None)
        if not expected:
            self._on_exit(self)

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
