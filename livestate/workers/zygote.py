"""The process that workers are forked from: `python -m livestate.workers.zygote`, for the supervisor alone.

It reads its Setup from standard input, makes the TLS contexts, and then waits on the control socket: each message is a
worker's number, with that worker's end of its pipe and the sockets that it accepts from beside it. The end of the
control socket is the end of the supervisor, or of its need for these workers: those that are left are killed. Why a
worker ended is said on standard error, where that is not how it should end.
"""

import contextlib
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

from livestate.system.gc_tuning import tune_gc
from livestate.tls.contexts import ServerOptions
from livestate.workers import worker
from livestate.workers.setup import CONTROL, Setup


class Zygote:
    """Forks workers."""

    def __init__(self, setup: Setup, control: socket.socket) -> None:
        self._setup = setup
        self._control = control
        self._contexts = {
            place: ServerOptions.from_pem(port.tls) for place, port in enumerate(setup.ports) if port.tls is not None
        }
        #: Numbers by process.
        self._workers: dict[int, int] = {}

    def run(self) -> None:
        """Fork a worker for each message, until there are no more."""
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._control, 64, 1 + len(self._setup.ports))
            if not message:
                break
            self._fork(int(message), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        # From here on nobody is waited for, so that nobody else can have a number that is still noted.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for process in self._workers:
            os.kill(process, signal.SIGKILL)

    def _fork(self, number: int, descriptors: list[int]) -> None:
        # A worker that ends at once is not to be missed before it is noted.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        process = os.fork()
        if process == 0:
            self._control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            self._be_worker(number, *descriptors)
        self._workers[process] = number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def _be_worker(self, number: int, end: int, *listening: int) -> NoReturn:
        try:
            ports = {descriptor: self._contexts.get(place) for place, descriptor in enumerate(listening)}
            worker.run(self._setup, number, socket.socket(fileno=end), ports)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return
                number = self._workers.pop(process) + 1
                code = os.waitstatus_to_exitcode(status)
                if code:
                    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
                    print(f"worker {number} (process {process}) {how}", file=sys.stderr, flush=True)


def main() -> None:
    """Be the zygote."""
    # What the terminal or a service manager sends to all processes at once is the supervisor's affair.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker.name("fork")
    data = sys.stdin.buffer.read()
    if not data:
        return  # the supervisor is gone
    setup = Setup.of_json(data)
    importlib.import_module(setup.reactor)
    zygote = Zygote(setup, socket.socket(fileno=CONTROL))
    # The garbage collection does not look at what is there now any more: it would have the pages copied.
    tune_gc()
    zygote.run()


if __name__ == "__main__":
    main()
