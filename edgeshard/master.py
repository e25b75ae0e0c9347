"""The master database: made when first needed, opened for merging or for reading, and its own account of gaps."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeshard import database, definitions, files, format, scan, tables
from edgeshard.database import Connection, quote
from edgeshard.errors import DamagedError, FormatError
from edgeshard.ranges import Range, subtract
from edgeshard.report import Gap
from edgeshard.scan import State

#: A merger's cache of the master, in KiB; more wins nothing (measured).
_CACHE_KIB = 1_000
#: Pages of the master's log before a commit copies them into the database (32 MB).
_CHECKPOINT_PAGES = 8_000
#: The log's size after a checkpoint that could reset it, in bytes.
_LOG_BYTES = 64 << 20


def ensure_master(path: Path) -> None:
    """Make the master where there is none, with the table that dicts go to.

    Raises:
        AccessError, StorageIOError, DiskFullError: it cannot be made.
        DamagedError: the file is there and empty, or its log is there without it.
    """
    found = scan.look(str(path))
    if found is not None:
        if found.problem:
            raise DamagedError("open master", path, f"{found.problem}. Move it away, or restore it from a snapshot")
        return
    files.make_folder(path.parent)
    agent_data = tables.table_of(tables.AgentData)
    columns = [(column.name, column.kind) for column in agent_data.columns]
    statements = list(definitions.columns_of(agent_data.name, format.MASTER_COLUMNS, columns, new=True))
    statements.append(
        ("INSERT INTO edgeshard_database(database_id, role) VALUES (randomblob(16), ?)", (format.MASTER,))
    )
    script = format.MASTER_TABLES + ";".join(sql for sql, _ in statements)
    bindings = tuple(value for _, values in statements for value in values)
    with database.explained("make master", str(path)):
        database.create(str(path), format.MASTER_PAGE_SIZE, script, bindings, format.IDENTITY, shrinkable=True)


def open_master(path: Path, *, writable: bool) -> Connection:
    """Open the master; for writing at synchronous=FULL, always.

    Raises:
        StorageError: it cannot be opened as a master of this format.
    """
    with database.explained("open master", str(path)):
        connection = database.connect(str(path), writable=writable)
        try:
            database.check_identity(connection, "main", format.IDENTITY, str(path))
            _check_role(connection, path)
            if writable:
                # a snapshot that was put back is none yet, and FULL is durable only in a WAL database
                database.ensure_wal(connection, str(path))
                database.set_synchronous(connection, "FULL")
                database.leave_quietly(connection)
                connection.pragma("cache_size", -_CACHE_KIB)
                set_log_limits(connection)
                _add_tables(connection)
                # whoever made the log may have died before its name was durable
                files.sync_path(os.path.dirname(path))
            else:
                database.heed_signals(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def set_log_limits(connection: Connection, most: int | None = None) -> None:
    """How large the log becomes before a commit copies it into the database, in bytes; None: as large as is good."""
    connection.pragma("journal_size_limit", _LOG_BYTES if most is None else most)
    connection.wal_autocheckpoint(_CHECKPOINT_PAGES if most is None else max(1, most // format.MASTER_PAGE_SIZE))


def _check_role(connection: Connection, path: Path) -> None:
    role = database.scalar(connection, "SELECT role FROM edgeshard_database")
    if role == format.BUNDLE:
        cause = (
            "it is a bundle, which lacks what its receiver had. Move it away, and bring its rows into a store with "
            "`edgeshard merge STORE --from BUNDLE`"
        )
        raise FormatError("open master", path, cause)
    if role != format.MASTER:
        raise FormatError("open master", path, "it is an edgeshard database, but not a master")


def has(connection: Connection, table: str) -> bool:
    """Whether the master has one of `format.ADDED_TABLES`, with the columns that it has now."""
    columns = {row[1] for row in database.fetch(connection, f"PRAGMA main.table_info({quote(table)})")}
    return columns >= format.added_columns(table)


def _add_tables(connection: Connection) -> None:
    """Make what a master of an earlier version lacks."""
    if all(has(connection, name) for name in format.ADDED_TEXTS):
        return
    with database.immediate(connection):
        for name, text in format.ADDED_TEXTS.items():
            if has(connection, name):  # another merger was faster
                continue
            if _is_empty(connection, name):  # with other columns, by a version that wrote nothing to it yet
                connection.execute(f"DROP TABLE main.{name}")
            connection.execute(text)


def _is_empty(connection: Connection, name: str) -> bool:
    return (
        database.has_table(connection, name)
        and database.scalar(connection, f"SELECT 1 FROM main.{name} LIMIT 1") is None
    )


def record_tables(connection: Connection) -> list[str]:
    """The names of the record tables."""
    return [name for (name,) in connection.execute("SELECT DISTINCT table_name FROM edgeshard_columns ORDER BY 1")]


def transaction_at(connection: Connection, row_id: int) -> Range | None:
    """The ids of the transaction that a row belongs to, where it is one of several rows."""
    sql = "SELECT first_id, last_id FROM edgeshard_transactions WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
    found = database.fetch(connection, sql, (row_id,))
    return Range(*found[0]) if found and found[0][1] >= row_id else None


@contextlib.contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Raise our errors in place of those that reading a master's own tables raises.

    Raises:
        DamagedError: they are not what they were.
        StorageError: they cannot be read for another reason.
    """
    with database.explained(action, str(path)):
        try:
            yield
        except database.OF_THE_DATA as error:
            if not database.is_bad_schema(error):
                raise
            raise DamagedError(action, path, f"its own tables are not what they were: {error}") from error


