"""What a zygote is told to begin with."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from livestate.config.settings import Settings

#: The zygote's end of the socket that it is told to fork by.
CONTROL = 3


class Port(msgspec.Struct, frozen=True):
    """What is listened on for one strports string."""

    #: Private key and certificates, PEM; None: plain HTTP.
    tls: bytes | None


class Setup(msgspec.Struct, frozen=True):
    """All that a worker is made of."""

    settings: Settings
    #: The module whose `install` makes the reactor.
    reactor: str
    ports: list[Port]

    def to_json(self) -> bytes:
        """Give it as JSON, without the sources: workers do not ask them, and need no passwords."""
        documents = tuple(dataclasses.replace(wanted, source="") for wanted in self.settings.documents)
        settings = dataclasses.replace(self.settings, documents=documents, state_dir=None)
        return msgspec.json.encode(msgspec.structs.replace(self, settings=settings), enc_hook=str)

    @classmethod
    def of_json(cls, data: bytes) -> "Setup":
        """Understand what `to_json` gave.

        :raises msgspec.DecodeError: it is something else.
        """
        return msgspec.json.decode(data, type=cls, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    """Make the one kind of object that msgspec does not know."""
    if kind is not Path:
        raise NotImplementedError(kind)
    return Path(value)
