"""What the supervisor tells a zygote at its start."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from livestate.config.settings import Settings

#: The file descriptor of the control socket in the zygote, which brings the requests to fork.
CONTROL_FD = 3


class Port(msgspec.Struct, frozen=True):
    """One listener: the sockets of one strports string."""

    #: Private key and certificates in PEM; None for plain HTTP.
    tls: bytes | None


class Setup(msgspec.Struct, frozen=True):
    """All that a worker is configured with."""

    settings: Settings
    #: The module whose `install` installs the reactor.
    reactor: str
    ports: list[Port]

    def to_json(self) -> bytes:
        """Return the setup as JSON, without the sources: workers do not fetch, and need no passwords."""
        documents = tuple(dataclasses.replace(document, source="") for document in self.settings.documents)
        settings = dataclasses.replace(self.settings, documents=documents, state_dir=None)
        return msgspec.json.encode(msgspec.structs.replace(self, settings=settings), enc_hook=str)

    @classmethod
    def from_json(cls, data: bytes) -> "Setup":
        """Parse the result of `to_json`.

        :raises msgspec.DecodeError: when it is something else.
        """
        return msgspec.json.decode(data, type=cls, dec_hook=_decode_path)


def _decode_path(kind: type, value: Any) -> Any:
    """Decode a Path, the only type in Setup that msgspec does not know."""
    if kind is not Path:
        raise NotImplementedError(kind)
    return Path(value)
