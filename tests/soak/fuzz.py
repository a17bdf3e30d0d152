"""Fuzz one of the `fuzz_*` modules with Atheris: `python -m tests.soak.fuzz requests 600`.

It begins with what is in `tests/corpus/`. What reaches other code is added to that, and what is no longer needed for
any of the code that was reached is taken out.
"""

import argparse
import importlib
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

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
    if "-merge_inner=1" in sys.argv:
        # libFuzzer's own child, which it starts by this program's name.
        _fuzz(_target(sys.argv[1]), [sys.argv[0], *sys.argv[2:]])
    parser = argparse.ArgumentParser(description="Fuzz with Atheris.")
    parser.add_argument("what", choices=sorted(file.stem[5:] for file in Path(__file__).parent.glob("fuzz_*.py")))
    parser.add_argument("seconds", type=int, nargs="?", default=600)
    arguments = parser.parse_args()
    target = _target(arguments.what)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        found, least, words, again = (Path(folder) / name for name in ("found", "least", "words", "again"))
        found.mkdir()
        least.mkdir()
        for number, data in enumerate(corpus(arguments.what)):
            (found / f"kept-{number}").write_bytes(data)
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.WORDS))
        options = [f"-max_total_time={arguments.seconds}", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=4096",
                   f"-dict={words}", "-print_final_stats=1", str(found)]  # fmt: skip
        _in_child(target, [sys.argv[0], *options])
        again.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {__spec__.name} {arguments.what} "$@"\n')
        again.chmod(0o755)
        _in_child(target, [str(again), "-merge=1", f"-max_len={LONGEST}", str(least), str(found)])
        keep(arguments.what, (file.read_bytes() for file in least.iterdir()))


def _target(what: str) -> Any:
    with atheris.instrument_imports(include=LOOKED_INTO):
        return importlib.import_module(f"tests.soak.fuzz_{what}")


def _in_child(target: Any, options: list[str]) -> None:
    child = os.fork()
    if child == 0:
        _fuzz(target, options)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(f"exit status {code}")
    if code:
        sys.exit("the corpus is left as it was")


def _fuzz(target: Any, options: list[str]) -> None:
    """Have libFuzzer do it, which ends the process itself, without a word to Python."""
    atheris.Setup(options, target.check)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    main()
