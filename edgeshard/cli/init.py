"""``edgeshard init``: make an empty store."""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, confirm, exits, output
from edgeshard.store import Store

SUMMARY = "Make an empty store, for merges that run before the first agent, and for hubs that have no agents."

_EPILOG = """\
Agents make the store with their first write. All other commands need one, so that a mistyped path is an error and not
another store, in which all seems well. If the store exists already, nothing is changed. What else is in the folder
stays.

On a terminal it asks before it makes a store, unless --yes is given.

examples:
  %(prog)s data                          before `edgeshard merge data` is put into a crontab
  %(prog)s hub                           into which `edgeshard merge hub --from ...` merges the rows of devices
  %(prog)s data --dry-run                is it a store, and could it be one?

exit codes:
  0 done, also if it is a store already       1 failed, or not confirmed       2 wrong usage
  74 input/output error, or no space          75 another process is at work on it
  77 not permitted                            78 a file, a link that leads nowhere, or a part of another store
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    confirm.add_yes(parser)
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    interrupted = "interrupted; run it again to complete the store"
    parser.set_defaults(run=run, interrupted=interrupted)


def run(options: argparse.Namespace) -> int:
    """Make the store, and report whether it was made."""
    store = Store(options.root)
    plan = store.init(dry_run=True)
    if plan.created and not confirm.is_confirmed(options, f"Make a store in {store.root}?"):
        return exits.FAILED
    report = store.init(dry_run=options.dry_run)
    output.print_report(report, str(report), as_json=options.json, quiet=options.quiet)
    return exits.DONE
