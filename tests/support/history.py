"""Give a master a long history at once: gaps, blocks, prune notes or streams, with the rows that belong to them.

The cost of what follows is counted as work: steps of SQLite's virtual machine, and calls of Python functions. Unlike
time, it is the same on a busy machine.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

import apsw
import attrs

import edgeshard
from edgeshard import sqlite
from tests.support.stores import shard_path

#: The agent of the rows that `grow` adds.
PAST: Final = "past"

#: A row of `edgeshard.AgentData` for each line of a query that yields its id, stream number and seq.
_INSERT_ROWS: Final = (
    "INSERT INTO agent_data(_id, _stream, _seq, agent_id, timestamp, data) SELECT id, stream, seq, 'past', 0.0, '{}' "
)

_COUNT: Final = "WITH RECURSIVE n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < ?1) "


def _gaps(connection: apsw.Connection, size: int, stream: int, base: int) -> None:
    """One stream of which every second row is missing."""
    _insert_streams(connection, 1, 2 * size)
    connection.execute("INSERT INTO _edgeshard_missing VALUES (?, ?)", (stream, size))
    connection.execute(f"{_COUNT} INSERT INTO _edgeshard_ranges SELECT ?2, 2*k+2, 2*k+2 FROM n", (size, stream))
    connection.execute(
        f"{_COUNT} INSERT INTO _edgeshard_blocks SELECT ?2, 2*k+2, 2*k+2, ?3+k FROM n", (size, stream, base)
    )
    connection.execute(
        f"{_COUNT} {_INSERT_ROWS} FROM (SELECT ?3+k AS id, ?2 AS stream, 2*k+2 AS seq FROM n)", (size, stream, base)
    )


def _blocks(connection: apsw.Connection, size: int, stream: int, base: int) -> None:
    """Two streams whose rows arrived in turns, one at a time."""
    _insert_streams(connection, 2, size // 2)
    for number in (0, 1):
        at = (size // 2, stream + number, base + number)
        connection.execute("INSERT INTO _edgeshard_ranges VALUES (?, 1, ?)", (stream + number, size // 2))
        connection.execute(f"{_COUNT} INSERT INTO _edgeshard_blocks SELECT ?2, k+1, k+1, ?3+2*k FROM n", at)
        connection.execute(f"{_COUNT} {_INSERT_ROWS} FROM (SELECT ?3+2*k AS id, ?2 AS stream, k+1 AS seq FROM n)", at)


def _notes(connection: apsw.Connection, size: int, stream: int, base: int) -> None:
    """One stream of which the master pruned every second row."""
    _insert_streams(connection, 1, 2 * size)
    connection.execute("INSERT INTO _edgeshard_ranges VALUES (?, 1, ?)", (stream, 2 * size))
    connection.execute(
        f"{_COUNT} INSERT INTO _edgeshard_blocks SELECT ?2, 2*k+2, 2*k+2, ?3+2*k+1 FROM n", (size, stream, base)
    )
    connection.execute(
        f"{_COUNT} {_INSERT_ROWS} FROM (SELECT ?3+2*k+1 AS id, ?2 AS stream, 2*k+2 AS seq FROM n)", (size, stream, base)
    )
    connection.execute(
        f"{_COUNT} INSERT INTO _edgeshard_pruned_ranges SELECT 1, (SELECT database_id FROM _edgeshard_database), ?2, "
        "2*k+1, 2*k+1, 'older_than', '2026-01-01T00:00:00+00:00' FROM n",
        (size, stream),
    )


def _streams(connection: apsw.Connection, size: int, stream: int, base: int) -> None:
    """Streams of one row each, as an agent leaves that is started again for each row."""
    _insert_streams(connection, size, 1)
    connection.execute(f"{_COUNT} INSERT INTO _edgeshard_ranges SELECT ?2+k, 1, 1 FROM n", (size, stream))
    connection.execute(f"{_COUNT} INSERT INTO _edgeshard_blocks SELECT ?2+k, 1, 1, ?3+k FROM n", (size, stream, base))
    connection.execute(
        f"{_COUNT} {_INSERT_ROWS} FROM (SELECT ?3+k AS id, ?2+k AS stream, 1 AS seq FROM n)", (size, stream, base)
    )


def _retired(connection: apsw.Connection, size: int, stream: int, base: int) -> None:
    """Streams of one row each of which that row was pruned."""
    connection.execute(
        "INSERT INTO _edgeshard_retirements SELECT 1, database_id, ?2, '', 0, 0, 0, ?1, "
        "json_object('older than', ?1) FROM _edgeshard_database",
        (size, PAST),
    )
    connection.execute(f"{_COUNT} INSERT INTO _edgeshard_retired SELECT randomblob(16), 1, 1 FROM n", (size,))
    _streams(connection, min(size, 150), stream, base)  # so that there is something to prune


#: What a history can consist of.
KINDS: Final[dict[str, Callable[[apsw.Connection, int, int, int], None]]] = {
    "gaps": _gaps,
    "blocks": _blocks,
    "prune notes": _notes,
    "streams": _streams,
    "retired streams": _retired,
}


def _insert_streams(connection: apsw.Connection, count: int, last_seq: int) -> None:
    connection.execute(
        f"{_COUNT} INSERT INTO _edgeshard_streams(agent_id, stream_id, began_at, last_seq) "
        "SELECT ?2, randomblob(16), '2026-01-01T00:00:00+00:00', ?3 FROM n",
        (count, PAST, last_seq),
    )


def grow(store: edgeshard.Store, kind: str, size: int) -> None:
    """Add a history to a store's master, in one transaction.

    Args:
        store: the store; nobody has its master open.
        kind: one of `KINDS`.
        size: how many of them.
    """
    with store.shard(PAST) as shard:
        shard.write({})
    store.merge()
    connection = apsw.Connection(str(store.master_path))
    try:
        with connection:
            ((stream, base),) = connection.execute(
                "SELECT max(stream_no) + 1, next_id FROM _edgeshard_streams, _edgeshard_database"
            )
            KINDS[kind](connection, size, stream, base)
            sql = "UPDATE _edgeshard_database SET next_id = ? + 2 * ?"
            connection.execute(sql, (base, size))
    finally:
        connection.close()


def write_next_row(store: edgeshard.Store) -> None:
    """Let the agent of the history write the next row of its first stream, as if its shard had been open since.

    Its shard must be empty.
    """
    master = apsw.Connection(str(store.master_path), flags=apsw.SQLITE_OPEN_READONLY)
    ((stream_id, last_seq, database_id),) = master.execute(
        "SELECT stream_id, last_seq, (SELECT database_id FROM _edgeshard_database) FROM _edgeshard_streams "
        "WHERE agent_id = ? AND stream_no > 1 ORDER BY stream_no LIMIT 1",
        (PAST,),
    )
    master.close()
    with store.shard(PAST) as shard:
        shard.write({})
    opened = apsw.Connection(str(shard_path(store, PAST)))
    with opened:
        ((number,),) = opened.execute("SELECT max(stream_no) FROM _edgeshard_streams")
        opened.execute("DELETE FROM _edgeshard_streams WHERE stream_id = ?", (stream_id,))
        opened.execute("UPDATE _edgeshard_streams SET stream_id = ? WHERE stream_no = ?", (stream_id, number))
        opened.execute("UPDATE agent_data SET _id = _id + ?", (last_seq,))
        opened.execute("INSERT INTO _edgeshard_truncations VALUES (?, 1, ?, ?)", (number, last_seq, database_id))
    opened.close()


# -- work -------------------------------------------------------------------------------------------------------------

_immediate = sqlite.immediate


@attrs.define
class Work:
    """What was done.

    Attributes:
        steps: steps of SQLite's virtual machine.
        calls: calls of Python functions.
    """

    steps: int = 0
    calls: int = 0

    @property
    def total(self) -> int:
        """Their sum; a call takes about as long as ten steps."""
        return self.steps + 10 * self.calls


@contextlib.contextmanager
def counted(work: Work) -> Iterator[None]:
    """Count what all connections that are opened in the block do, and all calls of this thread."""

    def end(statement: dict[str, Any]) -> None:
        work.steps += statement["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    def call(_: Any, event: str, __: Any) -> None:
        work.calls += event == "call"

    def count(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, end, id=work)

    apsw.connection_hooks.append(count)
    before = sys.getprofile()
    sys.setprofile(call)
    try:
        yield
    finally:
        sys.setprofile(before)
        apsw.connection_hooks.remove(count)


@contextlib.contextmanager
def counted_transactions() -> Iterator[list[int]]:
    """Count the work of each transaction in which the block locks a database for writing, in order."""
    work, found = Work(), []

    @contextlib.contextmanager
    def immediate(connection: apsw.Connection) -> Iterator[None]:
        with _immediate(connection):
            before = work.total
            try:
                yield
            finally:
                found.append(work.total - before)

    with mock.patch.object(sqlite, "immediate", immediate), counted(work):
        yield found
