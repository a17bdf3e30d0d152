"""Inputs that fuzzers found, each of which reaches other code: one per line, with the escapes of Python."""

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def corpus(name: str) -> list[bytes]:
    """Return the inputs of one kind."""
    lines = (FOLDER / f"{name}.txt").read_text("ascii").splitlines()
    return [line.encode("ascii").decode("unicode_escape").encode("latin-1") for line in lines]


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Store `inputs` as those of one kind, without duplicates, the shortest first."""
    lines = [data.decode("latin-1").encode("unicode_escape").decode("ascii") for data in set(inputs)]
    text = "".join(f"{line}\n" for line in sorted(lines, key=lambda line: (len(line), line)))
    (FOLDER / f"{name}.txt").write_text(text, "ascii")
