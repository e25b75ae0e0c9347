"""The aggregator of the queue system, a process of its own: move rows from the Redis stream to SQLite in batches.

``python -m edgeshard.bench.systems.queue_aggregator URL DATABASE DURABILITY``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from edgeshard.bench.systems import sqlite_tuned
from edgeshard.bench.systems.redis_stream import STREAM, connect
from edgeshard.bench.workload import Durability
from edgeshard.sqlite import Connection

#: The largest number of entries in a batch.
_BATCH: Final = 1_000
#: How long one read waits for an entry, in milliseconds.
_BLOCK_MS: Final = 1_000


def aggregate(url: str, path: str, durability: Durability) -> None:
    """Move entries from the stream to SQLite until this process is stopped.

    An entry leaves the stream only after its rows are committed, together with its id. After a crash in between, the
    aggregator finds that id in the database and continues after it.
    """
    server = connect(url)
    connection = sqlite_tuned.open_tuned(Path(path), durability)
    last: str = connection.execute("SELECT last FROM progress").get
    print("ready", flush=True)  # noqa: T201  # the benchmark looks for this in the log
    while True:
        found: Any = server.xread({STREAM: last}, count=_BATCH, block=_BLOCK_MS)
        entries = _entries(found)
        if entries:
            last = entries[-1][0].decode()
            _commit(connection, [row for _, fields in entries for row in json.loads(fields[b"rows"])], last)
            server.xtrim(STREAM, minid=_next_id(last), approximate=False)


def _entries(found: Any) -> list[Any]:
    """Return the entries of the one stream in an answer; RESP3 gives a dict, RESP2 a list of pairs."""
    if not found:
        return []
    entries = found[STREAM.encode()] if isinstance(found, dict) else found[0][1]
    return list(entries[0] if isinstance(found, dict) else entries)


def _commit(connection: Connection, rows: list[Any], last: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(sqlite_tuned.INSERT, rows)
    connection.execute("UPDATE progress SET last = ?", (last,))
    connection.execute("COMMIT")


def _next_id(entry: str) -> str:
    milliseconds, _, number = entry.partition("-")
    return f"{milliseconds}-{int(number) + 1}"


if __name__ == "__main__":
    aggregate(sys.argv[1], sys.argv[2], "power" if sys.argv[3] == "power" else "process")
