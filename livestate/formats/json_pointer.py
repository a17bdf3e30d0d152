"""JSON Pointer (RFC 6901): the name of one part of a document, such as `/votes/Meadow`."""

import re
from typing import Any
from urllib.parse import unquote

from livestate.errors import SettingsError

_INDEX = re.compile(r"0|[1-9][0-9]*", re.ASCII)


class PartMissing(LookupError):
    """The document has no part that the pointer names."""


class Pointer:
    """A parsed JSON Pointer.

    :ivar text: the pointer as it was written.
    """

    def __init__(self, text: str) -> None:
        """Parse a pointer, written as a string (`/a~1b`, section 5) or as a URI fragment (`#/a%20b`, section 6).

        :raises SettingsError: when it is neither.
        """
        self.text = text
        pointer = unquote(text[1:]) if text.startswith("#") else text
        if pointer and not pointer.startswith("/"):
            raise SettingsError(f"the pointer {text!r} does not begin with /; write it like /votes/Meadow (RFC 6901)")
        if re.search(r"~(?![01])", pointer):
            raise SettingsError(f"the pointer {text!r} has a ~ that is neither ~0 (for ~) nor ~1 (for /)")
        # Replace ~1 first, so that ~01 becomes ~1 and not / (section 4).
        self._tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]

    def find(self, document: Any) -> Any:
        """Return the part of a parsed document that the pointer names.

        :raises PartMissing: when the document has no such part.
        """
        for token in self._tokens:
            if isinstance(document, dict) and token in document:
                document = document[token]
            elif isinstance(document, list) and _INDEX.fullmatch(token) and int(token[:19]) < len(document):
                document = document[int(token)]
            else:
                # This includes an array's "-", which names the element after the last one and never exists.
                raise PartMissing(f"there is no {self.text} in the document")
        return document
