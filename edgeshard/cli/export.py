"""``edgeshard export``: the rows that another store lacks, in one file to carry there."""

from __future__ import annotations

import argparse
import json

from edgeshard.cli import arguments, exits, terminal

SUMMARY = "Write the rows of a store's master that another store lacks into one file, a bundle, to carry there."

_EPILOG = """\
A bundle is a SQLite file that needs no file beside it and has a checksum; the other store takes it with `edgeshard
merge --from`. It appears under its name whole, or not at all, also where the disk fills up or this command is killed.
It holds what has been merged: rows that are still in the shards come with the next merge, and the next bundle.

What the other store lacks is told by its last receipt here (--since-hub), or by what `edgeshard ranges` printed there
(--ranges). With neither, all rows are written; they do no harm where they are already. A bundle that is lost on its way
leaves named gaps in the other store; the next one that is written by a receipt has its rows again.

examples:
  %(prog)s data /media/usb/all.db
  %(prog)s data /media/usb/news.db --ranges /media/usb/hub.json
  %(prog)s data /media/usb/news.db --since-hub 5f0c1a    the first digits of its id, which `edgeshard ranges` prints
  edgeshard merge hub --from /media/usb/news.db            at the other store

exit codes:
  0 done, also where there is no news          1 failed         2 wrong usage
  74 input/output error, or no room            75 another command is making this file
  77 not permitted                             78 there is such a file already, no such folder, no master, no receipt
                                                  of such a store, or no such file of ranges
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("target", metavar="BUNDLE", type=arguments.name, help="the file to make, in an existing folder")
    lacking = parser.add_mutually_exclusive_group()
    lacking.add_argument(
        "--since-hub",
        metavar="HUB-ID",
        type=arguments.name,
        help="leave out what the last receipt of this store says: its id, or 6 and more of its first digits",
    )
    lacking.add_argument(
        "--ranges", metavar="FILE", type=arguments.name, help="leave out what this file of ranges says; -: stdin"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that has this name")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well")
    parser.set_defaults(run=run, interrupted="interrupted; nothing was made")


def run(options: argparse.Namespace) -> int:
    """Write it, and say what is in it."""
    store = arguments.store_with_master(options)
    ranges = None if options.ranges is None else arguments.ranges_of(options.ranges)
    with terminal.progress("rows written", quiet=options.quiet) as progress:
        report = store.export(
            options.target, since_hub=options.since_hub, ranges=ranges, force=options.force, progress=progress
        )
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not options.quiet:
        print(report)
    return exits.DONE
