"""What can go wrong, as a small family.

The text of each of these is one line for a person: what is wrong and what to do about it. It never holds
a password. Whoever catches one prints or logs that line, never a traceback.
"""


class LivestateError(Exception):
    """Something went wrong in a way that was foreseen; the text is one line for a person."""


class SettingsError(LivestateError):
    """An option, a configuration file, a certificate or a listening port cannot be used."""


class SourceError(LivestateError):
    """The store did not give the document: it is away, it refused, or it took too long."""


class DocumentMissing(SourceError):
    """The store answered, and does not have the document (no such key, file or record)."""


class DocumentRefused(LivestateError):
    """The bytes that the store gave are not a document to serve: not JSON, not UTF-8, or too large."""


class WatchError(LivestateError):
    """A document cannot be watched, and asking again would not help: it is not there, or the server is not trusted."""
