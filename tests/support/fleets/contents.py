"""What a database does hold, read with plain SQL. It serves databases that were tampered with, too."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import attrs

from edgeshard.master.receipts import CLAIMED
from tests.support.fleets.model import CURRENT, HISTORY, PRUNED, SUPERSEDED, Address, Held, Row, Schema
from tests.support.fleets.shapes import SHAPES, Shape

_KEYED = {shape.table: shape for shape in SHAPES.values() if shape.key}


@attrs.frozen
class Stored:
    """A row as it is stored: its table, whether that is a history or holds tombstones, and its columns."""

    table: str
    is_history: bool
    is_tombstone: bool
    values: Mapping[str, Any]


@attrs.define
class Content:
    """The content of a database, without the numbers that it assigns itself."""

    rows: dict[Address, Stored] = attrs.Factory(dict)
    held: set[Address] = attrs.Factory(set)
    pruned: set[Address] = attrs.Factory(set)
    superseded: dict[str, int] = attrs.Factory(dict)
    last: dict[str, int] = attrs.Factory(dict)
    streams: dict[str, tuple[str, str]] = attrs.Factory(dict)
    transactions: set[tuple[Address, Address]] = attrs.Factory(set)
    columns: dict[tuple[str, str], str] = attrs.Factory(dict)
    indexes: set[tuple[str, tuple[str, ...]]] = attrs.Factory(set)
    renames: set[tuple[str, str, str]] = attrs.Factory(set)
    doubled: list[Address] = attrs.Factory(list)


@contextmanager
def opened(path: Path) -> Iterator[apsw.Connection]:
    """Open a database for reading, in one snapshot."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def fetch(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    return list(connection.execute(sql, values))


def read(path: Path) -> Content:
    """Read a shard, a master or a bundle."""
    with opened(path) as connection:
        return _read(connection)


def _read(connection: apsw.Connection) -> Content:
    found = Content()
    ((role,),) = fetch(connection, "SELECT role FROM _edgeshard_database")
    found.columns = {
        (table, name): kind for table, name, kind, _ in fetch(connection, "SELECT * FROM _edgeshard_columns")
    }
    if _has(connection, "_edgeshard_indexes"):
        listed = fetch(connection, "SELECT * FROM _edgeshard_indexes")
        found.indexes = {(table, tuple(json.loads(columns))) for table, columns in listed}
    if _has(connection, "_edgeshard_renames"):
        found.renames = set(fetch(connection, "SELECT * FROM _edgeshard_renames"))
    streams: dict[int, str] = {}
    for number, agent, stream_id, began_at, last in fetch(connection, "SELECT * FROM _edgeshard_streams"):
        streams[number] = stream_id.hex()
        found.streams[stream_id.hex()] = (agent, began_at)
        found.last[stream_id.hex()] = last
    (_read_shard if role == "shard" else _read_master)(connection, found, streams)
    if role != "shard":
        _read_retired(connection, found, is_master=role == "master")
    return found


def _read_retired(connection: apsw.Connection, found: Content, *, is_master: bool) -> None:
    """Add the streams that have retired: a master held and pruned all of their rows."""
    sql = (
        "SELECT lower(hex(stream_id)), last_seq, agent_id FROM _edgeshard_retired JOIN _edgeshard_retirements "
        "USING (group_no)"
    )
    for stream, last, agent in fetch(connection, sql):
        assert stream not in found.streams, f"stream {stream} is retired, and listed as if it were not"
        found.streams[stream], found.last[stream] = (agent, ""), last
        if is_master:
            found.held |= (rows := {(stream, seq) for seq in range(1, last + 1)})
            found.pruned |= rows


def retired(connection: apsw.Connection) -> set[Address]:
    """Return the rows of the streams that have retired in a master."""
    listed = fetch(connection, "SELECT lower(hex(stream_id)), last_seq FROM _edgeshard_retired")
    return {(stream, seq) for stream, last in listed for seq in range(1, last + 1)}


