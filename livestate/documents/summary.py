"""What is served and what is wrong with it, in one line for the operator."""

from collections.abc import Sequence

from livestate.documents.poller import Poller


def summary(pollers: Sequence[Poller], connections: int, trouble: str = "") -> str:
    """Say in one line what is being served, and what is wrong with it.

    :param connections: how many there are just now.
    :param trouble: what is wrong with those that serve.
    """
    count = f"{len(pollers)} document{'s' if len(pollers) > 1 else ''}"
    troubles = [trouble] if trouble else []
    troubles += [
        f"{poller.document.path} is {_age(poller)} ({poller.tally.trouble or 'no answer yet'})"
        for poller in pollers
        if not poller.fresh()
    ]
    line = f"{count}, {connections} connections; " + (", ".join(troubles) or "all fresh")
    return " ".join(line.split())


def _age(poller: Poller) -> str:
    return "missing" if poller.document.snapshot is None else f"{poller.document.age():.0f} s old"
