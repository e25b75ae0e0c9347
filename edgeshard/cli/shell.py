"""``edgeshard shell``: an SQL shell on the master, read-only."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from edgeshard.cli import arguments, exits, output
from edgeshard.store import Store

SUMMARY = "Open an SQL shell on a store's master, which it only reads; interactive, or with SQL from a pipe."

_EPILOG = """\
This is apsw's shell, much like sqlite3's: .help lists the commands, .mode the output formats, .exit leaves.
.tables lists the record tables with their rows and columns, .shards the store's shards.

examples:
  %(prog)s data
  %(prog)s data "select count(*) from agent_data" .shards
  echo "select count(*) from agent_data" | %(prog)s data

exit codes:
  0 done               1 a statement from a pipe or an argument failed      2 wrong usage
  74 input/output error     75 the master is locked     77 not permitted
  78 there is no such store, or no master in it
"""

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument(
        "sql", metavar="SQL", nargs="*", help="statements, or commands that begin with a dot; none: read stdin"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the shell to its end."""
    store = arguments.store_with_master(options)
    if not options.sql:
        arguments.ensure_stdin()
    with store.shell() as shell:
        shell.prompt = "edgeshard> "
        if not output.is_coloured(sys.stdout):
            shell.command_colour(["off"])
        return _run_each(shell, options.sql) if options.sql else _run_loop(shell, store)


def _run_each(shell: Any, lines: list[str]) -> int:
    shell.interactive = False  # so that Ctrl-C ends it
    for line in lines:
        try:
            shell.process_complete_line(line)
        except Exception:
            shell.handle_exception()
            return exits.FAILED
    return exits.DONE


def _run_loop(shell: Any, store: Store) -> int:
    intro = f'{store.master_path}, read-only. Enter ".help" for the commands, ".shards" for the shards.\n'
    try:
        shell.cmdloop(intro)
    except BrokenPipeError:
        raise
    except OSError as error:  # the loop handles all others
        logger.warning("the history of this session is not kept: %s", error)
    return exits.FAILED if shell.failures and not shell.interactive else exits.DONE
