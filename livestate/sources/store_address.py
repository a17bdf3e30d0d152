"""What a source URL names: a store, and a key in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from livestate.sources.api import IStore


class StoreAddress(NamedTuple):
    """A document in a store that may have others as well."""

    #: Equal for all documents of one store; it may hold a password.
    identity: str
    key: str
    #: The name of the document's source, without passwords.
    source: str
    #: Makes the store, given the reactor and the maximum size of a document in bytes. Raises SettingsError where the
    #: URL cannot be used.
    make: Callable[[Any, int], IStore]
