"""The `livestate` command: its subcommands and their arguments."""

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react

from livestate import __version__
from livestate.cli.check import check_url
from livestate.cli.publish import publish, publish_changes
from livestate.cli.watch import WatchOptions, watch_url
from livestate.config.redaction import redacted
from livestate.errors import LivestateError, SettingsError
from livestate.formats.json_pointer import Pointer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    :raises SystemExit: always. The exit status is 0 for success, 1 for failure (one line on standard error says why),
        2 for wrong usage, and 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[Any], Coroutine[Any, Any, int]] = options.run(options)
    status = 0

    async def run(reactor: Any) -> None:
        nonlocal status
        try:
            status = await command(reactor)
        except LivestateError as error:
            print(f"livestate: {error}", file=sys.stderr)
            status = 1
        except CancelledError:
            status = 130

    def start(reactor: Any) -> Deferred[None]:
        running = Deferred.fromCoroutine(run(reactor))

        def stop() -> Deferred[None]:
            running.cancel()
            return running

        # An interrupt stops the reactor. The command must clean up before that.
        reactor.addSystemEventTrigger("before", "shutdown", stop)
        return running

    try:
        react(start)
    except SystemExit as exit_:
        # react itself exits with 0, or with 1 after an exception that it logged.
        sys.exit(exit_.code or status)


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments without the passwords in them."""

    def error(self, message: str) -> NoReturn:
        super().error(redacted(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="livestate",
        description="Tools for the livestate service. Start the service itself with: twistd -n livestate",
    )
    parser.add_argument("--version", action="version", version=f"livestate {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("publish", help="validate a JSON file and write it to a store")
    command.add_argument("file", metavar="FILE", help="the JSON file, or - for standard input")
    command.add_argument(
        "--to", required=True, metavar="URL",
        help="the store, such as redis://127.0.0.1:6379/0?key=livestate; &notify=CHANNEL also notifies subscribers",
    )  # fmt: skip
    command.add_argument("--watch", action="store_true", help="keep running, and write the file whenever it changes")
    command.set_defaults(
        run=lambda options: (
            lambda reactor: (
                publish_changes(reactor, options.file, options.to, sys.stderr)
                if options.watch
                else publish(reactor, options.file, options.to)
            )
        )
    )

    command = commands.add_parser("watch", help="show or print a document, now and whenever it changes")
    command.add_argument("url", metavar="URL", help="the document, such as https://localhost:8443/results.json")
    command.add_argument("--cafile", type=Path, metavar="FILE", help="trust the certificates in this PEM file")
    command.add_argument(
        "--pointer", type=_pointer, default=Pointer(""), metavar="POINTER",
        help="follow only this part of the document (a JSON Pointer, RFC 6901), such as /votes/Meadow",
    )  # fmt: skip
    command.add_argument(
        "--patch", action="store_true", help="after the first state, print changes as merge patches (RFC 7396)"
    )
    command.add_argument("--jsonl", action="store_true", help="print each state or patch on one line, with its version")
    command.add_argument("--count", type=_count, metavar="N", help="exit after N states or changes")
    command.set_defaults(
        run=lambda options: lambda reactor: watch_url(
            reactor, options.url, options.cafile,
            WatchOptions(options.pointer, patch=options.patch, lines=options.jsonl, count=options.count),
        )
    )  # fmt: skip

    command = commands.add_parser("check", help="request a document and report problems with how it is served")
    command.add_argument("url", metavar="URL", help="the document, such as https://localhost:8443/")
    command.add_argument("--cafile", type=Path, metavar="FILE", help="trust the certificates in this PEM file")
    command.set_defaults(
        run=lambda options: lambda reactor: check_url(reactor, options.url, options.cafile, sys.stdout)
    )
    return parser


def _pointer(text: str) -> Pointer:
    try:
        return Pointer(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text[:9]):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)