def gaps(connection: Connection) -> tuple[Gap, ...]:
    """The seqs of each stream that are known to exist and that this master never held."""
    found = []
    incomplete = database.fetch(
        connection,
        "SELECT s.stream_no, agent_id, stream_id, last_seq FROM edgeshard_streams s LEFT JOIN edgeshard_ranges r "
        "ON r.stream_no = s.stream_no GROUP BY s.stream_no HAVING coalesce(sum(r.last - r.first + 1), 0) < last_seq",
    )
    for number, agent_id, stream_id, last_seq in incomplete:
        rows = database.fetch(connection, "SELECT first, last FROM edgeshard_ranges WHERE stream_no = ?", (number,))
        held = [Range(first, last) for first, last in rows]
        found += [
            Gap(agent_id, stream_id.hex(), part.first, part.last) for part in subtract([Range(1, last_seq)], held)
        ]
    return tuple(sorted(found, key=lambda gap: (gap.agent, gap.stream, gap.first)))


def looked_at(connection: Connection) -> dict[str, tuple[State, str]]:
    """What the last merges found of the shard files, by name: (state, problem); a state only where there is no news.

    What one version cannot read, a later one may. And a power cut may take the change of a file's time, and leave that
    of what is in it. So a state that another version noted, or that was noted before the last start, is none.
    """
    looks = {}
    for name, text, problem in database.fetch(connection, "SELECT name, state, problem FROM edgeshard_shards"):
        noted_by, _, state = text.partition(" ")
        looks[name] = (scan.state_of(state) if noted_by == _noting() else (), problem)
    return looks


def remember_looks(connection: Connection, looks: Iterable[tuple[str, State, str]], gone: Iterable[str]) -> None:
    """Remember (name, state, problem) of shard files; those with a state need no further look until they change."""
    connection.executemany(
        "INSERT INTO edgeshard_shards(name, state, problem) VALUES (?, ?, ?) "
        "ON CONFLICT(name) DO UPDATE SET state = excluded.state, problem = excluded.problem",
        [(name, state_note(state), problem) for name, state, problem in looks],
    )
    connection.executemany("DELETE FROM edgeshard_shards WHERE name = ?", [(name,) for name in gone])


def state_note(state: State) -> str:
    """A state as it is noted."""
    return f"{_noting()} {scan.state_text(state)}" if state else ""


def _noting() -> str:
    return f"{format.VERSION}/{files.boot_id()}"


def note_merge(connection: Connection, name: str) -> None:
    """Note that rows of the shard file came just now, in the transaction that brings them."""
    connection.execute(
        "INSERT INTO main.edgeshard_shards(name, merged_at) VALUES (?1, ?2) "
        "ON CONFLICT(name) DO UPDATE SET merged_at = ?2",
        (name, datetime.datetime.now(datetime.UTC).isoformat()),
    )


def next_id(connection: Connection) -> int:
    """The id that the next row gets: ids are given in the order in which rows come."""
    return int(database.scalar(connection, "SELECT next_id FROM main.edgeshard_database"))


def generation(connection: Connection) -> int:
    """How often the master was merged into, or pruned."""
    return int(database.scalar(connection, "SELECT generation FROM main.edgeshard_database"))


def database_id(connection: Connection) -> bytes:
    """Which database the master is."""
    found: bytes = database.scalar(connection, "SELECT database_id FROM main.edgeshard_database")
    return found
