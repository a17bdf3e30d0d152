"""Fuzz one of the `fuzz_*` modules with Atheris: `python -m tests.soak.fuzz requests 600`.

What it begins with, and keeps, is in `tests/corpus/`; `--merge` puts there what an earlier run found that is new, in as
few inputs as reach the same code.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "corpus"

#: Bytes of the longest input.
LONGEST = 1024

#: What is looked into; of these, nothing may be imported before.
LOOKED_INTO = ["livestate", "twisted.web", "twisted.protocols.basic", "urllib.parse", "pymongo.uri_parser", "autobahn.websocket"]


def main() -> None:
    """Fuzz until the time is over or an input fails; that input is then in the current folder, as `crash-…`."""
    parser = argparse.ArgumentParser(description="Fuzz with Atheris.")
    parser.add_argument("what", choices=sorted(file.stem[5:] for file in Path(__file__).parent.glob("fuzz_*.py")))
    parser.add_argument("seconds", type=int, nargs="?", default=600)
    parser.add_argument("--found", type=Path, help="folder of what is found (default: a new one in /tmp)")
    parser.add_argument("--merge", action="store_true", help="add what is in --found to tests/corpus, and fuzz nothing")
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=LOOKED_INTO):
        target = importlib.import_module(f"tests.soak.fuzz_{arguments.what}")
    found = arguments.found or Path(tempfile.mkdtemp(prefix=f"fuzz-{arguments.what}-"))
    found.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / arguments.what
    kept.mkdir(parents=True, exist_ok=True)
    options = [f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=4096"]
    if arguments.merge:
        options += ["-merge=1", str(kept), str(found)]
    else:
        for number, seed in enumerate(target.seeds()):
            (found / f"seed-{number}").write_bytes(seed)
        words = found.with_name(found.name + ".dict")
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.WORDS))
        options += [f"-max_total_time={arguments.seconds}", f"-dict={words}", "-print_final_stats=1", str(found), str(kept)]
    print(f"what is found is kept in {found}", flush=True)
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
