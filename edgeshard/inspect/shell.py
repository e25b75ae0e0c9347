"""The SQL shell on the master: apsw's, with a command that lists the store's shards."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeshard import sqlite
from edgeshard.inspect import shard_names
from edgeshard.master import database
from edgeshard.sqlite import Connection

_SHARDS = """
select value ->> 0 as name, value ->> 1 as agent, value ->> 2 as bytes, value ->> 3 as reason from json_each(?)
"""


@contextlib.contextmanager
def shell(path: Path, folder: Path) -> Iterator[Any]:
    """Open a shell on a master, which it only reads; see `Store.shell`.

    Args:
        path: the master.
        folder: the folder of the shards.
    """
    connection = database.open_master(path, writable=False)
    try:
        yield _make(connection, folder)
    finally:
        connection.close()


def _make(connection: Connection, folder: Path) -> Any:
    base: Any = sqlite.shell_class()

    class StoreShell(base):  # type: ignore[misc]  # its class is loaded only now
        """apsw's shell, with commands for stores.

        Attributes:
            failures: how many statements or commands failed.
        """

        failures = 0

        def handle_exception(self) -> None:
            if isinstance(sys.exception(), BrokenPipeError):
                raise  # the shell calls this while it handles one
            self.failures += 1
            super().handle_exception()

        def command_shards(self, cmd: list[str]) -> None:
            """shards: Lists the store's shards

            Each file with its agent, its size with its WAL, and why it is quarantined. Shards are not opened, so the
            agent of one that was never merged may be unknown.
            """
            if cmd:
                raise self.Error("Unexpected arguments")
            rows = json.dumps(shard_names.listing(connection, folder))
            self.process_sql(_SHARDS, (rows,), internal=True)

    return StoreShell(db=connection)
