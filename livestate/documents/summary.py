"""The state of all documents in one line for the operator."""

from collections.abc import Sequence

from livestate.documents.polled_document import PolledDocument


def summary(pollers: Sequence[PolledDocument], connections: int, trouble: str = "") -> str:
    """Return one line that says what is served and what is wrong with it.

    :param connections: the number of open connections.
    :param trouble: what is wrong with the serving processes; "" if nothing is.
    """
    count = f"{len(pollers)} document{'s' if len(pollers) > 1 else ''}"
    troubles = [trouble] if trouble else []
    troubles += [
        f"{poller.document.path} is {_age(poller)} ({poller.stats.error or 'no answer yet'})"
        for poller in pollers
        if not poller.is_fresh()
    ]
    line = f"{count}, {connections} connections; " + (", ".join(troubles) or "all fresh")
    return " ".join(line.split())


def _age(poller: PolledDocument) -> str:
    return "missing" if poller.document.snapshot is None else f"{poller.document.age():.0f} s old"
