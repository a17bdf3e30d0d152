"""How many files the process may have open: each reader is one."""

import resource

from twisted.logger import Logger

log = Logger()

#: Open files below which a warning is due: livestate is for tens of thousands of readers.
ENOUGH = 10_000

#: Files that are no readers: logs, the store, listening sockets, the admin listener's connections, libraries.
_OTHERS = 100


def max_clients() -> int | None:
    """Give how many connections of readers there may be, so that files are left for all else; None: any number.

    Where there were none left, the store would be lost with the next connection to it.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft - min(_OTHERS, soft // 2)


def raise_open_files() -> None:
    """Raise the limit of open files to the most that this process may have, and warn where that is little.

    The usual limit of 1,024 (systemd's DefaultLimitNOFILE=1024:524288) is for programs that call select(2), which
    livestate does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # macOS has no limit by name, and one in fact
            pass
    if soft != resource.RLIM_INFINITY and soft < ENOUGH:
        log.warn(
            "at most {limit} files may be open here, which is enough for about {readers} readers; raise the hard "
            "limit before livestate starts (systemd: LimitNOFILE=1048576; a root shell: ulimit -n 1048576)",
            limit=soft, readers=max(0, soft - _OTHERS),
        )  # fmt: skip
