"""Ask before something is done that cannot be undone."""

from __future__ import annotations

import argparse
import sys

from edgeshard.cli import output
from edgeshard.errors import printable


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add ``--yes``."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask, even on a terminal")


def is_confirmed(options: argparse.Namespace, question: str) -> bool:
    """Return whether to go on with something that cannot be undone.

    The user is asked only on a terminal: cron jobs and services have nobody to ask.

    Args:
        options: the verb's; `yes` and, if it has one, `dry_run` are used.
        question: what would be done, as a question: "Delete all rows of table t?".
    """
    is_closed = sys.stdin is None  # as Python leaves it
    if options.yes or getattr(options, "dry_run", False) or is_closed or not sys.stdin.isatty():
        return True
    print(printable(question), "[y/N]", end=" ", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    output.print_error(f"edgeshard {options.verb}: not confirmed; nothing was changed")
    return False
