"""The console script ``edgeshard``: one module per verb (`verbs`); errors are caught and printed here.

Exit codes are in `exits`. Verbs call `edgeshard.store.Store` and nothing below it. What is slow to import is imported
when a verb runs, so a merge started by cron does not pay for the others.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from edgeshard.cli import arguments, exits, hints, logs, output, verbs
from edgeshard.errors import EdgeshardError
from edgeshard.store import VERSION

_EPILOG = """\
examples:
  edgeshard init data                                           an empty store, before the first agent has written
  edgeshard write data door '{"open": true}'                    a row of the agent "door"; also --ndjson and --csv
  edgeshard import data agent_shards/*.db                       what other programs wrote: SQLite, NDJSON, CSV
  edgeshard merge data                                          merge the shards in data/shards into data/master.db
  edgeshard status data                                         is all well, and what to do if not?
  edgeshard tables data                                         which tables, with how many rows and which columns?
  edgeshard verify data                                         is anything missing or damaged?
  edgeshard query data "select count(*) from agent_data"        as a table; also --json and --csv
  edgeshard shell data                                          an SQL shell on the master, read-only
  edgeshard snapshot data /media/usb/monday.db                  a copy to carry away, while everything runs
  edgeshard restore data /media/usb/monday.db                   put that copy back, and say what is missing from it
  edgeshard ranges hub > /media/usb/hub.json                    what a hub holds, for stores with rows for it
  edgeshard export data /media/usb/news.db --ranges /media/usb/hub.json     what it lacks, to take there
  edgeshard receipt data /media/usb/hub.json                    record that those rows are safe there
  edgeshard prune data --older-than 30d                         delete old rows for good
  edgeshard clock data                                          may rows be deleted by age?
  edgeshard push data postgresql://edge@db.example.com/fleet    what PostgreSQL lacks, exactly once
  edgeshard rejected data                                       what PostgreSQL could not store, and why
  edgeshard salvage data data/shards/door.db                    what can be read of a damaged shard
  edgeshard erase data reading --where "sensor = 'inlet'"       rows that must go for good, also pending ones
  edgeshard accept-loss data --agent door-3 --why "its SD card broke"     rows that will never come
  edgeshard help                                                the verbs and the guides, without a network
  edgeshard merge --help                                        a verb, its options and exit codes

exit codes:
  0 done, also with nothing to do     1 failed                    2 wrong usage
  3 done, but something is quarantined, blocked, rejected or missing, or a receipt or the clock awaits
    confirmation
  65 the master, or shard, is damaged
  69 PostgreSQL is unavailable       74 input/output error, or no space      75 another process is at work
  77 not permitted                   78 wrong configuration, such as a path that is not a store
  130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``edgeshard VERB ...`` and return the exit code."""
    _ensure_output()
    options = parse(sys.argv[1:] if argv is None else argv)
    return _run(options, f"edgeshard {options.verb}")


def main_of_merge(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m edgeshard.merge ...``, which is ``edgeshard merge ...``, and return the exit code."""
    _ensure_output()
    return _run(verbs.parser_of("merge", "python -m edgeshard.merge").parse_args(argv), "edgeshard.merge")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of the verb that the first word names; without a verb, those of ``help``.

    Raises:
        SystemExit: the words ask for a help text or the version, which is printed, or are wrong usage, which is said.
    """
    verb, *rest = words or ["help"]
    if verb not in verbs.VERBS:
        parser = _parser()
        parser.parse_args(words)
        parser.error(f"there is no verb {verb!r}{arguments.nearest(verb, verbs.VERBS)}")
    options: argparse.Namespace = verbs.parser_of(verb).parse_args(rest)  # making those of all takes 8 ms
    return options


def _parser() -> argparse.ArgumentParser:
    """Return the parser of what is no verb."""
    made = arguments.Parser(
        prog="edgeshard",
        usage="edgeshard VERB ...",
        description="Many writers, each with its own SQLite file; one master database with all their rows.",
        epilog=f"{verbs.overview()}\n\n{_EPILOG}",
        add_help=False,
    )
    made.add_argument("verb", metavar="VERB", nargs="*", help=argparse.SUPPRESS)
    made.add_argument("-h", "--help", action="help", help="show this text")
    made.add_argument("-V", "--version", action="version", version=f"edgeshard {VERSION}", help="show the version")
    return made


def _run(options: argparse.Namespace, name: str) -> int:
    """Run a verb; `name` begins each error message."""
    logs.configure(_log_level(options), options.log_format, long_running=options.watch)
    try:
        code = _run_verb(options, name)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        output.drop()
        return exits.BROKEN_PIPE
    except OSError as error:  # of stdout; those of the store are EdgeshardErrors
        output.drop()
        output.print_error(f"{name}: {error.filename or 'the output'}: {error.strerror or error}")
        return exits.IO_ERROR


def _log_level(options: argparse.Namespace) -> int:
    """Return the lowest level that is logged: a service says what it does, unless it is to be quiet."""
    if options.verbose:
        return logging.DEBUG
    return logging.INFO if options.watch and not options.quiet else logging.WARNING


def _run_verb(options: argparse.Namespace, name: str) -> int:
    """Run a verb, and print the error that it ends with. Before that, it may have printed a report, to be flushed."""
    try:
        code: int = options.run(options)
        return code
    except EdgeshardError as error:
        output.print_error(f"{name}: {hints.explain(error, options)}")
        return exits.exit_code(error)
    except KeyboardInterrupt:
        output.print_error(f"{name}: {options.interrupted}")
        return exits.INTERRUPTED


def _ensure_output() -> None:
    """Make stdout and stderr take any text, even if the caller closed them or set another encoding."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # it is ours until the process ends
        else:
            stream.reconfigure(errors="backslashreplace")
