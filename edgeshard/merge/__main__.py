"""``python -m edgeshard.merge``: one merge, quiet enough for cron."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence

from edgeshard import exits
from edgeshard.errors import ConfigurationError, EdgeshardError
from edgeshard.report import MergeReport
from edgeshard.store import Store

_EPILOG = """\
examples:
  python -m edgeshard.merge data                          merge the shards in data/shards into data/master.db
  python -m edgeshard.merge data --from /media/usb/master.db
                                                          bring another device's rows in as well
  */5 * * * *  python -m edgeshard.merge /srv/data -q     in a crontab: every five minutes, silent when all is well

exit codes:
  0 done, also with nothing to do     1 failed            2 wrong usage
  3 done, but something was set aside or is missing       74 input/output error, or no room
  75 another merger is at work        77 not permitted    78 wrong configuration
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    level = logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        report = _merge(options)
    except EdgeshardError as error:
        print(f"edgeshard.merge: {error}", file=sys.stderr)
        return exits.exit_code(error)
    except KeyboardInterrupt:
        print("edgeshard.merge: interrupted; what was committed stays, the rest is merged next time", file=sys.stderr)
        return exits.INTERRUPTED
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not (options.quiet and report.complete):
        print(report)
    return exits.DONE if report.complete else exits.INCOMPLETE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edgeshard.merge",
        description="Copy the rows of all shards of a store into its master, exactly once, and truncate the shards.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", metavar="ROOT", help="the store's folder")
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="DB",
        nargs="+",
        action="extend",
        default=[],
        help="other databases of edgeshard to merge as well (masters, shards, copies); they are only read",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument(
        "--lock-wait",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="wait up to S seconds for another merger (default: 0)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well; errors still")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _merge(options: argparse.Namespace) -> MergeReport:
    store = Store(options.root)
    if not store.root.is_dir():
        # a cron job with a typing error must not make a store of its own
        raise ConfigurationError("merge", store.root, "there is no such folder; agents make it when they first write")
    if not options.sources and not (store.root / "shards").exists() and not store.master_path.exists():
        return MergeReport(dry_run=options.dry_run)
    progress = _Progress() if sys.stderr.isatty() and not options.quiet else None
    report = store.merge(options.sources, dry_run=options.dry_run, lock_wait=options.lock_wait, progress=progress)
    if progress is not None:
        progress.end()
    return report


class _Progress:
    """A line on the terminal, from the second second on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, done: int, to_do: int) -> None:
        if time.monotonic() - self._began > 1.0:
            self._shown = True
            print(f"\r{done} of {to_do} rows merged", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
