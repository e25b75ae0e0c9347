"""``edgeshard receipt``: record the inventory of another store, so that its rows count as safe there."""

from __future__ import annotations

import argparse
import shlex

from edgeshard.cli import arguments, exits, output
from edgeshard.errors import printable

SUMMARY = "Record in a store's master what another store holds durably, as `edgeshard ranges` printed it there."

_EPILOG = """\
From then on `edgeshard export --since-hub` leaves out what that store has, `edgeshard verify` says which of the rows
that are missing here it holds, and `edgeshard prune --only-receipted` may delete rows that it holds. Each receipt
replaces the last one of the same store. If it is unclear which is the later one, only what both say counts (--force
records it as it is). Streams and rows that are not known here are ignored.

Confirm each store once, with --trust, after you compared its id with the one that `edgeshard status` prints there.
Until then its receipts await confirmation: nothing of them counts, and `edgeshard status` lists them. PostgreSQL
databases that this store pushed to are confirmed by that. Do not use --trust in scripts: it confirms whatever made the
file.

examples:
  %(prog)s data /media/usb/hub.json --trust                         the first time
  %(prog)s data /media/usb/hub.json
  ssh hub edgeshard ranges /srv/hub | %(prog)s data -

exit codes:
  0 done                            1 failed                  2 wrong usage
  3 the store awaits confirmation; nothing of the receipt counts
  65 the file is incomplete, or was changed; or the master is damaged
  74 input/output error, or no space
  75 the master is locked           77 not permitted
  78 there is no such store, no master in it, no such file, or it is not a receipt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("file", metavar="FILE", type=arguments.name, help="what `edgeshard ranges` printed; -: stdin")
    parser.add_argument(
        "--force", action="store_true", help="record it even if a later one was recorded, or may have been"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="confirm that store: this receipt counts, and each later one",
    )
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record the receipt, and report what it says."""
    store = arguments.store_with_master(options)
    report = store.receipt(arguments.file_or_stdin(options.file), force=options.force, trust=options.trust)
    text = str(report)
    if not report.complete:
        command = shlex.join(["edgeshard", "receipt", options.root, options.file, "--trust"])
        text += printable(f". If `edgeshard status` shows this id there, confirm it once: {command}")
    output.print_report(report, text, as_json=options.json, quiet=options.quiet and report.complete)
    return exits.report_code(complete=report.complete)
