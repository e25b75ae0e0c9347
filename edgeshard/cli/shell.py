"""``edgeshard shell``: an SQL shell on the master, read-only."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import Any

from edgeshard import sqlite
from edgeshard.cli import arguments, exits, terminal
from edgeshard.files import paths, scan
from edgeshard.inspect.status import agents_by_stem
from edgeshard.master import database, shard_states
from edgeshard.sqlite import Connection
from edgeshard.store import Store

SUMMARY = "An SQL shell on a store's master, which it only reads; interactive, or with SQL from a pipe."

_EPILOG = """\
It is apsw's shell, much like sqlite3's: .help lists the commands, .mode the ways of writing rows, .exit leaves.
.shards lists the store's shards.

examples:
  %(prog)s data
  %(prog)s data "select count(*) from agent_data" .shards
  echo "select count(*) from agent_data;" | %(prog)s data

exit codes:
  0 done               1 a statement from a pipe or an argument failed      2 wrong usage
  74 input/output error     75 somebody holds the master locked     77 not permitted
  78 there is no such folder, or no master in it
"""

_SHARDS = """
select value ->> 0 as name, value ->> 1 as agent, value ->> 2 as bytes, value ->> 3 as problem from json_each(?)
"""

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("sql", metavar="SQL", nargs="*", help="statements, or commands with a dot; none: read stdin")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the shell to its end."""
    store = arguments.store_with_master(options)
    connection = database.open_master(store.master_path, writable=False)
    try:
        shell = _shell(store, connection)
        if options.sql:
            return _run_each(shell, options.sql)
        return _run_loop(shell, store)
    finally:
        connection.close()


def _run_each(shell: Any, lines: list[str]) -> int:
    shell.interactive = False  # Ctrl-C ends it
    for line in lines:
        try:
            shell.process_complete_line(line)
        except Exception:
            shell.handle_exception()
            return exits.FAILED
    return exits.DONE


def _run_loop(shell: Any, store: Store) -> int:
    intro = f'{store.master_path}, read-only. Enter ".help" for the commands, ".shards" for the shards.\n'
    try:
        shell.cmdloop(intro)
    except BrokenPipeError:
        raise
    except OSError as error:  # all others the loop handles
        logger.warning("the history of this session is not kept: %s", error)
    return exits.FAILED if shell.failures and not shell.interactive else exits.DONE


def _shell(store: Store, connection: Connection) -> Any:
    base: Any = sqlite.shell_class()

    class StoreShell(base):  # type: ignore[misc]  # its class is loaded only now
        """apsw's shell, with commands for stores."""

        failures = 0

        def handle_exception(self) -> None:
            if isinstance(sys.exception(), BrokenPipeError):
                raise  # the shell calls this while it handles one
            self.failures += 1
            super().handle_exception()

        def command_shards(self, cmd: list[str]) -> None:
            """shards: Lists the store's shards

            Each file with its agent, the bytes of it and its log, and why it is not merged. A shard is only looked
            at from outside; the agent of one that was never merged may be unknown.
            """
            if cmd:
                raise self.Error("Unexpected arguments")
            self.process_sql(_SHARDS, (json.dumps(_shards(store, connection)),), internal=True)

    shell = StoreShell(db=connection)
    shell.prompt = "edgeshard> "
    if not terminal.is_coloured(sys.stdout):
        shell.command_colour(["off"])
    return shell


def _shards(store: Store, connection: Connection) -> list[tuple[str, str | None, int, str | None]]:
    """(name, agent, bytes, problem) of each shard, from stat and what the master knows: nobody is disturbed."""
    agents = agents_by_stem(connection)
    problems = {name: problem for name, (_, problem) in shard_states.load_states(connection).items()}
    return [
        (
            shard.name,
            agents.get(paths.stem_of(shard.name)),
            _bytes(shard.path) + _bytes(paths.wal(shard.path)),
            shard.defect or problems.get(shard.name) or None,
        )
        for shard in scan.shard_files(paths.shards(store.root))
    ]


def _bytes(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:  # it may be gone by now
        return 0
