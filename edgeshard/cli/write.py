"""``edgeshard write``: write rows into an agent's shard, from an argument, a file or a pipe."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edgeshard.cli import arguments, confirm, exits, output, signals
from edgeshard.errors import ConfigurationError, printable
from edgeshard.reports import BAD_LINES_MAX, BadLine
from edgeshard.store import DURABILITIES, LINES_BATCH, LOCK_WAIT_S, Store, explain_os_error

if TYPE_CHECKING:
    from edgeshard.handles import LineWriter

SUMMARY = "Write rows into an agent's shard: one, or those of an NDJSON or CSV file, or of a pipe."

_EPILOG = """\
A row is a JSON object, and becomes a row of agent_data, or of --table. NDJSON has one such object per line. CSV has the
names of the columns in its first line; a field is a number if it is written exactly as one (7, -0.5; not 007, 1.10 or
1e3), null if it is empty, and otherwise text. Blank lines are skipped.

Rows are committed in batches: N rows, or what has arrived once the input pauses for a second. If this command is
killed, each batch is there as a whole or not at all. SIGINT or SIGTERM lets it commit what it has read, and report it.

A line is bad if it is not a row, or if a value in it cannot be stored exactly: a number that a float would round, a key
that occurs twice, NaN, text that is not UTF-8. The first bad line ends the write: it is named, and the rows of all
lines before it are committed. With --skip-bad it is left out: the first ten are named, and all are counted.

As with any agent, the first write makes the store; on a terminal this asks before, unless --yes is given.

examples:
  %(prog)s data door '{"open": true}'
  %(prog)s data door --ndjson events.ndjson --table event
  %(prog)s data door --csv readings.csv --skip-bad
  tail -n +1 -F app.log.json | %(prog)s data app --ndjson - --batch 1
  ssh sensor cat /var/log/readings.csv | %(prog)s data sensor --csv - --durability power --json

exit codes:
  0 done                       1 failed, a line is bad, or not confirmed       2 wrong usage
  3 done, but bad lines were left out; or ended by SIGTERM before the end of the input
  65 the shard is damaged      74 input/output error, or no space on the disk or in the disk budget
  75 another process has the shard open (--lock-wait)     77 not permitted
  78 no such file, or there can be no such store          130 ended by SIGINT (Ctrl-C)
"""

#: How long the input may pause before what has arrived is committed, in seconds. A signal is noticed as soon.
_PAUSE_S = 1.0

_PIECE_BYTES = 1 << 16

_ACTION = "read lines of"

_STDIN = "standard input"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("agent", metavar="AGENT", type=arguments.name, help="the agent, whose shard gets the rows")
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("row", metavar="JSON", nargs="?", help="one row, a JSON object in quotes")
    rows.add_argument("--ndjson", metavar="FILE", type=arguments.name, help="a JSON object per line; -: stdin")
    rows.add_argument("--csv", metavar="FILE", type=arguments.name, help="CSV with a header; -: stdin")
    parser.add_argument("--table", metavar="T", type=arguments.name, help="the rows' table (default: agent_data)")
    parser.add_argument(
        "--batch",
        type=arguments.count,
        default=LINES_BATCH,
        metavar="N",
        help="rows per commit (default: %(default)s)",
    )
    parser.add_argument(
        "--durability",
        choices=tuple(DURABILITIES),
        default="process",
        help="what a committed row survives: a kill of this process (the default), or a power cut as well",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave bad lines out, and exit 3")
    arguments.add_lock_wait(parser, "for another process to close the shard", LOCK_WAIT_S)
    confirm.add_yes(parser)
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    interrupted = "interrupted; what is reported as committed stays"
    parser.set_defaults(run=run, interrupted=interrupted, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Write the rows, and report what was committed, also if that ends with an error."""
    if options.batch < 1:
        options.usage_error(f"argument --batch: must be a number from 1, got {options.batch}")
    if options.skip_bad and options.row is not None:
        options.usage_error("argument --skip-bad: requires --ndjson or --csv")
    store = Store(options.root)
    is_new = not store.exists()
    if not confirm.may_make(options, store):
        return exits.FAILED
    with signals.stop_on_signals() as stop:
        writer = store.line_writer(
            options.agent,
            table=options.table,
            batch=options.batch,
            durability=options.durability,
            wait=options.lock_wait,
            on_bad_line=_bad_line_printer(options) if options.skip_bad else None,
            should_stop=stop.is_requested,
        )
        try:
            with writer:
                _write(options, writer, stop)
        finally:
            report = writer.report
            made = printable(f"made the store {store.root}") + "\n" if is_new and store.exists() else ""
            output.print_report(
                report, f"{made}{report}", as_json=options.json, quiet=options.quiet and report.complete
            )
    if stop.by == signal.SIGINT:
        raise KeyboardInterrupt
    return exits.report_code(complete=report.complete)


def _write(options: argparse.Namespace, writer: LineWriter, stop: signals.Stop) -> None:
    if options.row is not None:
        writer.write_row(os.fsencode(options.row))
        return
    import select  # which no other command should pay

    name = _name(options)
    with _opened(options.csv or options.ndjson) as descriptor:

        def read() -> bytes:
            while stop.is_requested() or not select.select([descriptor], [], [], _PAUSE_S)[0]:
                writer.flush()
            try:
                return os.read(descriptor, _PIECE_BYTES)
            except OSError as error:
                raise explain_os_error(error, _ACTION, name) from error

        if options.csv is None:
            writer.write_ndjson(read, name)
        else:
            writer.write_csv(read, name)


def _name(options: argparse.Namespace) -> str:
    """Return what messages call the file that is read."""
    file: str = options.csv or options.ndjson
    return _STDIN if file == "-" else file


@contextlib.contextmanager
def _opened(file: str) -> Iterator[int]:
    """Yield the descriptor of a file, or of standard input if it is "-"."""
    source = arguments.file_or_stdin(file)
    if not isinstance(source, str):
        yield source.fileno()
        return
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError as error:
        raise ConfigurationError(_ACTION, file, "there is no such file; check the path") from error
    except OSError as error:
        raise explain_os_error(error, _ACTION, file) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _bad_line_printer(options: argparse.Namespace) -> Callable[[BadLine], None]:
    """Return a function that names the first bad lines."""
    numbers = itertools.count(1)

    def show(bad_line: BadLine) -> None:
        if next(numbers) <= BAD_LINES_MAX:
            output.print_error(f"edgeshard write: {_name(options)}, {bad_line}")

    return show
