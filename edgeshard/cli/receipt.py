"""``edgeshard receipt``: note what another database said that it holds."""

from __future__ import annotations

import argparse
import json

from edgeshard.cli import arguments, exits

SUMMARY = "Note in a store's master what another store holds durably, as `edgeshard ranges` printed it there."

_EPILOG = """\
From then on `edgeshard export --since-hub` leaves out what that store has, and `edgeshard verify` says so of rows that
are missing here. Each receipt takes the place of the last one of the same store. An older one that comes later changes
nothing; where it cannot be told which is the later, because a clock was set back, only what both say counts (--force
notes it as it is). Streams that are not known here are left out.

examples:
  %(prog)s data /media/usb/hub.json
  ssh hub edgeshard ranges /srv/hub | %(prog)s data -

exit codes:
  0 done, also where the receipt was an older one         1 failed; also where the file is not whole
  2 wrong usage                     74 input/output error, or no room
  75 somebody holds the master locked                     77 not permitted
  78 there is no such folder, no master in it, no such file, or it is no receipt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("file", metavar="FILE", type=arguments.name, help="what `edgeshard ranges` printed; -: stdin")
    parser.add_argument("--force", action="store_true", help="note it although a later one was noted, or may have been")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Note it, and say what was noted."""
    store = arguments.store_with_master(options)
    report = store.receipt(arguments.ranges_of(options.file), force=options.force)
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not options.quiet:
        print(report)
    return exits.DONE
