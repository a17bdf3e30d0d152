"""What is logged of being told of changes: that it works, why it does not, each once, and when that changes."""

from twisted.logger import Logger

from livestate.system.log_throttle import LogThrottle, one_line


class NotificationTrouble:
    """Says in the log whether one source is told of changes."""

    log = Logger()

    def __init__(self, source: str) -> None:
        """Say it of `source`, its name without passwords."""
        self._source = source
        #: Why nothing is heard just now; None while it is, "" before the first time.
        self._trouble: str | None = ""
        self._reasons = LogThrottle()

    def works(self, how: str) -> None:
        """It listens for changes now: `how`, and to what."""
        if self._trouble is not None:
            self._trouble = None
            self._reasons.reset()
            self.log.info("{source}: listening for changes {how}", source=self._source, how=how)

    def fails(self, trouble: str) -> bool:
        """It cannot be told of changes now; give whether that, or the reason, is new."""
        trouble = one_line(trouble)
        if trouble == self._trouble:
            return False
        self._trouble = trouble
        told = self._reasons.filter(trouble)
        if told is None:
            return False
        self.log.warn(
            "{source}: not told of changes: {trouble}; polling goes on, and so does trying",
            source=self._source, trouble=told,
        )  # fmt: skip
        return True
