"""Decide which of the reasons of one outage are logged.

A problem is logged when it starts and whenever its reason changes. But a reason may contain something that differs
every time, and two servers behind one address may take turns every second for as long as the outage lasts. So the first
`MAX_REPEATED` reasons are logged as they come, later ones only if they were not logged before, and none after
`MAX_LOGGED`.
"""

MAX_REPEATED = 10
MAX_LOGGED = 20

#: Characters of a reason: a store's error message may be of any length.
MAX_LENGTH = 500


def one_line(text: str) -> str:
    """Return a reason as one printable line of limited length.

    A store can send anything, also a text that imitates another line of the log.
    """
    shown = "".join(character if character.isprintable() else " " for character in text[:MAX_LENGTH])
    return shown if len(text) <= MAX_LENGTH else shown + "…"


class LogThrottle:
    """The reasons logged during one outage."""

    def __init__(self) -> None:
        self._logged: list[str] = []

    def filter(self, reason: str) -> str | None:
        """Return the text to log for a reason that differs from the previous one; None: log nothing."""
        number = len(self._logged) + 1
        if number > MAX_LOGGED or (number > MAX_REPEATED and reason in self._logged):
            return None
        self._logged.append(reason)
        return reason if number < MAX_LOGGED else f"{reason} (further reasons are not logged until it recovers)"

    def reset(self) -> None:
        """Forget the logged reasons, after a recovery."""
        self._logged.clear()
