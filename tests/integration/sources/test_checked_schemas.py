"""A schema is checked once, whichever shard has it; one that differs in anything is checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format, sqlite
from edgeshard.merge import chunk
from edgeshard.merge.merger import Merger
from edgeshard.sources import checked_schemas, identity
from tests.support.stores import new_store, numbers, shard_path


@attrs.frozen
class Reading:
    sensor: str
    celsius: float


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    checked_schemas._checked.clear()
    yield
    checked_schemas._checked.clear()


def write(store: edgeshard.Store, agent: str) -> Path:
    with store.shard(agent) as shard:
        shard.write(Reading("inlet", 1.5))
        shard.write({"n": 1})
    return shard_path(store, agent)


def change(path: Path, *statements: str) -> None:
    """Change a shard as no agent does, also the text of its schema."""
    connection = apsw.Connection(str(path))
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.pragma("writable_schema", True)
        for statement in statements:
            connection.execute(statement)
    finally:
        connection.close()


def edit(old: str, new: str) -> str:
    """SQL that replaces a part of the schema, and makes others read it again."""
    return (
        f"UPDATE sqlite_schema SET sql = replace(sql, '{old}', '{new}') WHERE instr(sql, '{old}');"
        "PRAGMA schema_version = 1000"
    )


def opened(path: Path) -> Any:
    """What is found in a shard, without its name, or the text of the error."""
    connection = sqlite.open_in_memory("")
    try:
        sqlite.attach(connection, str(path), "source")
        with sqlite.read_snapshot(connection):
            found = identity.open_source(connection, "source", str(path))
            return found.role, found.agent_id, found.tables, found.priorities
    except edgeshard.EdgeshardError as error:
        return type(error), error.cause
    finally:
        connection.close()


def statements(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    real = sqlite.fetch

    def fetch(connection: Any, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        found.append(sql)
        return real(connection, sql, bindings)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "fetch", fetch)
        work()
    return found


def test_the_second_shard_with_a_schema_takes_two_statements(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write(store, "first"), write(store, "second")
    assert any("table_xinfo" in sql for sql in statements(lambda: opened(first), monkeypatch))
    assert 2 == len(statements(lambda: opened(second), monkeypatch))
    assert opened(first)[2:] == opened(second)[2:]
    assert ("shard", "first") == opened(first)[:2]
    assert ("shard", "second") == opened(second)[:2]


#: Changes of a shard's schema, or of what its own tables say of it, by as little as a character.
CHANGES = {
    "a computed column": edit("REAL", "REAL AS (1.5)"),
    "another type of a column": edit("REAL", "TEXT"),
    "a space": edit("REAL", "REAL "),
    "a partial index": "CREATE INDEX i ON reading(sensor) WHERE celsius > 1",
    "an index over an expression": "CREATE INDEX i ON reading(sensor || '')",
    "an index": "CREATE INDEX i ON reading(sensor)",
    "no rowid": edit("_id INTEGER PRIMARY KEY", "_id INTEGER PRIMARY KEY DESC"),
    "a table of the format with a computed column": edit("agent_id TEXT,", "agent_id TEXT AS (1),"),
    "a format table with another name": "ALTER TABLE _edgeshard_truncations RENAME TO other",
    "another type in the notes": "UPDATE _edgeshard_columns SET type = 'uuid' WHERE column_name = 'sensor'",
    "an unknown type in the notes": "UPDATE _edgeshard_columns SET type = 'Text' WHERE column_name = 'sensor'",
    "a column that is not there": "UPDATE _edgeshard_columns SET column_name = 'Sensor' WHERE column_name = 'sensor'",
    "a table that is not there": "UPDATE _edgeshard_columns SET table_name = 'readinG' WHERE table_name = 'reading'",
    "another order of columns": "UPDATE _edgeshard_columns SET position = 7 WHERE column_name = 'sensor'",
    "an index in the notes": f"{format.DDL[format.INDEXES]}; INSERT INTO _edgeshard_indexes VALUES ('reading', '[\"sensor\"]')",
    "an index that is no list": f"{format.DDL[format.INDEXES]}; INSERT INTO _edgeshard_indexes VALUES ('reading', '[\"sensor\"')",
    "two agents": "INSERT INTO _edgeshard_database(database_id, role) VALUES (randomblob(16), 'shard')",
    "a short id": "UPDATE _edgeshard_database SET database_id = x'00'",
    "another role": "UPDATE _edgeshard_database SET role = 'bundle'",
    "a role that does not exist": "UPDATE _edgeshard_database SET role = 'Shard'",
    "another application": "PRAGMA application_id = 1",
    "a key": f"{format.DDL[format.KEYS]}; INSERT INTO _edgeshard_keys VALUES ('reading', '[\"sensor\"]', 'lww', 0, 0)",
    "a rename": f"{format.DDL[format.RENAMES]}; INSERT INTO _edgeshard_renames VALUES ('reading', 'a', 'sensor')",
    "a priority": f"{format.DDL[format.PRIORITIES]}; INSERT INTO _edgeshard_priorities VALUES ('reading', 7)",
}  # fmt: skip


@pytest.mark.parametrize("changed", CHANGES)
def test_a_schema_that_differs_in_anything_is_checked(store: edgeshard.Store, tmp_path: Path, changed: str) -> None:
    path = write(store, "agent")
    honest = opened(path)
    assert "shard" == honest[0]
    evil = tmp_path / "evil.db"
    shutil.copy(path, evil)
    change(evil, CHANGES[changed])
    after_an_honest_one = opened(evil)
    checked_schemas._checked.clear()
    assert opened(evil) == after_an_honest_one
    assert (changed in ("a space", "an index", "another order of columns")) or honest != after_an_honest_one
    assert opened(path) == honest  # and it is not taken for the other


def test_a_schema_that_changes_after_it_was_attached_is_checked(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "agent")
    merger = Merger(store.root, keep_empty=True)
    merger.run()
    with store.shard("agent") as shard:
        shard.write(Reading("outlet", 2.5))
    real = chunk.commit_chunk

    def late(connection: Any, runs: Any, merge_pass: Any) -> None:
        assert 1 == len(checked_schemas._checked)
        change(shard_path(store, "agent"), edit("REAL", "REAL AS (1.5)"))
        real(connection, runs, merge_pass)

    with monkeypatch.context() as patch:
        patch.setattr(chunk, "commit_chunk", late)
        (refused,) = merger.run().quarantined
    merger.close()
    assert "it has a column that SQLite computes" in refused.reason


def test_little_is_remembered(store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(store, "agent")
    for number in range(100):
        monkeypatch.setattr(checked_schemas, "_SCHEMAS_MAX", 10)
        other = tmp_path / f"{number}.db"
        shutil.copy(path, other)
        change(other, f"CREATE INDEX i{number} ON reading(sensor)" if number % 2 else "SELECT 1")
        assert "shard" == opened(other)[0]
        assert sum(len(by_notes) for _, by_notes in checked_schemas._checked.values()) <= 10
    checked_schemas._checked.clear()
    change(path, f"CREATE TABLE notes(text /* {'x' * checked_schemas._CHARS_MAX} */)")
    assert "shard" == opened(path)[0]
    assert {} == checked_schemas._checked


def test_all_rows_of_shards_with_different_schemas_are_merged(tmp_path: Path) -> None:
    store = new_store(tmp_path / "many")
    for number in range(12):
        with store.shard(f"agent-{number}") as shard:
            fields = {f"c{n}": attrs.field(type=int) for n in range(number % 3 + 1)}
            made: Any = edgeshard.table(name="shape")(attrs.make_class("Shape", fields))
            shard.write(made(*range(number % 3 + 1)))
            shard.write({"n": number})
    assert (24, ()) == ((report := store.merge()).rows, report.quarantined)
    assert [*range(12)] == numbers(store)
