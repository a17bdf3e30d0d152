"""Report the state of the process to a service manager: systemd's notify protocol (sd_notify(3)).

A service that systemd starts with `Type=notify` finds the name of a Unix datagram socket in its environment, and sends
lines of `NAME=VALUE` to it:

    READY=1      all processes serve, and each source has answered or failed once
    STATUS=      one line for the operator, which `systemctl status` shows
    WATCHDOG=1   the reactor is running; sent by the reactor itself, so a blocked one sends nothing and is restarted
    RELOADING=1, then READY=1   a reload (SIGHUP, SIGUSR2) has started, and has been applied or rejected
    STOPPING=1   the process is shutting down

Without that socket nothing is sent, and livestate behaves the same.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from livestate.system.periodic import PeriodicTask

#: Seconds between two checks for readiness: too short to delay the units that wait for this one.
_READY_CHECK_INTERVAL = 0.1

#: Seconds after which a slow start is explained in the status.
SLOW_START = 1.0

#: Seconds between two status updates, because every update wakes all listeners on systemd's bus.
_STATUS_INTERVAL = 10.0

#: Seconds until a send to a full socket is retried.
_RETRY_DELAY = 0.1


@dataclass(frozen=True)
class ServiceManager:
    """Where the service manager listens, and what it expects."""

    #: A path, or a NUL and a name in the abstract namespace; "" without a service manager.
    address: str = ""
    #: Seconds within which it expects a watchdog message; 0: it expects none.
    watchdog: float = 0.0

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> "ServiceManager":
        """Read the environment variables of the notify protocol and remove them, so that children do not see them.

        An address of an unsupported kind, such as `vsock:`, counts as none.

        :param pid: this process; a watchdog meant for another one is ignored.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, watched = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if address.startswith("@"):
            address = "\0" + address[1:]
        elif not address.startswith("/"):
            return cls()
        ours = usec.isdecimal() and watched in ("", str(pid))
        return cls(address, int(usec) / 1e6 if ours else 0.0)


class SystemdNotifier(Service):
    """Reports the state of the process to a ServiceManager, from the start of the service to the end of the process.

    Make it the last child of its parent service: children start in order, and stop in reverse order.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, manager: ServiceManager, is_ready: Callable[[], bool], status: Callable[[], str]
    ) -> None:
        """:param is_ready: returns whether the start is complete.
        :param status: returns the status line.
        """
        self._reactor = reactor
        self._manager = manager
        self._is_ready = is_ready
        self._status = status
        self._socket: socket.socket | None = None
        self._unsent: deque[bytes] = deque()
        self._failing = False
        self._last_status = ""
        self._started = 0.0
        self._reloads = 0
        self._ready_check = PeriodicTask(reactor, self._check_ready, "checking whether the start is complete")
        self._status_updates = PeriodicTask(reactor, self._update_status, "updating the status for systemd")
        self._watchdog = PeriodicTask(reactor, self._ping_watchdog, "sending watchdog messages to systemd")

    def startService(self) -> None:
        """Start checking for readiness, and sending watchdog messages."""
        super().startService()
        if not self._manager.address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._started = self._reactor.seconds()
        # Not at once: the reactor must run first.
        self._ready_check.start(_READY_CHECK_INTERVAL, now=False)
        if self._manager.watchdog:
            self._watchdog.start(self._manager.watchdog / 2, now=False)

    def stopService(self) -> None:
        """Report the shutdown. The watchdog continues while connections drain."""
        super().stopService()
        self._ready_check.stop()
        self._status_updates.stop()
        self._notify("STOPPING=1", "STATUS=Stopping")

    def reload(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Call `work`, report that as a reload, and return its result.

        A reload during the start counts as part of the start. If several reloads overlap, only the end of the last
        one is reported.

        :param work: may return a Deferred; the reload lasts until it fires, with a result or a failure.
        """
        if not self.running or self._ready_check.running:
            return maybeDeferred(work)
        # By this time systemd recognises the reload that it asked for (Type=notify-reload): it ignores the end of one
        # that started before its request.
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        self._reloads += 1

        def done(result: Any) -> Any:
            self._reloads -= 1
            if self.running and not self._reloads:
                self._update_status()
                self._notify("READY=1")
            return result

        return maybeDeferred(work).addBoth(done)

    def _check_ready(self) -> None:
        if self._is_ready():
            self._ready_check.stop()
            self._notify("READY=1")
            self._status_updates.stop()
            self._status_updates.start(_STATUS_INTERVAL)
        elif not self._status_updates.running and self._reactor.seconds() - self._started >= SLOW_START:
            self._status_updates.start(_STATUS_INTERVAL)

    def _update_status(self) -> None:
        line = self._status()
        if line != self._last_status:
            self._last_status = line
            self._notify(f"STATUS={line}")

    def _ping_watchdog(self) -> None:
        # Queued behind unsent messages it would be sent late, when the reactor may be blocked.
        if not self._unsent:
            self._notify("WATCHDOG=1")

    def _notify(self, *lines: str) -> None:
        if self._socket is not None:
            self._unsent.append("\n".join(lines).encode("utf-8", "backslashreplace"))
            if len(self._unsent) == 1:
                self._send()

    def _send(self) -> None:
        """Send the queued messages in order. If the socket is full, try again later."""
        assert self._socket is not None  # noqa: S101  # for the type checker
        while self._unsent:
            try:
                self._socket.sendto(self._unsent[0], self._manager.address)
            except BlockingIOError:
                self._reactor.callLater(_RETRY_DELAY, self._send)
                return
            except OSError as error:
                if not self._failing:
                    self.log.warn("cannot notify the service manager: {error}", error=error.strerror)
                self._failing = True
            else:
                self._failing = False
            self._unsent.popleft()
