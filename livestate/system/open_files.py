"""The limit on open files: each client connection is one."""

import resource

from twisted.logger import Logger

log = Logger()

#: Below this limit a warning is logged: livestate is made for tens of thousands of clients.
RECOMMENDED_LIMIT = 10_000

#: Files that are not client connections: logs, a store, listening sockets, admin connections, libraries.
_RESERVED = 100


def max_clients(for_documents: int = 0) -> int | None:
    """Return how many clients may be connected at once, leaving files for everything else; None: no limit.

    With no files left, the next reconnection to the store would fail.

    :param for_documents: the files that fetching and saving the documents may need, in addition to the usual ones.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    # However low the limit, some clients are served.
    return soft - min(_RESERVED + for_documents, soft * 3 // 4)


def raise_open_files() -> None:
    """Raise the soft limit on open files to the hard limit, and warn if that is low.

    The usual soft limit of 1,024 (systemd's DefaultLimitNOFILE=1024:524288) protects programs that call select(2);
    livestate does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # macOS: the hard limit is nominally infinite, but cannot be set
            pass
    if soft != resource.RLIM_INFINITY and soft < RECOMMENDED_LIMIT:
        log.warn(
            "the limit on open files is {limit}, enough for about {clients} clients; raise the hard limit before "
            "livestate starts (systemd: LimitNOFILE=1048576; in a root shell: ulimit -n 1048576)",
            limit=soft, clients=max(0, soft - _RESERVED),
        )  # fmt: skip
