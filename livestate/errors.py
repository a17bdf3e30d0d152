"""The errors that livestate raises, as one small family.

The text of each error is one line for an operator: what is wrong and what to do about it. It never contains a
password. Code that catches one prints or logs that line, never a traceback.
"""


class LivestateError(Exception):
    """A foreseen failure. Its text is one line for the operator."""


class SettingsError(LivestateError):
    """An option, a configuration file, a certificate or a listening port cannot be used."""


class SourceError(LivestateError):
    """The store returned no document: it is unreachable, refused the request, or took too long."""


class DocumentMissing(SourceError):
    """The store answered, but does not have the document (no such key, file or record)."""


class DocumentRefused(LivestateError):
    """The bytes from the store cannot be served as a document: not JSON, not UTF-8, or too large."""


class WatchError(LivestateError):
    """A document cannot be watched, and retrying would not help: it is not there, or the server is not trusted."""
