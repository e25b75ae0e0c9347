"""``edgeshard restore``: put a snapshot in the place of the master."""

from __future__ import annotations

import argparse
import shlex

from edgeshard.cli import arguments, confirm, exits, output, verify
from edgeshard.errors import printable
from edgeshard.reports import REPLACED, RestoreReport
from edgeshard.store import Store

SUMMARY = "Put a snapshot in the place of a store's master, and say which rows are missing from it."

_EPILOG = """\
Stop what merges, pushes or reads first; agents may go on writing. The snapshot is checked before anything is replaced.
The replaced master stays in the folder, as replaced-master-TIME-XXXXXXXX.db. Rows that are still in shards come with
the next merge. Rows that shards brought since the snapshot, and do not have any more, are missing; each gap is listed,
with who may have its rows. If this command is killed, the old or the new master is in place, whole.

examples:
  %(prog)s data /srv/backup/monday.db --dry-run        is the snapshot sound, and what would be missing?
  %(prog)s data /srv/backup/monday.db
  edgeshard merge data --from data/replaced-master-TIME-XXXXXXXX.db      take back what the replaced master has

exit codes:
  0 done, and nothing is missing                       1 failed, or not confirmed       2 wrong usage
  3 done, but rows are missing; each gap is listed, and closes once a database that has its rows is merged
  65 the snapshot is damaged                           74 input/output error, or no space
  75 a merger is at work or watches the store, or a process has the master open
  77 not permitted                   78 there is no such folder or snapshot, or it is of another master
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument(
        "snapshot", metavar="SNAPSHOT", type=arguments.name, help="a file that `edgeshard snapshot` made of this master"
    )
    confirm.add_yes(parser)
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    parser.set_defaults(run=run, interrupted="interrupted; the master was not replaced")


def run(options: argparse.Namespace) -> int:
    """Restore the snapshot, and report what is missing."""
    store = arguments.store_of(options)
    question = f"Replace the master {store.master_path} with the snapshot {options.snapshot}?"
    if not confirm.is_confirmed(options, question):
        return exits.FAILED
    with output.progress("pages copied", quiet=options.quiet) as progress:
        report = store.restore(options.snapshot, dry_run=options.dry_run, progress=progress)
    output.print_report(report, _text(store, report), as_json=options.json, quiet=options.quiet and report.complete)
    return exits.report_code(complete=report.complete)


def _text(store: Store, report: RestoreReport) -> str:
    lines = [str(report), *verify.missing_rows(report.losses)]
    held = sum(len(loss.gap) for loss in report.losses if loss.cause == REPLACED)
    if held and report.replaced:
        command = f"edgeshard merge {shlex.quote(str(store.root))} --from {shlex.quote(report.replaced)}"
        lines.append(printable(f"the replaced master has {held} of these rows; take them back with: {command}"))
    if report.replaced and not report.is_replaced_readable:
        lines.append(printable(f"{report.replaced} cannot be read as a master; keep it until you have all rows back"))
    if report.gaps and report.peers:
        lines.append("these databases gave receipts, and may have missing rows; merge them, or their bundles:")
        lines += [printable(f"  {peer.kind} {peer.database}") for peer in report.peers]
    return "\n".join(lines)
