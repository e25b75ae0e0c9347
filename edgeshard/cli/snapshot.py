"""``edgeshard snapshot``: copy the live master into one file to carry away."""

from __future__ import annotations

import argparse
import os
import time

from edgeshard import units
from edgeshard.cli import arguments, exits, output
from edgeshard.errors import printable

SUMMARY = "Copy a store's master as it is at this moment into one file, while writers and mergers continue."

_EPILOG = """\
The copy is a SQLite file that needs no other file: carry it on a stick, read it from a read-only medium, merge it
elsewhere. It appears under its name complete, or not at all, even if the disk fills up or this command is killed.
The copy is checked before it gets its name, as `edgeshard verify --deep` checks a master; --no-check leaves that out.
A damaged copy never replaces an existing file.
It holds what has been merged: rows that are still in the shards come with the next merge, and the next snapshot.

examples:
  %(prog)s data /media/usb/monday.db
  %(prog)s data backup.db --force -q                   in a crontab: replace yesterday's
  edgeshard merge hub --from /media/usb/monday.db      on another device: take its rows

exit codes:
  0 done                            1 failed         2 wrong usage
  65 the master is damaged, or the copy; nothing was created or replaced
  74 input/output error, or no space                 75 another snapshot is writing this file
  77 not permitted                  78 the file exists already, or is a part of a store; or there is no such store
                                       or no master
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument(
        "target", metavar="TARGET", type=arguments.name, help="the file to create, in an existing folder"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file, but no part of a store")
    parser.add_argument("--no-check", dest="check", action="store_false", help="do not check the copy, for speed")
    arguments.add_quiet(parser)
    parser.set_defaults(run=run, interrupted="interrupted; nothing was created")


def run(options: argparse.Namespace) -> int:
    """Make the copy, and report its size."""
    began = time.monotonic()
    store = arguments.store_with_master(options)
    with output.progress("pages copied", quiet=options.quiet) as progress:
        store.snapshot(options.target, force=options.force, check=options.check, progress=progress)
    if not options.quiet:
        size = os.path.getsize(options.target)
        print(printable(f"copied {units.size(size)} to {options.target} in {time.monotonic() - began:.3f} s"))
    return exits.DONE
