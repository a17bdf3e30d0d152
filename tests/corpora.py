"""What fuzzers found: inputs that reach different code, one a line, with escapes as Python writes them."""

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def corpus(name: str) -> list[bytes]:
    """Give the inputs of one kind."""
    lines = (FOLDER / f"{name}.txt").read_text("ascii").splitlines()
    return [line.encode("ascii").decode("unicode_escape").encode("latin-1") for line in lines]


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Have these be the inputs of one kind, each once, the shortest first."""
    lines = [data.decode("latin-1").encode("unicode_escape").decode("ascii") for data in set(inputs)]
    text = "".join(f"{line}\n" for line in sorted(lines, key=lambda line: (len(line), line)))
    (FOLDER / f"{name}.txt").write_text(text, "ascii")
