"""``edgeshard export``: write the rows that another store lacks into one file to carry there."""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, exits, output

SUMMARY = "Write the rows of a store's master that another store lacks into one file, a bundle, to carry there."

_EPILOG = """\
A bundle is a SQLite file that needs no other file and has a checksum; the other store takes it with `edgeshard
merge --from`. It appears under its name complete, or not at all, even if the disk fills up or this command is killed.
It holds what has been merged: rows that are still in the shards come with the next merge, and the next bundle.

What the other store lacks is known from its last receipt here (--since-hub), or from what `edgeshard ranges` printed
there (--ranges). With neither, all rows are written; it does no harm if some are there already. A bundle that is lost
on its way leaves gaps in the other store, which lists them; the next bundle written by receipt has those rows again.

examples:
  %(prog)s data /media/usb/all.db
  %(prog)s data /media/usb/news.db --ranges /media/usb/hub.json
  %(prog)s data /media/usb/news.db --since-hub 5f0c1a    the first digits of its id, which `edgeshard ranges` prints
  edgeshard merge hub --from /media/usb/news.db            at the other store

exit codes:
  0 done, also if there is nothing new         1 failed         2 wrong usage
  65 the master is damaged, or the file of ranges is incomplete or was changed
  74 input/output error, or no space           75 another command is writing this file
  77 not permitted                             78 the file exists already, or there is no such store, no master, no
                                                  receipt of such a store, or no such file of ranges
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument(
        "target", metavar="BUNDLE", type=arguments.name, help="the file to create, in an existing folder"
    )
    lacking = parser.add_mutually_exclusive_group()
    lacking.add_argument(
        "--since-hub",
        metavar="HUB-ID",
        type=arguments.name,
        help="leave out the rows in the last receipt of the store with this id (its first 6 or more digits are enough)",
    )
    lacking.add_argument(
        "--ranges", metavar="FILE", type=arguments.name, help="leave out the rows that this file lists; -: stdin"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file, but no part of a store")
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    parser.set_defaults(run=run, interrupted="interrupted; nothing was created")


def run(options: argparse.Namespace) -> int:
    """Write the bundle, and report what is in it."""
    store = arguments.store_with_master(options)
    ranges = None if options.ranges is None else arguments.file_or_stdin(options.ranges)
    with output.progress("rows written", quiet=options.quiet) as progress:
        report = store.export(
            options.target, since_hub=options.since_hub, ranges=ranges, force=options.force, progress=progress
        )
    output.print_report(report, str(report), as_json=options.json, quiet=options.quiet)
    return exits.DONE
