"""`python -m bench`: parse the command line, run the scenarios, and print and save their results."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import client, environment, machine, plot, report, results, run, targets
from bench.peers import PEERS
from bench.process import BenchError, raise_file_limit
from bench.scenario import SCENARIOS
from bench.settings import Settings, cores

EPILOG = """examples:
  python -m bench                                       everything: about an hour
  python -m bench --scenario http --peers livestate,nginx,go --rounds 5 --seconds 5
  python -m bench --scenario freshness --readers 10000
  python -m bench --scenario events --peers livestate,nchan --event-readers 2000 --rounds 3
  python -m bench --check                               compare the latest results with the targets
"""


def _names(known: dict[str, Any], what: str) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no such {what}: {', '.join(unknown)} (there are {', '.join(known)})")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare livestate with other servers: CPU per request or event, memory per connection, delays.\n"
        "The server has one core to itself, and the load another. Peers take turns in each round.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--scenario",
        dest="scenarios",
        type=_names(SCENARIOS, "scenario"),
        default=tuple(SCENARIOS),
        metavar="NAMES",
        help=f"comma-separated, from: {', '.join(SCENARIOS)} (all)",
    )
    add(
        "--peers",
        type=_names(PEERS, "peer"),
        default=tuple(PEERS),
        metavar="NAMES",
        help=f"comma-separated, from: {', '.join(PEERS)} (all)",
    )
    add("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    add("--seconds", type=float, default=5.0, help="measured seconds per round (%(default)s)")
    add("--warm", type=float, default=1.5, help="seconds of load before each measurement (%(default)s)")
    add("--connections", type=int, default=1000, help="keep-alive connections under load (%(default)s)")
    add("--idle", type=int, default=5000, help="idle connections (%(default)s)")
    add("--readers", type=int, default=1000, help="polling clients for freshness (%(default)s)")
    add("--versions", type=int, default=12, help="changes of the document for freshness (%(default)s)")
    add("--event-readers", type=int, default=15_000, help="subscribers of event streams, HTTP (%(default)s)")
    add("--event-tls-readers", type=int, default=8_000, help="subscribers of event streams, HTTPS (%(default)s)")
    add("--changes", type=int, default=10, help="changes per round for event streams, one per second (%(default)s)")
    add("--push-readers", type=int, default=5000, help="subscribers for pushed changes (%(default)s)")
    add("--push-changes", type=int, default=60, help="number of pushed changes (%(default)s)")
    add("--server-core", type=int, help="core of the server (the last available)")
    add("--load-core", type=int, help="core of the load, the store and the bench (the first available)")
    add(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with Twisted whose twistd runs livestate (this one)",
    )
    add(
        "--peer-python",
        metavar="PATH",
        help="interpreter with bench/requirements.txt for uvicorn, Granian, Flask and twisted.web (this one)",
    )
    add("--check", action="store_true", help="compare the results with the targets, and print a verdict for each")
    add("--plot", action="store_true", help="redraw the chart from the latest results, without measuring")
    add("--scratch", action="store_true", help="do not save the results")
    add("--list", action="store_true", help="list the peers, how each is set up and why, and which are missing")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    server, load = cores()
    chosen = {name: value for name, value in vars(options).items() if name in Settings.__dataclass_fields__}
    chosen["server_core"] = server if options.server_core is None else options.server_core
    chosen["load_core"] = load if options.load_core is None else options.load_core
    # Absolute, since children run in other folders. Not resolve(): the interpreter of a virtualenv is a link out of it.
    chosen["python"] = str(Path(options.python).absolute())
    chosen["peer_python"] = str(Path(options.peer_python or options.python).absolute())
    if chosen["server_core"] == chosen["load_core"]:
        raise BenchError("--server-core and --load-core must differ")
    return Settings(**chosen)


def _check_tools() -> None:
    absent = [name for name in ("wrk", "ss", "taskset", "openssl") if shutil.which(name) is None]
    if absent:
        raise BenchError(f"not installed: {', '.join(absent)}")


def _measure(settings: Settings) -> dict[str, Any]:
    measured: dict[str, Any] = {"scenarios": {}}
    facts = machine.facts()
    with tempfile.TemporaryDirectory(prefix="livestate-bench-") as folder:
        binary = client.build(Path(folder))
        for name in settings.scenarios:
            result = run.scenario(SCENARIOS[name], settings, binary)
            result |= {"measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "settings": settings.facts()}
            result |= {"machine": facts, "versions": environment.versions(settings, tuple(result["peers"]))}
            measured["scenarios"][name] = result
            print(report.scenario(name, result), flush=True)
    return measured


def main() -> int:
    """Run the command, and return its exit status.

    :returns: 0; 1 if --check finds a missed target; 2 for an error that the user must fix; 130 after Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args()
    try:
        settings = _settings(options)
        if options.list:
            print(environment.listing(settings))
            return 0
        latest = results.read()
        if options.plot:
            plot.save(latest)
            return 0
        asked = any(argument.split("=")[0] == "--scenario" for argument in sys.argv[1:])
        if asked or not options.check:
            _check_tools()
            raise_file_limit()
            measured = _measure(settings)
            latest = {"scenarios": {**latest["scenarios"], **measured["scenarios"]}}
            if not options.scratch:
                print(f"results: {results.save(measured).name} in bench/results")
                plot.save(latest)
        if options.check or set(settings.scenarios) == set(SCENARIOS):
            print(report.check(latest))
        return 1 if options.check and not targets.passed(targets.judge(latest)) else 0
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; stopped all servers that it had started", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
