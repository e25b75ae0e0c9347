"""Define what rows hold, and read what is on the disk, with plain SQL through SQLite's own VFS.

It trusts nothing of edgeshard but the names of its tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw
import attrs

import edgeshard
from edgeshard import format
from edgeshard.master import pruned_ranges


class ViolationError(Exception):
    """A promise was broken."""


@attrs.frozen
class Sample:
    """A row of the second table."""

    n: int
    text: str


@edgeshard.table(name="sample", index=["n"])
@attrs.frozen
class LaterSample:
    """The same row as a later version of the agent writes it."""

    n: int
    text: str
    twice: int | None


@edgeshard.table(name="last", key="agent")
@attrs.frozen
class Last:
    """A keyed row: the last row of the last transaction that wrote the key; deleted now and then."""

    agent: str
    n: int


def text_of(number: int) -> str:
    """Return what a row holds besides its number; sometimes more than a page of a shard."""
    return f"row {number} " * (1, 1, 3, 8, 1, 150, 1)[number % 7]


def record_of(number: int) -> Any:
    """Return the record with a number."""
    if number % 3:
        return {"n": number, "text": text_of(number)}
    return LaterSample(number, text_of(number), 2 * number) if number % 2 else Sample(number, text_of(number))


@attrs.frozen
class Found:
    """The content of the disk.

    Attributes:
        master: the address of each row of the master, by number; None if there is no master.
        shards: the same for all shards, without truncated rows.
        truncated: the addresses that the shards record as truncated.
        pruned: the addresses that the master records as pruned.
        last: for each agent, what the master's keyed table has; None if there is no such table.
        removed: the addresses that the notes of removed shards record.
    """

    master: dict[int, tuple[str, int]] | None
    shards: dict[int, tuple[str, int]]
    truncated: frozenset[tuple[str, int]]
    pruned: frozenset[tuple[str, int]] = frozenset()
    last: dict[str, int] | None = None
    removed: frozenset[tuple[str, int]] = frozenset()

    @property
    def told(self) -> frozenset[tuple[str, int]]:
        """The addresses of rows that the shards, or the notes of removed ones, say were in a master."""
        return self.truncated | self.removed


def look(root: Path) -> Found:
    """Read the store in a folder that nobody uses now or later: SQLite recovers what it opens.

    Raises:
        ViolationError: a database is damaged, a row is there twice, or is not what was written.
    """
    has_master = (root / "master.db").exists()
    master = read_master(root / "master.db") if has_master else None
    pruned = read_pruned(root / "master.db") if has_master else frozenset()
    shards: dict[int, tuple[str, int]] = {}
    truncated: set[tuple[str, int]] = set()
    for path in sorted((root / "shards").glob("*.db")):
        rows, gone = read_shard(path)
        for number in rows.keys() & shards.keys():
            raise ViolationError(f"row {number} is in two shards")
        shards.update(rows)
        truncated |= gone
    last = read_last(root / "master.db") if has_master else None
    return Found(master, shards, frozenset(truncated), pruned, last, read_removed(root / "removed-shards.db"))


def read_removed(path: Path) -> frozenset[tuple[str, int]]:
    """Return the addresses that the notes of removed shards record."""
    if not path.exists():
        return frozenset()
    connection = _open(path)
    try:
        found = _fetch(connection, "SELECT lower(hex(stream_id)), last_seq FROM _edgeshard_removed")
        return frozenset((stream, seq) for stream, last in found for seq in range(1, last + 1))
    except apsw.Error as error:
        raise ViolationError(f"{path.name} cannot be read: {error!r}") from error
    finally:
        connection.close()


def read_master(path: Path) -> dict[int, tuple[str, int]]:
    """Return the address of each row of a master, by number."""
    connection = _open(path)
    try:
        streams = dict(_fetch(connection, "SELECT stream_no, hex(stream_id) FROM _edgeshard_streams"))
        rows = _rows(connection, "_stream, _seq")
        return _unique(path, ((number, streams[stream].lower(), seq) for number, stream, seq in rows))
    except apsw.Error as error:
        raise ViolationError(f"{path.name} cannot be read: {error!r}") from error
    finally:
        connection.close()


def read_pruned(path: Path) -> frozenset[tuple[str, int]]:
    """Return the addresses that a master records as pruned."""
    connection = _open(path)
    try:
        return pruned_in(connection)
    except apsw.Error as error:
        raise ViolationError(f"{path.name} cannot be read: {error!r}") from error
    finally:
        connection.close()


def read_last(path: Path) -> dict[str, int] | None:
    """Return the last row of each agent in a master, or None if it has no such table."""
    connection = _open(path)
    try:
        if not _fetch(connection, "SELECT 1 FROM _edgeshard_columns WHERE table_name = 'last' LIMIT 1"):
            return None
        rows = _fetch(connection, "SELECT agent, n FROM last")
    except apsw.Error as error:
        raise ViolationError(f"{path.name} cannot be read: {error!r}") from error
    finally:
        connection.close()
    if len(dict(rows)) < len(rows):
        raise ViolationError(f"{path.name} has two versions of a key: {sorted(rows)}")
    return dict(rows)


def read_shard(path: Path) -> tuple[dict[int, tuple[str, int]], set[tuple[str, int]]]:
    """Return the address of each row of a shard that is not truncated, by number, and the truncated addresses."""
    connection = _open(path)
    try:
        streams = dict(_fetch(connection, "SELECT stream_no, hex(stream_id) FROM _edgeshard_streams"))
        gone = dict(_fetch(connection, "SELECT stream_no, max(last) FROM _edgeshard_truncations GROUP BY stream_no"))
        rows = [
            (number, format.stream_no_of(row_id), format.seq_of(row_id))
            for number, row_id, _ in _rows(connection, "_id, 0")
        ]
        counting = [(number, streams[stream].lower(), seq) for number, stream, seq in rows if seq > gone.get(stream, 0)]
        truncated = {(streams[stream].lower(), seq) for stream, last in gone.items() for seq in range(1, last + 1)}
        return _unique(path, counting), truncated
    except apsw.Error as error:
        raise ViolationError(f"{path.name} cannot be read: {error!r}") from error
    finally:
        connection.close()


def _open(path: Path) -> apsw.Connection:
    return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs="unix")


def _fetch(connection: apsw.Connection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def numbers_in(connection: apsw.Connection) -> list[int]:
    """Return the numbers of all rows in a master."""
    return [number for number, _, _ in _rows(connection, "0, 0", check=False)]


def addresses_in(connection: apsw.Connection) -> dict[int, tuple[str, int]]:
    """Return the address of each row in a master, by number."""
    streams = dict(_fetch(connection, "SELECT stream_no, hex(stream_id) FROM main._edgeshard_streams"))
    rows = _rows(connection, "_stream, _seq", check=False)
    return {number: (streams[stream].lower(), seq) for number, stream, seq in rows}


def pruned_in(connection: apsw.Connection) -> frozenset[tuple[str, int]]:
    """Return the addresses that a master records as pruned by itself.

    Raises:
        ViolationError: rows are recorded as deleted by hand, and nobody has done that.
    """
    noted = _fetch(
        connection,
        "SELECT hex(stream_id), first, last, reason FROM main._edgeshard_pruned_ranges "
        "JOIN main._edgeshard_streams USING(stream_no) JOIN main._edgeshard_database USING(database_id) WHERE is_own = 1",
    )
    if lost := [entry for entry in noted if entry[-1] in (pruned_ranges.BY_HAND, pruned_ranges.BY_HAND_OR_SUPERSEDED)]:
        raise ViolationError(f"rows are gone, and were taken for deleted by hand: {lost}")
    noted += _fetch(connection, "SELECT hex(stream_id), 1, last_seq, '' FROM main._edgeshard_retired")
    return frozenset((stream.lower(), seq) for stream, first, last, _ in noted for seq in range(first, last + 1))


def _rows(connection: apsw.Connection, columns: str, *, check: bool = True) -> list[tuple[int, Any, Any]]:
    tables = {name for (name,) in connection.execute("SELECT DISTINCT table_name FROM main._edgeshard_columns")}
    selects = [
        f"SELECT {what}, {columns} FROM main.{name}"
        for name, what in (("agent_data", "data ->> 'n', data ->> 'text'"), ("sample", "n, text"))
        if name in tables
    ]
    if not selects:
        return []
    rows = _fetch(connection, " UNION ALL ".join(selects))
    if check:
        for number, text, *_ in rows:
            if text_of(number) != text:
                raise ViolationError(f"row {number} was altered: {text!r}")
    return [(number, one, other) for number, _, one, other in rows]


def _unique(path: Path, rows: Iterable[tuple[int, str, int]]) -> dict[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = {}
    addresses: set[tuple[str, int]] = set()
    for number, stream, seq in rows:
        if number in found:
            raise ViolationError(f"row {number} is in {path.name} twice: {found[number]}, {(stream, seq)}")
        if (stream, seq) in addresses:
            raise ViolationError(f"two rows of {path.name} have the address {(stream, seq)}")
        found[number] = (stream, seq)
        addresses.add((stream, seq))
    return found
