"""The console script ``edgeshard``: one file a verb, and here the one place where exceptions become exit codes.

A verb is a module with ``configure(parser)``, which describes its arguments, and ``run(options)``, which does it and
returns the exit code. What is heavy a verb imports as it runs: a merge from cron pays for no other.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from edgeshard import format
from edgeshard.cli import (
    exits,
    export,
    logs,
    merge,
    prune,
    push,
    query,
    ranges,
    receipt,
    salvage,
    shell,
    snapshot,
    status,
    verify,
)
from edgeshard.errors import EdgeshardError

#: In the order of the help. A new verb is a module beside these, and a line here.
_VERBS = {
    "merge": merge,
    "status": status,
    "verify": verify,
    "query": query,
    "shell": shell,
    "snapshot": snapshot,
    "export": export,
    "ranges": ranges,
    "receipt": receipt,
    "prune": prune,
    "push": push,
    "salvage": salvage,
}

_EPILOG = """\
examples:
  edgeshard merge data                                          the shards in data/shards into data/master.db
  edgeshard status data                                         what waits to be merged, and is anything wrong?
  edgeshard verify data                                         is anything missing or damaged?
  edgeshard query data "select count(*) from agent_data"        as a table; also --json and --csv
  edgeshard shell data                                          an SQL shell on the master, read-only
  edgeshard snapshot data /media/usb/monday.db                  a copy to carry away, while all work
  edgeshard ranges hub > /media/usb/hub.json                    what a hub holds, for those who have rows for it
  edgeshard export data /media/usb/news.db --ranges /media/usb/hub.json     what it lacks, to carry there
  edgeshard receipt data /media/usb/hub.json                    note that those rows are safe there
  edgeshard prune data --older-than 30d                         old rows go, and do not come back
  edgeshard push data postgresql://edge@db.example.com/fleet    what PostgreSQL lacks, exactly once
  edgeshard salvage data data/shards/door.db                    what can be read of a damaged shard

  edgeshard VERB --help says more of each.

exit codes:
  0 done, also with nothing to do     1 failed                    2 wrong usage
  3 done, but something was set aside or is missing              65 the master, or shard, is damaged
  69 PostgreSQL is unavailable       74 input/output error, or no room       75 another is at work
  77 not permitted                   78 wrong configuration, such as a folder that does not exist
  130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``edgeshard VERB ...``; the exit code."""
    options = parser().parse_args(arguments)
    return _run(options, f"edgeshard {options.verb}")


def main_of_merge(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m edgeshard.merge ...``, which is ``edgeshard merge ...``; the exit code."""
    return _run(parser_of_merge().parse_args(arguments), "edgeshard.merge")


def parser() -> argparse.ArgumentParser:
    """The parser of ``edgeshard``, with one for each verb."""
    made = argparse.ArgumentParser(
        prog="edgeshard",
        description="Many writers, each with a SQLite file of its own; one master database with the rows of all.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"edgeshard {format.VERSION}")
    verbs = made.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in _VERBS.items():
        verb.configure(verbs.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter, help=verb.SUMMARY))
    return made


def parser_of_merge() -> argparse.ArgumentParser:
    """The parser of ``python -m edgeshard.merge``."""
    made = argparse.ArgumentParser(
        prog="python -m edgeshard.merge", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    merge.configure(made)
    return made


def _run(options: argparse.Namespace, name: str) -> int:
    """Do what a verb's `options` say; `name` begins each error."""
    _ensure_output()
    logs.configure(_level(options), options.log_format, lasting=options.watch)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except EdgeshardError as error:
        print(f"{name}: {error}".replace("\n", " "), file=sys.stderr)
        return exits.exit_code(error)
    except KeyboardInterrupt:
        print(f"{name}: {options.interrupted}", file=sys.stderr)
        return exits.INTERRUPTED
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        _drop_output()
        return exits.BROKEN_PIPE
    except OSError as error:  # those of the store are EdgeshardErrors
        _drop_output()
        print(f"{name}: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return exits.IO_ERROR


def _level(options: argparse.Namespace) -> int:
    return logging.DEBUG if options.verbose else logging.WARNING


def _ensure_output() -> None:
    """Have something to write to that takes any text, whatever the caller closed or set."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # it is ours until the process ends
        else:
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still buffered goes nowhere: Python would try to write it once more as it exits, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
