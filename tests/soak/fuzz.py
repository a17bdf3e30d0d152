"""Fuzz one of the `fuzz_*` modules with Atheris: `python -m tests.soak.fuzz requests 600`.

It begins with what is in `tests/corpus/`, and adds to that what reaches other code.
"""

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

from tests.corpora import corpus, keep

#: Bytes of the longest input.
LONGEST = 1024

#: What is looked into; nothing of it may be imported before.
LOOKED_INTO = [
    "livestate", "twisted.web", "twisted.protocols.basic", "urllib.parse", "pymongo.uri_parser", "autobahn.websocket",
]  # fmt: skip


def main() -> None:
    """Fuzz until the time is over or an input fails; that input is then in the current folder, as `crash-…`."""
    parser = argparse.ArgumentParser(description="Fuzz with Atheris.")
    parser.add_argument("what", choices=sorted(file.stem[5:] for file in Path(__file__).parent.glob("fuzz_*.py")))
    parser.add_argument("seconds", type=int, nargs="?", default=600)
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=LOOKED_INTO):
        target = importlib.import_module(f"tests.soak.fuzz_{arguments.what}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        found = Path(folder) / "found"
        found.mkdir()
        for number, data in enumerate(corpus(arguments.what)):
            (found / f"kept-{number}").write_bytes(data)
        words = Path(folder) / "words"
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.WORDS))
        options = [f"-max_total_time={arguments.seconds}", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=4096",
                   f"-dict={words}", "-print_final_stats=1", str(found)]  # fmt: skip
        # It ends the process itself, without a word to Python.
        _in_child(lambda: (atheris.Setup([sys.argv[0], *options], target.check), atheris.Fuzz()))
        keep(arguments.what, (file.read_bytes() for file in found.iterdir()))


def _in_child(run: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        run()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(f"exit status {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
