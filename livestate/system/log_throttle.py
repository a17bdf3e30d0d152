"""Which of the reasons of one trouble are to be logged.

What is wrong is logged when it begins and when it changes. But a reason may hold something that is different each time,
and two of two servers behind one address may take turns each second for as long as the trouble lasts. So the first
`EACH` are logged as they come, then those alone that were not logged before, and from the `MOST`th on none.
"""

EACH = 10
MOST = 20

#: Signs of a reason: a store's own words may be of any length.
LONGEST = 500


def one_line(text: str) -> str:
    """Give a reason as one line of some length: stores can say anything, a line of a log that was never logged too."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:LONGEST])
    return shown if len(text) <= LONGEST else shown + "…"


class LogThrottle:
    """The reasons of one trouble."""

    def __init__(self) -> None:
        self._logged: list[str] = []

    def to_log(self, reason: str) -> str | None:
        """Take a reason that is not that of before, and give how to log it; None: not at all."""
        number = len(self._logged) + 1
        if number > MOST or (number > EACH and reason in self._logged):
            return None
        self._logged.append(reason)
        return reason if number < MOST else f"{reason} (other reasons are not logged until it is good again)"

    def over(self) -> None:
        """The trouble has ended."""
        self._logged.clear()
