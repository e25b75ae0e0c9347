"""``edgeshard receipt``: record the inventory of another store, so that its rows count as safe there."""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, exits, output

SUMMARY = "Record in a store's master what another store holds durably, as `edgeshard ranges` printed it there."

_EPILOG = """\
From then on `edgeshard export --since-hub` leaves out what that store has, and `edgeshard verify` says which of the
rows that are missing here it holds. Each receipt replaces the last one of the same store. An older one that arrives
later changes nothing. If it is unclear which is the later one, because a clock was set back, only what both say
counts (--force records it as it is). Streams that are not known here are ignored.

examples:
  %(prog)s data /media/usb/hub.json
  ssh hub edgeshard ranges /srv/hub | %(prog)s data -

exit codes:
  0 done, also if the receipt was an older one            1 failed; also if the file is incomplete
  2 wrong usage                     74 input/output error, or no space
  75 the master is locked           77 not permitted
  78 there is no such folder, no master in it, no such file, or it is not a receipt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("file", metavar="FILE", type=arguments.name, help="what `edgeshard ranges` printed; -: stdin")
    parser.add_argument(
        "--force", action="store_true", help="record it even if a later one was recorded, or may have been"
    )
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record the receipt, and report what it says."""
    store = arguments.store_with_master(options)
    report = store.receipt(arguments.file_or_stdin(options.file), force=options.force)
    output.print_report(report, str(report), as_json=options.json, quiet=options.quiet)
    return exits.DONE
