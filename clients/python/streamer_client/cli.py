"""The command `streamer`. Installed distributions add subcommands by the entry-point group `streamer.commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Protocol


class Command(Protocol):
    """A subcommand: what an entry point of the group loads to."""

    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class UsageError(Exception):
    """Bad input to a subcommand: printed as one line, exit status 2."""


BAR_CHARS = 24


def show_progress(share: float, text: str) -> None:
    """A bar over the last one, on stderr; nothing where that is no terminal.

    Args:
        share: Done, 0 to 1.
        text: Beside the bar.
    """
    if sys.stderr.isatty():
        filled = int(BAR_CHARS * min(max(share, 0.0), 1.0))
        bar = "█" * filled + "·" * (BAR_CHARS - filled)
        print(f"\r{bar} {text[:80]}\033[K", end="", file=sys.stderr, flush=True)


def end_progress() -> None:
    """Take the bar away."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """One line an error, as a person reads it in a log."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status (2 for bad input, with one line on stderr)."""
    parser = _Parser(prog="streamer", description="Live, endless, steerable video.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("-")), None)
    for entry in sorted(entry_points(group="streamer.commands"), key=lambda entry: entry.name):
        # Only the command that is meant is imported, so that each starts as fast as it can.
        if wanted in (None, entry.name):
            command: Command = entry.load()
            sub = commands.add_parser(entry.name, help=command.help, description=command.help)
            command.add_arguments(sub)
            sub.set_defaults(run=command.run)
        else:
            commands.add_parser(entry.name)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except UsageError as error:
        print(f"streamer {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
