"""The tables of the format, and which a database of each role has."""

from __future__ import annotations

import pytest

from edgeshard import format, sqlite

SCRIPTS = {
    format.SHARD: format.SHARD_TABLES,
    format.MASTER: format.MASTER_TABLES,
    format.BUNDLE: format.BUNDLE_TABLES,
    format.NOTES: format.NOTES_TABLES,
}


@pytest.mark.parametrize("role", SCRIPTS)
def test_a_script_makes_the_tables_of_its_role_as_they_are_compared_later(role: str) -> None:
    connection = sqlite.open_in_memory(SCRIPTS[role])
    try:
        made = dict(sqlite.fetch(connection, "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    finally:
        connection.close()
    expected = {name: format.DDL[name] for name in format.REQUIRED_TABLES[role]}
    if role == format.SHARD:
        expected = {name: "\n".join(map(_without_comment, sql.splitlines())) for name, sql in expected.items()}
    assert expected == made


def _without_comment(line: str) -> str:
    return line.partition("--")[0].rstrip()


def test_every_table_belongs_to_a_role() -> None:
    required = {name for names in format.REQUIRED_TABLES.values() for name in names}
    assert format.DDL.keys() == required
    with_rows = (names for role, names in format.REQUIRED_TABLES.items() if role != format.NOTES)
    assert set(format.COMMON_TABLES) == set.intersection(*map(set, with_rows))
    assert set(format.OPTIONAL_SHARD_TABLES).isdisjoint(format.REQUIRED_TABLES[format.SHARD])


def test_used_bytes_are_those_of_the_pages_in_use() -> None:
    connection = sqlite.open_in_memory("CREATE TABLE t(x)")
    try:
        page_bytes = connection.pragma("page_size")
        empty = sqlite.used_bytes(connection)
        assert 2 * page_bytes == empty
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
        assert sqlite.used_bytes(connection) > 100_000
        connection.execute("DELETE FROM t")
        assert (empty, True) == (sqlite.used_bytes(connection), connection.pragma("freelist_count") > 0)
    finally:
        connection.close()
