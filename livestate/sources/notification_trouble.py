"""Logging whether change notifications work: when they start, when they fail and why, and when the reason changes."""

from twisted.logger import Logger

from livestate.system.log_throttle import LogThrottle, one_line


class NotificationTrouble:
    """Logs whether one source is notified of changes."""

    log = Logger()

    def __init__(self, source: str) -> None:
        """:param source: the name of the source, without passwords."""
        self._source = source
        #: Why there are no notifications; None while they work, "" before the first attempt.
        self._trouble: str | None = ""
        self._reasons = LogThrottle()

    def listening(self, how: str) -> None:
        """Log that notifications work, unless they did already.

        :param how: the end of the log line, such as "on the channel results".
        """
        if self._trouble is not None:
            self._trouble = None
            self._reasons.reset()
            self.log.info("{source}: listening for changes {how}", source=self._source, how=how)

    def failed(self, trouble: str) -> bool:
        """Log that notifications do not work, unless that is known, and return whether it was logged."""
        trouble = one_line(trouble)
        if trouble == self._trouble:
            return False
        self._trouble = trouble
        reason = self._reasons.filter(trouble)
        if reason is None:
            return False
        self.log.warn(
            "{source}: change notifications unavailable: {reason}; polling, retrying",
            source=self._source, reason=reason,
        )  # fmt: skip
        return True
