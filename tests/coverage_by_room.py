"""Print what share of each package's lines a run under coverage has reached: `… -m tests.coverage_by_room DATA_FILE`."""

import sys
from collections import defaultdict
from pathlib import Path

from coverage import Coverage

import livestate

PACKAGE = Path(livestate.__file__).parent


def main(data_file: str) -> None:
    """Print one line for each package, and one for all."""
    coverage = Coverage(data_file=data_file, source_pkgs=["livestate"])
    coverage.load()
    #: For each package, the statements, and those that were run.
    lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path in sorted(PACKAGE.rglob("*.py")):
        _, statements, _, missing, _ = coverage.analysis2(str(path))
        for room in (".".join(path.parent.relative_to(PACKAGE.parent).parts), "all"):
            lines[room][0] += len(statements)
            lines[room][1] += len(statements) - len(missing)
    lines["all"] = lines.pop("all")
    for room, (total, reached) in lines.items():
        print(f"{room:<28} {reached:5} of {total:5} lines {100 * reached / max(1, total):5.1f} %")


if __name__ == "__main__":
    main(sys.argv[1])
