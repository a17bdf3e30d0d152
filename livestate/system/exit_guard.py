"""End a process whose shutdown hangs.

A thread that waits for a disk or a network file system that does not respond cannot be stopped, and Twisted and Python
both wait for all threads before the process ends. Without this guard, only SIGKILL would end it.
"""

import os
import threading
import time
from collections.abc import Callable

from twisted.logger import Logger

log = Logger()

#: Seconds for the log line, whose file may be on the same disk.
_LOG_TIMEOUT = 1.0


def guard_exit(limit: float, end: Callable[[int], object] = os._exit) -> None:
    """End this process with status 1 if it still runs in `limit` seconds, whatever its other threads do.

    :param end: ends the process; for tests.
    """

    def wait() -> None:
        time.sleep(limit)
        logging = threading.Thread(target=_log_hang, args=[limit], daemon=True)
        logging.start()
        logging.join(_LOG_TIMEOUT)
        end(1)

    threading.Thread(target=wait, daemon=True).start()


def _log_hang(limit: float) -> None:
    log.error(
        "the shutdown has not finished within {limit:g} s, perhaps because a disk does not respond; exiting without "
        "having saved everything",
        limit=limit,
    )
