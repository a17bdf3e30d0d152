"""Telling a service manager how it goes: systemd's notify protocol (sd_notify(3)).

A service that systemd starts with `Type=notify` finds the name of a Unix datagram socket in its environment, and sends
lines of `NAME=VALUE` there:

    READY=1      all that serve do, and each source was asked: it has what they gave, or knows why they gave nothing
    STATUS=      one line for a person, which `systemctl status` shows
    WATCHDOG=1   the reactor turns; sent by the reactor itself, so that one that is blocked sends none and is replaced
    RELOADING=1, then READY=1   what SIGHUP or SIGUSR2 asks for has begun, and is served or was refused
    STOPPING=1   it comes to its end

Without that socket nothing is sent, and nothing else is different.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

#: Seconds between two looks at whether it is ready; what waits for it to start does not feel them.
_LOOK = 0.1

#: Seconds after which a start is long enough for the status to say what it waits for.
LONG = 1.0

#: Seconds between two looks at the status: each new one wakes all that listen to systemd's bus.
_STATUS = 10.0

#: Seconds until a full socket is tried again.
_RETRY = 0.1


@dataclass(frozen=True)
class ServiceManager:
    """Where a service manager listens, and what it asks for."""

    #: A path, or a name in the abstract namespace behind a NUL; "" where there is no manager.
    address: str = ""
    #: Seconds within which it wants to hear that the reactor turns; 0: it does not ask.
    watchdog: float = 0.0

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str], pid: int) -> "ServiceManager":
        """Understand the environment, and take out of it what is for process `pid` alone and not for its children.

        An address of a kind that is not known here, such as `vsock:`, counts as none.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, wanted = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if address.startswith("@"):
            address = "\0" + address[1:]
        elif not address.startswith("/"):
            return cls()
        ours = usec.isdecimal() and wanted in ("", str(pid))
        return cls(address, int(usec) / 1e6 if ours else 0.0)


class SystemdNotifier(Service):
    """Tells a Manager how it goes, from the start of the service to the end of the process.

    It is to be the last of its parent's parts, which are started in order, and stopped in the opposite one.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, manager: ServiceManager, is_ready: Callable[[], bool], status: Callable[[], str]
    ) -> None:
        """:param is_ready: tells whether the start is over.
        :param status: gives the line for a person.
        """
        self._reactor = reactor
        self._manager = manager
        self._is_ready = is_ready
        self._status = status
        self._socket: socket.socket | None = None
        self._unsent: deque[bytes] = deque()
        self._trouble = False
        self._said = ""
        self._began = 0.0
        self._reloads = 0
        self._looks = self._loop(self._look)
        self._reports = self._loop(self._report)
        self._watchdog = self._loop(self._beat)

    def startService(self) -> None:
        """Be ready as soon as that is so; from now on say that the reactor turns."""
        super().startService()
        if not self._manager.address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._began = self._reactor.seconds()
        # Not at once: the reactor is to turn first.
        self._looks.start(_LOOK, now=False)
        if self._manager.watchdog:
            self._watchdog.start(self._manager.watchdog / 2, now=False)

    def stopService(self) -> None:
        """Say that the end has begun. The watchdog goes on: readers are still being sent off."""
        super().stopService()
        for loop in (self._looks, self._reports):
            if loop.running:
                loop.stop()
        self._tell("STOPPING=1", "STATUS=Coming to its end")

    def reload(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Call `work` with the manager knowing of it, and give what it gives.

        As long as the start is not over it is part of that, and of several at once only the last end counts.

        :param work: may give a Deferred; the reload lasts until it fires, in whatever way.
        """
        if not self.running or self._looks.running:
            return maybeDeferred(work)
        # systemd takes the end of what began before it asked for no answer (Type=notify-reload).
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        self._reloads += 1

        def done(result: Any) -> Any:
            self._reloads -= 1
            if self.running and not self._reloads:
                self._report()
                self._tell("READY=1")
            return result

        return maybeDeferred(work).addBoth(done)

    def _loop(self, function: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(function)
        loop.clock = self._reactor
        return loop

    def _look(self) -> None:
        if self._is_ready():
            self._looks.stop()
            self._tell("READY=1")
            if self._reports.running:
                self._reports.stop()
            self._reports.start(_STATUS)
        elif not self._reports.running and self._reactor.seconds() - self._began >= LONG:
            self._reports.start(_STATUS)

    def _report(self) -> None:
        line = self._status()
        if line != self._said:
            self._said = line
            self._tell(f"STATUS={line}")

    def _beat(self) -> None:
        # Behind others that cannot be sent it would be sent later, and say what may not be so then.
        if not self._unsent:
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            self._unsent.append("\n".join(lines).encode("utf-8", "backslashreplace"))
            if len(self._unsent) == 1:
                self._send()

    def _send(self) -> None:
        """Send what is to be sent, in order; what does not go now for want of room goes later."""
        assert self._socket is not None  # noqa: S101  # for the type checker
        while self._unsent:
            try:
                self._socket.sendto(self._unsent[0], self._manager.address)
            except BlockingIOError:
                self._reactor.callLater(_RETRY, self._send)
                return
            except OSError as error:
                if not self._trouble:
                    self.log.warn("cannot tell the service manager how it goes: {reason}", reason=error.strerror)
                self._trouble = True
            else:
                self._trouble = False
            self._unsent.popleft()