def _has(connection: apsw.Connection, table: str) -> bool:
    return bool(fetch(connection, "SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)))


def _tables(found: Content) -> Iterator[tuple[str, str, bool, bool, list[str]]]:
    """Yield each table: its name, the table it belongs to, whether it is a history, or of tombstones, its columns."""
    for table in sorted({table for table, _ in found.columns}):
        owner, is_history, is_tombstone = owner_of(table)
        yield table, owner, is_history, is_tombstone, [name for of, name in found.columns if of == table]


def owner_of(table: str) -> tuple[str, bool, bool]:
    """Return the keyed table that a table belongs to, or itself; whether it is its history; or holds its tombstones."""
    owner, _, suffix = table.rpartition("_")
    if owner in _KEYED and suffix in ("history", "deleted"):
        return owner, suffix == "history", suffix == "deleted"
    return table, False, False


def _read_shard(connection: apsw.Connection, found: Content, streams: Mapping[int, str]) -> None:
    truncated: dict[int, int] = dict(
        fetch(connection, "SELECT stream_no, max(last) FROM _edgeshard_truncations GROUP BY stream_no")
    )
    found.last = {streams[number]: last for number, last in truncated.items()}
    for table, owner, is_history, is_tombstone, names in _tables(found):
        listed = "".join(f', "{name}"' for name in names)
        for row_id, *values in fetch(connection, f'SELECT _id{listed} FROM "{table}"'):
            number, seq = row_id >> 32, row_id & 0xFFFFFFFF
            if seq > truncated.get(number, 0):
                address = (streams[number], seq)
                found.rows[address] = Stored(owner, is_history, is_tombstone, dict(zip(names, values, strict=True)))
                found.held.add(address)
                found.last[address[0]] = max(seq, found.last.get(address[0], 0))


def _read_master(connection: apsw.Connection, found: Content, streams: Mapping[int, str]) -> None:
    for table, owner, is_history, is_tombstone, names in _tables(found):
        listed = "".join(f', "{name}"' for name in names)
        for number, seq, *values in fetch(connection, f'SELECT _stream, _seq{listed} FROM "{table}"'):
            address = (streams[number], seq)
            if address in found.rows:
                found.doubled.append(address)
            found.rows[address] = Stored(owner, is_history, is_tombstone, dict(zip(names, values, strict=True)))
    for number, first, last in fetch(connection, "SELECT * FROM _edgeshard_ranges"):
        assert last - first < 1_000_000, f"a range of {last - first} seqs"
        found.held |= {(streams[number], seq) for seq in range(first, last + 1)}
    found.pruned = own_pruned(connection, streams)
    for number, rows in fetch(connection, "SELECT * FROM _edgeshard_superseded"):
        found.superseded[streams[number]] = rows
    blocks = fetch(connection, "SELECT * FROM _edgeshard_blocks")
    addresses = {
        first_id + seq - first: (streams[number], seq)
        for number, first, last, first_id in blocks
        for seq in range(first, last + 1)
    }
    for first, last in fetch(connection, "SELECT * FROM _edgeshard_transactions"):
        assert {first, last} <= addresses.keys(), f"a transaction has the ids {first} to {last}, which no block has"
        found.transactions.add((addresses[first], addresses[last]))


def own_pruned(connection: apsw.Connection, streams: Mapping[int, str]) -> set[Address]:
    """Return what this master pruned itself."""
    sql = "SELECT stream_no, first, last FROM _edgeshard_pruned_ranges WHERE is_own"
    return {(streams[number], seq) for number, first, last in fetch(connection, sql) for seq in range(first, last + 1)}


def ranges(path: Path) -> set[Address]:
    """Return what a master has ever held."""
    sql = "SELECT lower(hex(stream_id)), first, last FROM _edgeshard_ranges JOIN _edgeshard_streams USING (stream_no)"
    with opened(path) as connection:
        found = {(stream, seq) for stream, first, last in fetch(connection, sql) for seq in range(first, last + 1)}
        return found | retired(connection)


@attrs.define
class Rejections:
    """What PostgreSQL rejected, according to a master: the kind of the reason, and its table; and what is dismissed."""

    rejected: dict[Address, tuple[str, str]] = attrs.Factory(dict)
    dismissed: set[Address] = attrs.Factory(set)


def rejections(path: Path) -> Rejections:
    """Return which rows PostgreSQL rejected, according to a master; nothing of another database."""
    found = Rejections()
    with opened(path) as connection:
        if not _has(connection, "_edgeshard_rejected"):
            return found
        sql = (
            "SELECT lower(hex(stream_id)), first, last, kind, table_name, dismissed_at FROM _edgeshard_rejected "
            "JOIN _edgeshard_streams USING (stream_no) JOIN _edgeshard_rejections USING (rejection_no)"
        )
        for stream, first, last, kind, table, dismissed_at in fetch(connection, sql):
            rows = {(stream, seq) for seq in range(first, last + 1)}
            if dismissed_at is None:
                found.rejected |= dict.fromkeys(rows, (kind, table))
            else:
                found.dismissed |= rows
    return found


def own_notes(path: Path) -> set[Address]:
    """Return what other databases say that this master pruned, before an older copy of it was put back."""
    return _noted_rows(path, "is_own = 0 AND database_id = (SELECT database_id FROM _edgeshard_database)")


def own_erased(path: Path) -> set[Address]:
    """Return the rows that are recorded as erased in a master."""
    return _noted_rows(path, "is_own AND reason = 'erased'")


def _noted_rows(path: Path, condition: str) -> set[Address]:
    sql = (
        "SELECT lower(hex(stream_id)), first, last FROM _edgeshard_pruned_ranges JOIN _edgeshard_streams USING (stream_no) "
        f"WHERE {condition}"
    )
    with opened(path) as connection:
        found = fetch(connection, sql)
    return {(stream, seq) for stream, first, last in found for seq in range(first, last + 1)}


def erased(root: Path) -> set[Address]:
    """Return the rows that were ever erased from a store, by its list of them, which may not exist."""
    if not (root / "erased.json").exists():
        return set()
    _, *lines = map(json.loads, (root / "erased.json").read_text().splitlines())
    return {(line["stream"], seq) for line in lines for first, last in line["seqs"] for seq in range(first, last + 1)}


def noted_as_superseded(path: Path) -> int:
    """Return how many rows without a block a master counts as superseded: such streams may retire."""
    with opened(path) as connection:
        ((listed,),) = fetch(
            connection,
            "SELECT coalesce(sum(last - first + 1), 0) FROM _edgeshard_pruned_ranges WHERE is_own AND reason = 'superseded'",
        )
        ((retired_rows,),) = fetch(
            connection,
            "SELECT coalesce(sum(value), 0) FROM _edgeshard_retirements g, json_each(g.rows) WHERE key = 'superseded'",
        )
        return int(listed + retired_rows)


def truncated(path: Path) -> dict[str, int]:
    """Return up to which seq the rows of each stream of a shard were truncated."""
    sql = (
        "SELECT lower(hex(stream_id)), max(last) FROM _edgeshard_truncations JOIN _edgeshard_streams USING (stream_no) "
        "GROUP BY stream_no"
    )
    with opened(path) as connection:
        return dict(fetch(connection, sql))


def noted(path: Path) -> dict[str, int]:
    """Return up to which seq each stream of a removed shard was merged, by the notes in this file, which may not exist."""
    if not path.exists():
        return {}
    with opened(path) as connection:
        sql = "SELECT lower(hex(stream_id)), max(last_seq) FROM _edgeshard_removed GROUP BY stream_id"
        return dict(fetch(connection, sql))


def receipts(path: Path) -> dict[str, set[Address]]:
    """Return what each confirmed peer of a master has, or had, by its receipts, as far as it counts."""
    sql = (
        "SELECT lower(hex(database_id)), lower(hex(stream_id)), first, last "
        f"FROM _edgeshard_receipts JOIN _edgeshard_streams USING (stream_no) WHERE state <> {CLAIMED}"
    )
    found: dict[str, set[Address]] = {}
    with opened(path) as connection:
        confirmed = "SELECT lower(hex(database_id)) FROM _edgeshard_peers WHERE trusted_at IS NOT NULL"
        for (peer,) in fetch(connection, confirmed):
            found[peer] = set()
        for peer, stream, first, last in fetch(connection, sql):
            if peer in found:
                found[peer].update((stream, seq) for seq in range(first, last + 1))
    return found


def timestamp(path: Path, table: str, stream: str, seq: int) -> int:
    """Return the timestamp of a row of a shard."""
    with opened(path) as connection:
        sql = (
            f'SELECT _timestamp FROM "{table}" WHERE _id = ('
            "SELECT stream_no << 32 | ? FROM _edgeshard_streams WHERE stream_id = ?)"
        )
        ((found,),) = fetch(connection, sql, (seq, bytes.fromhex(stream)))
        return int(found)


def as_held(content: Content) -> Held:
    """Return what a database holds as the model says it; for copies of a file without its WAL."""
    held = Held(last=dict(content.last))
    for address in content.held:
        stored = content.rows.get(address)
        if stored is None:
            held.state[address] = PRUNED if address in content.pruned else SUPERSEDED
        else:
            held.state[address] = HISTORY if stored.is_history else CURRENT
    keys = {table: shape for table, shape in _KEYED.items() if (table, "_timestamp") in content.columns}
    columns = {
        (table, name): kind
        for (table, name), kind in content.columns.items()
        if owner_of(table)[0] == table and name != "_timestamp"
    }
    renames = {arrow for arrow in content.renames if owner_of(arrow[0])[0] == arrow[0]}
    held.schema = Schema(columns, renames, set(), keys)
    held.schema.indexes = {
        (table, index)
        for table, index in content.indexes
        if owner_of(table)[0] == table and not (table in keys and index == keys[table].key)
    }
    return held


# -- values -----------------------------------------------------------------------------------------------------------


def expected_columns(row: Row, schema: Schema) -> dict[str, Any]:
    """Return the values that a row must have in a database, by column; other columns are NULL."""
    values = {schema.final(row.shape.table, field): value for field, value in row.values.items()}
    if row.shape.is_dicts:
        values["agent_id"] = row.agent
    return values


def is_stored_as(stored: Any, value: Any, kind: str) -> bool:
    """Return whether a stored value is this one, in a column of this type, which may be wider than its field's."""
    if value is None or stored is None:
        return stored is value
    if kind == "decimal":
        if isinstance(value, decimal.Decimal):
            return bool(stored == str(value))
        return decimal.Decimal(stored) == decimal.Decimal(repr(value) if isinstance(value, float) else int(value))
    if kind == "real":
        return isinstance(stored, float) and bool(stored == value)
    if kind in ("integer", "boolean"):
        return isinstance(stored, int) and bool(stored == value)
    if kind == "datetime":
        return bool(datetime.datetime.fromisoformat(stored) == value)
    if kind == "date":
        return bool(stored == value.isoformat())
    if kind == "json":
        return bool(is_same_json(json.loads(stored), value))
    return bool(stored == (value if kind == "blob" else str(value)))


def is_same_json(one: Any, other: Any) -> bool:
    """Return whether two values of JSON are the same, type by type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same_json, one, other))
    return bool(one == other)


def shape_of(table: str) -> Shape:
    """Return a shape of a table."""
    return next(shape for shape in SHAPES.values() if shape.table == table)
