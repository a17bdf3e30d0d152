"""JSON Pointer (RFC 6901): naming one part of a document, `/votes/Meadow`."""

import re
from typing import Any
from urllib.parse import unquote

from livestate.errors import SettingsError

_INDEX = re.compile(r"0|[1-9][0-9]*", re.ASCII)


class PartMissing(LookupError):
    """The document has no such part."""


class Pointer:
    """One pointer, understood."""

    def __init__(self, text: str) -> None:
        """Understand a pointer as a string (`/a~1b`, section 5) or as a URI fragment (`#/a%20b`, section 6).

        :raises SettingsError: it is neither.
        """
        self.text = text
        plain = unquote(text[1:]) if text.startswith("#") else text
        if plain and not plain.startswith("/"):
            raise SettingsError(f"the pointer {text!r} does not begin with / (RFC 6901): /votes/Meadow")
        if re.search(r"~(?![01])", plain):
            raise SettingsError(f"the pointer {text!r} has a ~ that is neither ~0 (for ~) nor ~1 (for /)")
        # ~1 first: ~01 is ~1, not / (section 4).
        self._tokens = [token.replace("~1", "/").replace("~0", "~") for token in plain.split("/")[1:]]

    def find(self, document: Any) -> Any:
        """Give the part of a parsed document that the pointer names.

        :raises PartMissing: there is none.
        """
        for token in self._tokens:
            if isinstance(document, dict) and token in document:
                document = document[token]
            elif isinstance(document, list) and _INDEX.fullmatch(token) and int(token[:19]) < len(document):
                document = document[int(token)]
            else:
                # An array's "-" is here too: it names the element after the last, which is not there.
                raise PartMissing(f"there is no {self.text} in the document")
        return document
