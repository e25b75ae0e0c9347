"""Whatever one source holds, all rows of an honest store are merged in the same merge, and all goes on afterwards."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard import format
from edgeshard.sqlite import quote
from tests.support.forms import short_and_full
from tests.support.in_memory import IN_MEMORY
from tests.support.keyed_schema_versions import plain, version
from tests.support.schema_versions import merged, write
from tests.support.stores import contradictions, new_store, shard_path

HONEST = version(k=str, a=int)

LOG = plain(None, {"name": "log", "index": ["a"]}, k=str, a=int)

NUMBERS = [
    0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, -(2**63), format.TIMESTAMP_MAX, format.TIMESTAMP_MAX + 1,
    1.5, "text", "", None, b"blob", "[]", '["k"]', '["k", "a"]', "lww", "first", "max:a", "integer", "text", "real",
    "timestamp", "reason", "agent_data", "sample", "log", "sample_history", "k", "a", "_timestamp", "device",
]  # fmt: skip

RECORD_TABLES = ["agent_data", "sample", "sample_deleted", "sample_history", "log"]


def honest_rows(store: edgeshard.Store) -> list[tuple[Any, ...]]:
    """Return all that a master holds of the honest agents: the values of each row, by its address.

    Whoever writes to a table may rename and widen its columns, so neither the names nor the types are compared.
    """
    found: list[tuple[Any, ...]] = []
    for table in ("agent_data", "log", "sample", "sample_history"):
        sql = f"SELECT t.*, hex(stream_id), _seq FROM {table} t JOIN _edgeshard_streams s ON stream_no = _stream "
        for _id, _stream, _seq, *values, stream_id, seq in store.query(sql + "WHERE s.agent_id LIKE 'honest%'"):
            found.append((table, stream_id, seq, *sorted(_plain(value) for value in values if value is not None)))
    return sorted(found)


def _plain(value: Any) -> str:
    try:
        return repr(float(value))
    except ValueError:
        return str(value)


def write_honest(store: edgeshard.Store, number: int) -> None:
    for agent in ("honest-a", "honest-b"):
        write(store, agent, *(HONEST(f"k{n % 3}", n + number) for n in range(5)), {"n": number}, LOG("x", number))
        with store.shard(agent) as shard, shard.transaction():
            shard.write_many([LOG("y", number), {"n": -number}])
            shard.delete(HONEST, "k2")


def evil_source(folder: Path, rng: random.Random) -> Path:
    """Return a shard or a master of an agent of its own, with a few changes that no agent makes."""
    store = edgeshard.Store(folder)
    write(store, "evil", *(HONEST(f"evil{n % 2}", n) for n in range(5)), *({"n": n} for n in range(3)), LOG("evil", 1))
    with store.shard("evil") as shard:
        shard.delete(HONEST, "evil1")
    path = folder / "evil.db"
    shutil.copy(shard_path(store, "evil"), path)
    if rng.random() < 0.5:
        merged(store)
        store.prune(keep_rows=0, table="log")
        shutil.copy(store.master_path, path)
    for _ in range(rng.choice((1, 1, 2, 4))):
        connection = apsw.Connection(str(path))
        try:
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
            connection.pragma("writable_schema", True)
            connection.pragma("synchronous", "OFF")
            connection.execute("UPDATE sqlite_schema SET sql = replace(replace(sql, ' STRICT, ', ' '), ' STRICT', '')")
        finally:
            connection.close()
        connection = apsw.Connection(str(path))
        try:
            connection.pragma("synchronous", "OFF")
            rng.choice([_change_value, _change_value, _add_row, _add_column, _rename, _declare_key, _drop])(
                connection, rng
            )
        except apsw.Error:
            pass  # such a change cannot be made
        finally:
            connection.close()
    return path


def _table(connection: apsw.Connection, rng: random.Random) -> str:
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return str(rng.choice(sorted(names))[0])


def _columns(connection: apsw.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({quote(table)})")]


def _change_value(connection: apsw.Connection, rng: random.Random) -> None:
    table = _table(connection, rng)
    column = quote(rng.choice(_columns(connection, table)))
    some = rng.choice(("", f"WHERE {column} = (SELECT max({column}) FROM {quote(table)})"))
    connection.execute(f"UPDATE {quote(table)} SET {column} = ? {some}", (rng.choice(NUMBERS),))


def _add_row(connection: apsw.Connection, rng: random.Random) -> None:
    table = _table(connection, rng)
    values = [rng.choice(NUMBERS) for _ in _columns(connection, table)]
    connection.execute(f"INSERT INTO {quote(table)} VALUES ({', '.join('?' * len(values))})", values)


def _add_column(connection: apsw.Connection, rng: random.Random) -> None:
    table, type_ = rng.choice(RECORD_TABLES), rng.choice(sorted(format.STORED_AS))
    name = rng.choice(("extra", "_timestamp", "_reason", "a", "k"))
    connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {format.STORED_AS[type_]}")
    connection.execute("INSERT INTO _edgeshard_columns VALUES (?, ?, ?, 9)", (table, name, type_))


def _rename(connection: apsw.Connection, rng: random.Random) -> None:
    if not connection.table_exists("main", format.RENAMES):
        connection.execute(format.DDL[format.RENAMES])
    old, new = (rng.choice(("a", "k", "extra", "_timestamp", "data")) for _ in range(2))
    connection.execute("INSERT INTO _edgeshard_renames VALUES (?, ?, ?)", (rng.choice(RECORD_TABLES), old, new))


def _declare_key(connection: apsw.Connection, rng: random.Random) -> None:
    table = rng.choice(RECORD_TABLES)
    conflict = rng.choice(("lww", "first", "max:a", "keep-all", "max:nothing"))
    connection.execute(
        "INSERT OR REPLACE INTO _edgeshard_keys VALUES (?, ?, ?, ?, 0)", (table, '["k"]', conflict, rng.randrange(2))
    )
    connection.execute(f"ALTER TABLE {table} ADD COLUMN _timestamp INTEGER")
    connection.execute("INSERT INTO _edgeshard_columns VALUES (?, '_timestamp', 'timestamp', 9)", (table,))
    connection.execute(f"UPDATE {table} SET _timestamp = 1")


def _drop(connection: apsw.Connection, rng: random.Random) -> None:
    table = _table(connection, rng)
    connection.execute(f"{rng.choice(('DROP TABLE', 'DELETE FROM'))} {quote(table)}")


@pytest.mark.parametrize("seeds", short_and_full(range(2), range(2, 80)))
def test_all_rows_of_an_honest_store_are_merged_whatever_a_source_holds(seeds: range) -> None:
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="edgeshard-hostile-", dir=IN_MEMORY) as folder:
            _check(seed, Path(folder))


def _check(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    store, alone = edgeshard.Store(folder / "store"), edgeshard.Store(folder / "alone")
    evil = evil_source(folder / "evil", rng)
    write_honest(store, 1)
    if rng.random() < 0.5:
        merged(store)
        write_honest(store, 2)
    for path in (path for pattern in ("*.db", "*.db-wal") for path in (store.root / "shards").glob(pattern)):
        (alone.root / "shards").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, alone.root / "shards")
    if store.has_master():
        shutil.copy(store.master_path, alone.master_path)
    as_own = rng.random() < 0.5
    if as_own:
        shutil.copy(evil, shard_path(store, "zz-evil"))
    merged(alone)
    report = store.merge([] if as_own else [evil])
    assert honest_rows(alone) == honest_rows(store), seed
    assert {Path(item.path).stem for item in report.quarantined} <= {"evil", "zz-evil"}, seed
    assert () == contradictions(store.verify()), seed
    # later changes, prunes, hubs and exports
    write_honest(store, 3)
    before = len(honest_rows(store))
    later = store.merge([] if as_own else [evil])
    assert {Path(item.path).stem for item in later.quarantined} <= {"evil", "zz-evil"}, seed
    assert len(honest_rows(store)) > before, seed
    assert () == new_store(folder / "hub").merge([store.master_path]).quarantined, seed
    store.export(folder / "bundle.db")
    assert () == new_store(folder / "other").merge([folder / "bundle.db"]).quarantined, seed
    store.prune(keep_rows=3, deletions_older_than="0s")
    assert () == contradictions(store.verify()), seed
    store.status()
