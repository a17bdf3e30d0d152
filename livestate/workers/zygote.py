"""The process that workers are forked from: `python -m livestate.workers.zygote`. Only the supervisor starts it.

It reads its Setup from standard input, creates the TLS contexts, and then waits for messages on the control socket.
Each message is the number of a worker to fork, and carries that worker's end of its pipe and the sockets that it
accepts from. When the control socket is closed, the supervisor has exited or no longer needs these workers; the zygote
then kills those that are left. When a worker fails, the zygote prints how it exited on standard error.
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
from livestate.workers.setup import CONTROL_FD, Setup


class Zygote:
    """Forks workers."""

    def __init__(self, setup: Setup, control: socket.socket) -> None:
        self._setup = setup
        self._control = control
        self._contexts = {
            index: ServerOptions.from_pem(port.tls) for index, port in enumerate(setup.ports) if port.tls is not None
        }
        #: Worker numbers by process id.
        self._workers: dict[int, int] = {}

    def run(self) -> None:
        """Fork a worker for each message, until the control socket is closed."""
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._control, 64, 1 + len(self._setup.ports))
            if not message:
                break
            self._fork(int(message), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        # From here on no child is reaped, so that no other process can get an id that is still noted here.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for process in self._workers:
            os.kill(process, signal.SIGKILL)

    def _fork(self, number: int, descriptors: list[int]) -> None:
        # A worker that exits at once must not be reaped before it is noted.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        process = os.fork()
        if process == 0:
            self._control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            self._become_worker(number, *descriptors)
        self._workers[process] = number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def _become_worker(self, number: int, pipe: int, *listening: int) -> NoReturn:
        try:
            ports = {descriptor: self._contexts.get(index) for index, descriptor in enumerate(listening)}
            worker.run(self._setup, number, socket.socket(fileno=pipe), ports)
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
                    how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
                    print(f"worker {number} (process {process}) {how}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the zygote."""
    # A terminal or a service manager may send these to all processes at once. The supervisor handles them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    worker.name_process("fork")
    data = sys.stdin.buffer.read()
    if not data:
        return  # the supervisor is gone
    setup = Setup.from_json(data)
    importlib.import_module(setup.reactor)
    zygote = Zygote(setup, socket.socket(fileno=CONTROL_FD))
    # Keep the garbage collector away from all objects that exist now: walking them would copy the shared pages.
    tune_gc()
    zygote.run()


if __name__ == "__main__":
    main()
