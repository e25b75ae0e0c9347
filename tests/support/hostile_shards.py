"""Shards as a hostile agent would make them: each function turns a sound one into a bad one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from edgeshard import format


def edit(path: Path, *statements: str) -> None:
    """Change a database as a stranger could, and leave no WAL."""
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.pragma("writable_schema", True)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def remade(path: Path, *, page_bytes: int = 1024, encoding: str = "UTF-8") -> None:
    """Rebuild a database with another page size, or in another encoding."""
    old = path.with_name("old")
    path.rename(old)
    source, target = apsw.Connection(str(old)), apsw.Connection(str(path))
    target.pragma("encoding", encoding)
    target.pragma("page_size", page_bytes)
    for name in ("application_id", "user_version"):
        target.pragma(name, source.pragma(name))
    for (text,) in source.execute("select sql from sqlite_schema where sql is not null").fetchall():
        target.execute(str(text))
    for (table,) in source.execute("select name from sqlite_schema where type = 'table'").fetchall():
        rows = source.execute(f'select * from "{table}"').fetchall()
        if rows:
            target.executemany(f'insert into "{table}" values ({", ".join("?" * len(rows[0]))})', rows)
    target.pragma("journal_mode", "WAL")
    source.close()
    target.close()
    old.unlink()


def replace_table(path: Path, name: str, columns: str, options: str = "") -> None:
    """Give a table other columns or options, and keep the values of the columns that it still has."""
    edit(
        path,
        f'alter table "{name}" rename to was',
        f'create table "{name}"({columns}) {options}',
        f'insert or ignore into "{name}" select * from was',
        "drop table was",
    )


# -- expressions ------------------------------------------------------------------------------------------------------

_COSTLY = "hex(zeroblob(400000000))"


def format_table_with_a_computed_column(path: Path) -> None:
    replace_table(
        path,
        "_edgeshard_streams",
        "stream_no integer primary key, agent_id text not null, stream_id blob not null unique, began_at text, "
        "last_seq integer not null default 0",
    )
    edit(
        path,
        "update sqlite_schema set sql = replace(sql, 'began_at text', "
        f"'began_at text as ({_COSTLY})') where name = '_edgeshard_streams'",
    )


def record_table_with_another_computed_column(path: Path) -> None:
    # not by ALTER TABLE, which evaluates it for each row
    edit(
        path,
        f"update sqlite_schema set sql = replace(sql, ') STRICT', ', extra text as ({_COSTLY})) STRICT') "
        "where name = 'agent_data'",
    )


def index_over_an_expression(path: Path) -> None:
    edit(path, "create index costly on agent_data(length(data || 'x'))")


def index_over_a_part(path: Path) -> None:
    edit(path, "create index costly on agent_data(data) where length(data) > 1")


def index_over_an_expression_in_a_format_table(path: Path) -> None:
    edit(path, "create index costly on _edgeshard_truncations(abs(first))")


# -- other kinds of tables --------------------------------------------------------------------------------------------


def table_without_rowid(path: Path) -> None:
    replace_table(
        path, "agent_data", "_id integer primary key, agent_id text, timestamp text, data text", "without rowid"
    )


def full_text_table(path: Path) -> None:
    edit(path, "drop table agent_data", "create virtual table agent_data using fts5(_id, agent_id, timestamp, data)")


def table_of_the_files_own_pages(path: Path) -> None:
    edit(path, "drop table agent_data", "create virtual table agent_data using dbstat")


def format_table_that_is_virtual(path: Path) -> None:
    edit(
        path,
        "drop table _edgeshard_transactions",
        "create virtual table _edgeshard_transactions using fts5(first_id, last_id)",
    )


def format_table_without_its_key(path: Path) -> None:
    replace_table(path, "_edgeshard_streams", "stream_no integer, agent_id, stream_id, began_at, last_seq")


# -- tables of the format's own ---------------------------------------------------------------------------------------


def companion_without_its_table(path: Path, name: str, renamed: str) -> None:
    """Turn the dicts into rows of a table that would belong to a keyed table, and rename a column of it."""
    history = name.endswith("_history")
    columns = {"_timestamp": "timestamp", "k": "text", **({"_reason": "reason", "v": "integer"} if history else {})}
    stored = ", ".join(f"{column} {format.STORED_AS[type_]}" for column, type_ in columns.items())
    edit(
        path,
        format.DDL[format.RENAMES],
        f"create table {name}(_id integer primary key, {stored}) strict",
        f"insert into {name}(_id, _timestamp, k) select _id, 1, 'p' from agent_data",
        "drop table agent_data",
        "delete from _edgeshard_columns",
        *(
            f"insert into _edgeshard_columns values ('{name}', '{column}', '{columns[column]}', 1)"
            for column in columns
        ),
        f"insert into _edgeshard_renames values ('{name}', '{renamed}', 'hijacked')",
    )


# -- too much ---------------------------------------------------------------------------------------------------------


def thousands_of_columns(path: Path) -> None:
    columns = [f"c{n}" for n in range(1_990)]
    edit(
        path,
        f"create table wide(_id integer primary key, {', '.join(f'{name} text' for name in columns)}) strict",
        f"insert into _edgeshard_columns values {', '.join(f'''('wide', '{name}', 'text', 1)''' for name in columns)}",
    )


def huge_text_of_a_table(path: Path) -> None:
    edit(path, f"create table wide(x text default '{'x' * 2_000_000}')")


def tables_without_number(path: Path) -> None:
    """Create very many tables: each takes 50 bytes, and SQLite reads all their definitions in quadratic time."""
    edit(
        path,
        "with recursive counted(n) as (select 1 union all select n + 1 from counted where n < 100000) "
        "insert into sqlite_schema select 'table', 't' || n, 't' || n, 2, 'create table t' || n || '(x)' from counted",
    )


def giant_cell(path: Path) -> None:
    edit(path, "update agent_data set data = cast(zeroblob(110000000) as text) where _id & 255 = 1")


def giant_cell_in_a_format_table(path: Path) -> None:
    edit(path, "update _edgeshard_streams set began_at = cast(zeroblob(110000000) as text)")


def time_that_is_long(path: Path) -> None:
    edit(path, f"update _edgeshard_streams set began_at = '{'9' * 100_000}'")


def agent_with_a_long_name(path: Path) -> None:
    name = "x" * 100_000
    edit(
        path,
        f"update _edgeshard_streams set agent_id = '{name}'",
        f"update _edgeshard_database set agent_id = '{name}'",
    )


def truncations_without_number(path: Path) -> None:
    edit(
        path,
        "with recursive counted(n) as (select 1 union all select n + 1 from counted where n < 100000) "
        "insert into _edgeshard_truncations select 1, n, n, x'00112233445566778899aabbccddeeff' from counted",
    )


def pages_in_circles(
    path: Path, table: str = "_edgeshard_columns", row_id: int | None = None, last_id: int | None = None
) -> None:
    """Make a tree of twelve levels in which each page points to the same next page sixteen times: 10^14 leaves in 13 KB.

    Args:
        path: the database.
        table: the table.
        row_id: the id of the row on the leaves, or 0 for none; None for a table without a rowid.
        last_id: the id of the one row on the last leaf, if that is to be another.
    """
    edit(path, "pragma wal_checkpoint(truncate)", "pragma journal_mode = delete")
    connection = apsw.Connection(str(path))
    sql = "select rootpage from sqlite_schema where name = ?"
    root: Any = connection.execute(sql, (table,)).fetchall()[0][0]
    page_bytes = connection.pragma("page_size")
    connection.close()
    content = bytearray(path.read_bytes())
    pages = len(content) // page_bytes
    levels = 12
    numbers = [root, *range(pages + 1, pages + levels + 1)]
    for number, child in zip(numbers, [*numbers[1:], None], strict=True):
        page = (
            _page(page_bytes, child, _ROWS[table])
            if row_id is None
            else _rowid_page(page_bytes, child, row_id, last_id)
        )
        content[(number - 1) * page_bytes : number * page_bytes] = page
    if row_id is not None and last_id is not None:
        content += _rowid_page(page_bytes, None, last_id)
        levels += 1
        content[(root - 1) * page_bytes + 8 : (root - 1) * page_bytes + 12] = struct.pack(">I", pages + levels)
    content[28:32] = struct.pack(">I", pages + levels)
    path.write_bytes(content)


#: The row on each page of an endless table WITHOUT ROWID; numbers are of one byte.
_ROWS: dict[str, tuple[int | str | bytes, ...]] = {
    "_edgeshard_columns": ("agent_data", "agent_id", "text"),
    "_edgeshard_truncations": (1, 1, 1, bytes(16)),
}


def _encoded(value: int | str | bytes) -> tuple[int, bytes]:
    """Return the type and the content of a value in a record (https://sqlite.org/fileformat2.html, 2.1)."""
    if isinstance(value, int):
        return 1, bytes([value])
    if isinstance(value, str):
        return 13 + 2 * len(value), value.encode()
    return 12 + 2 * len(value), value


def _page(page_bytes: int, child: int | None, row: tuple[int | str | bytes, ...]) -> bytes:
    """Return a page of a table WITHOUT ROWID: a leaf with one row, or one that points to the same child again and again."""
    types, contents = zip(*map(_encoded, row), strict=True)
    record = bytes([1 + len(types), *types]) + b"".join(contents)
    cell = bytes([len(record)]) + record
    cells = [cell] if child is None else [struct.pack(">I", child) + cell] * 16
    start = page_bytes - sum(map(len, cells))
    header = struct.pack(">BHHHB", 10 if child is None else 2, 0, len(cells), start, 0)
    header += b"" if child is None else struct.pack(">I", child)
    pointers = b"".join(struct.pack(">H", start + n * len(cells[0])) for n in range(len(cells)))
    return (header + pointers).ljust(start, b"\0") + b"".join(cells)


def _rowid_page(page_bytes: int, child: int | None, row_id: int, last_id: int | None = None) -> bytes:
    """Return the same of a table with a rowid; the row on its leaf has no values, or there is none."""
    if child is not None and last_id is not None:
        row_id = last_id
    id_bytes = b"".join(bytes([row_id >> shift & 127 | 128]) for shift in range(57, 7, -7)) + bytes([row_id & 255])
    if child is None:
        cells = [b"\x02" + id_bytes + b"\x02\x00"] if row_id else []
    else:
        cells = [struct.pack(">I", child) + id_bytes] * 16
    start = page_bytes - sum(map(len, cells))
    header = struct.pack(">BHHHB", 13 if child is None else 5, 0, len(cells), start, 0)
    header += b"" if child is None else struct.pack(">I", child)
    pointers = b"".join(struct.pack(">H", start + n * len(cells[0])) for n in range(len(cells)))
    return (header + pointers).ljust(start, b"\0") + b"".join(cells)


def sparse(path: Path, size_bytes: int = 1 << 30) -> None:
    """Let a file that is on the disk whole claim a size that is almost all holes."""
    edit(path, "pragma wal_checkpoint(truncate)", "pragma journal_mode = delete")
    with open(path, "r+b") as file:
        page_bytes = struct.unpack(">H", file.read(18)[16:])[0]
        file.truncate(size_bytes)
        file.seek(28)
        file.write(struct.pack(">I", size_bytes // page_bytes))


def utf16(path: Path) -> None:
    remade(path, encoding="UTF-16le")


# -- beside the database ----------------------------------------------------------------------------------------------


def journal_to_be_played_back(path: Path, victim: Path) -> None:
    """Add a hot journal that names another file as its super-journal: old SQLite versions delete that file."""
    connection = apsw.Connection(str(path))
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    page_bytes = connection.pragma("page_size")
    connection.close()
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 0, 0, os.path.getsize(path) // page_bytes, 512, page_bytes)
    name = os.fsencode(victim)
    tail = struct.pack(">I", 0x40000000 // page_bytes + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    path.with_name(path.name + "-journal").write_bytes(header.ljust(512, b"\0") + tail)


def strange_names() -> Iterator[str]:
    """Yield file names that have a special meaning somewhere."""
    yield from ("file:x?mode=memory.db", "a?mode=rwc.db", "b#c.db", "%2e%2e%2fmaster.db", ":memory:.db", "a\nb.db")
    yield from ("'; drop table agent_data; --.db", '".db', " .db", "-rf.db", "..db", "\x01.db", "é\u202e.db")
