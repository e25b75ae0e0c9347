"""Tables of other programs' SQLite databases become tables of a store, and each row is imported once."""

from __future__ import annotations

import datetime
import itertools
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard.exchange import import_tables, imports
from edgeshard.reports import ImportedFile, ImportedTable
from tests.support import ordinary
from tests.support.mounts import read_only
from tests.support.stores import new_store

KEYED = "create table readings(id integer primary key, sensor text, celsius real)"
AUTOINCREMENT = KEYED.replace("primary key", "primary key autoincrement")
KEYLESS = "create table readings(sensor text, celsius real)"
CLUSTERED = "create table readings(sensor text, celsius real, primary key(sensor, celsius)) without rowid"
INSERT = "insert into readings(sensor, celsius) values (?, ?)"


def rows(*numbers: int) -> list[tuple[str, float]]:
    return [(f"inlet-{n:03}", n / 2) for n in numbers]


def add(path: Path, *numbers: int) -> None:
    ordinary.run(path, INSERT, rows=rows(*numbers))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a database of another program is."""
    return tmp_path / "plant.db"


def file(store: edgeshard.Store, source: Path, **options: Any) -> ImportedFile:
    """The report on one file."""
    (found,) = store.import_(source, **options).files
    return found


def table(store: edgeshard.Store, source: Path, **options: Any) -> ImportedTable:
    """The report on one table of one file."""
    (found,) = file(store, source, **options).tables
    return found


def counts(store: edgeshard.Store, source: Path, **options: Any) -> tuple[int, int, str]:
    """How many rows were imported, and before, and the error."""
    found = table(store, source, **options)
    return found.rows, found.known, found.error


def celsius(store: edgeshard.Store) -> list[float]:
    return [row.celsius for row in store.query("select celsius from readings order by celsius, _id")]


# -- what becomes of a table ------------------------------------------------------------------------------------------


def test_a_table_keeps_its_name_and_its_columns(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, KEYED, INSERT, rows=[("inlet", 71.5), (None, None)])
    assert ("plant", "") == (file(store, source).agent, file(store, source).error)
    found = store.query("select id, sensor, celsius, agent_id from readings_with_agent order by id")
    assert [(1, "inlet", 71.5, "plant"), (2, None, None, "plant")] == [tuple(row) for row in found]


def test_values_come_as_they_are(store: edgeshard.Store, source: Path) -> None:
    values = (-(1 << 63), 1e308, "a\0b — \U0001f600", b"\0\xff", float("inf"))
    ordinary.run(
        source, "create table t(i, r, x, b, f)", "insert into t values (?, ?, ?, ?, ?)", rows=[values, (None,) * 5]
    )
    assert (2, 0, "") == counts(store, source)
    found = store.query("select i, r, x, b, f from t order by _id")
    assert [values, (None,) * 5] == [tuple(row) for row in found]


def test_the_names_of_columns_may_be_words_of_python(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, 'create table "class"("from" int, "import" text)', "insert into class values (1, 'a')")
    assert (1, 0, "") == counts(store, source)
    assert [(1, "a")] == [tuple(row) for row in store.query('select "from", "import" from "class"')]


def test_a_database_of_the_original_note_becomes_dicts_that_keep_their_time(
    store: edgeshard.Store, source: Path
) -> None:
    made = "create table agent_data(agent_id TEXT, timestamp REAL, data TEXT)"
    insert = "insert into agent_data values (?, ?, ?)"
    ordinary.run(
        source, made, insert, rows=[("agent_7", 1700000000.25, '{"n": 1}'), ("agent_8", 1700000001, '{"n": 2}')]
    )
    assert (2, 0, "") == counts(store, source)
    found = list(store.read(edgeshard.AgentData))
    assert [("agent_7", {"n": 1}), ("agent_8", {"n": 2})] == [(each.agent_id, each.data) for each in found]
    assert datetime.datetime(2023, 11, 14, 22, 13, 20, 250_000, datetime.UTC) == found[0].timestamp
    ordinary.run(source, "insert into agent_data values ('agent_7', 1700000002, '{\"n\": 3}')")
    assert (1, 2, "") == counts(store, source)
    assert (3, 0, "") == counts(store, source, agent="all")
    assert 3 == store.query("select count(*) from agent_data where agent_id = 'all'")[0][0]


@pytest.mark.parametrize(
    ("timestamp", "data", "cause"),
    [
        (1, "[1]", "rowid 2, column data: it is an array"),
        (1, '{"a": 1', "rowid 2, column data: it is not JSON"),
        (1, None, "rowid 2, column data: a JSON object was expected, got None"),
        ("yesterday", "{}", "rowid 2, column timestamp: seconds since 1970"),
        (None, "{}", "rowid 2, column timestamp: seconds since 1970"),
        ("2024-01-01T00:00:00", "{}", "rowid 2, column timestamp: seconds since 1970"),
    ],
)
def test_a_row_that_is_no_dict_is_named_and_those_before_it_are_imported(
    timestamp: Any, data: Any, cause: str, store: edgeshard.Store, source: Path
) -> None:
    made = "create table agent_data(agent_id TEXT, timestamp, data TEXT)"
    insert = "insert into agent_data values ('a', ?, ?)"
    ordinary.run(source, made, insert, rows=[(1, "{}"), (timestamp, data), (3, "{}")])
    found = table(store, source)
    assert (1, True) == (found.rows, cause in found.error), found.error
    ordinary.run(source, "update agent_data set timestamp = 2, data = '{}' where rowid = 2")
    assert (2, 1, "") == counts(store, source)


def test_what_could_run_is_left_out_and_named(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(
        source,
        "create table g(a int, twice int as (a * 2), stored int as (a * 3) stored)",
        "create table noted(x)",
        "create trigger t after insert on g begin insert into noted values (1); end",
        "create view v as select * from g",
        "create virtual table words using fts5(word)",
        "insert into g(a) values (21)",
    )
    found = file(store, source)
    assert [("g", 1), ("noted", 1)] == [(each.table, each.rows) for each in found.tables]
    shadows = [f"table words_{part} (of a virtual table)" for part in ("config", "content", "data", "docsize", "idx")]
    computed = ["column g.twice (computed)", "column g.stored (computed)"]
    assert {"view v", "virtual table words", *shadows, *computed} == set(found.left_out)
    assert [21] == [row.a for row in store.query("select a from g")]
    assert not store.query("select name from pragma_table_info('g') where name in ('twice', 'stored')")


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        ('create table "my table"(a)', "no record table can be called 'my table'"),
        ("create table edgeshard_x(a)", "no record table can be called 'edgeshard_x'"),
        ("create table import_state(a)", "no record table can be called 'import_state'"),
        ('create table t("a b")', "no column of a record table can be called 'a b'"),
        ("create table t(_id integer primary key)", "no column of a record table can be called '_id'"),
        (
            f"create table t({', '.join(f'c{n}' for n in range(401))})",
            "a record table has 1 to 400 columns, and it has 401",
        ),
    ],
)
def test_a_name_that_no_table_can_have_is_refused_and_the_other_tables_are_imported(
    made: str, cause: str, store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(source, made, "create table fine(a)", "insert into fine values (1)")
    tables = {each.table: each for each in file(store, source).tables}
    assert (1, "") == (tables["fine"].rows, tables["fine"].error)
    (refused,) = tables.keys() - {"fine"}
    assert cause in tables[refused].error
    assert not store.query("select 1 from sqlite_schema where name = ?", (refused,)) or refused == "import_state"


def test_another_name_helps_the_only_table(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, 'create table "my table"(a)', 'insert into "my table" values (7)')
    assert (1, 0, "") == counts(store, source, table="mine")
    assert [7] == [row.a for row in store.query("select a from mine")]


def test_one_table_of_several_is_imported_if_it_is_named(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, "create table one(a)", "create table two(a)", "insert into two values (2)")
    assert ("two", 1) == (table(store, source, table="TWO").table, table(store, source, table="TWO").known)
    assert "it has no table 'three'; name one of these: one, two" in file(store, source, table="three").error


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "values", "type_"),
    [
        ("", [1, None], "integer"),
        ("", [1, 2.5], "real"),
        ("text", [None], "text"),
        ("int", [None], "integer"),
        ("double", [1, 2], "real"),
        ("blob", [None], "blob"),
        ("datetime", ["2024-01-01"], "text"),
        ("decimal(10, 2)", [1, 2.5], "real"),
    ],
)
def test_a_column_has_the_type_of_its_values(
    declared: str, values: list[Any], type_: str, store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(
        source, f"create table t(c {declared})", "insert into t values (?)", rows=[(value,) for value in values]
    )
    assert (len(values), 0, "") == counts(store, source)
    assert [(type_,)] == [
        tuple(row) for row in store.query("select type from _edgeshard_columns where table_name = 't'")
    ]
    assert values == [row.c for row in store.query("select c from t order by _id")]


def test_a_column_without_a_value_that_tells_its_type_comes_with_its_first_value(
    store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(source, "create table t(a int, later)", "insert into t values (1, null)")
    assert (1, 0, "") == counts(store, source)
    ordinary.run(source, "insert into t values (2, 'now')")
    assert (1, 1, "") == counts(store, source)
    assert [(1, None), (2, "now")] == [tuple(row) for row in store.query("select a, later from t order by _id")]


@pytest.mark.parametrize(
    ("declared", "values", "cause"),
    [
        ("int", [1, "n/a"], "table t, rowid 2, column c: text, in a column that has integer in other rows"),
        ("text", [b"x", "y"], "table t, rowid 1, column c: blob, in a column that has text in other rows"),
        ("", [1.5, (1 << 53) + 1], "table t, rowid 2, column c: an integer beyond 2^53"),
    ],
)
def test_values_of_several_types_are_refused_before_anything_is_written(
    declared: str, values: list[Any], cause: str, store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(
        source, f"create table t(c {declared})", "insert into t values (?)", rows=[(value,) for value in values]
    )
    found = table(store, source)
    assert (0, True) == (found.rows, cause in found.error), found.error
    assert not store.query("select 1 from sqlite_schema where name = 't'")


def test_a_later_value_of_another_type_is_refused_and_named(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, "create table t(c int)", "insert into t values (1)")
    assert (1, 0, "") == counts(store, source)
    ordinary.run(source, "insert into t values (2.5)")
    assert (1, 1, "") == counts(store, source)  # integers become floats
    ordinary.run(source, "insert into t values ('n/a')")
    found = table(store, source)
    assert (0, 2) == (found.rows, found.known)
    assert "table t, rowid 3, column c: text, in a column that has real in other rows" in found.error


def test_text_that_is_not_utf8_is_named_and_the_rows_before_it_are_imported(
    store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(source, "create table t(a, c)", "insert into t values (1, 'x'), (2, cast(x'ff' as text)), (3, 'y')")
    found = table(store, source)
    assert (1, True) == (found.rows, "table t, rowid 2, column c: it is text that is not UTF-8" in found.error)
    ordinary.run(source, "update t set c = 'z' where a = 2")
    assert (2, 1, "") == counts(store, source)
    assert [(1, "x"), (2, "z"), (3, "y")] == [tuple(row) for row in store.query("select a, c from t order by _id")]


def test_a_database_in_utf16_is_read(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, "pragma encoding = 'UTF-16le'", "create table t(x text)", "insert into t values ('grün')")
    assert (1, 0, "") == counts(store, source)
    assert ["grün"] == [row.x for row in store.query("select x from t")]


# -- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [KEYED, AUTOINCREMENT, KEYLESS, CLUSTERED])
def test_repeating_it_imports_only_new_rows(
    made: str, store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_tables.TableReader.batches, "__defaults__", (3,))
    ordinary.run(source, made)
    assert (0, 0, "") == counts(store, source)
    for known in (0, 7, 14):
        add(source, *range(known, known + 7))
        assert (7, known, "") == counts(store, source)
        assert (0, known + 7, "") == counts(store, source)
    assert [n / 2 for n in range(21)] == celsius(store)


def test_a_copy_in_another_folder_is_continued(store: edgeshard.Store, source: Path, tmp_path: Path) -> None:
    ordinary.run(source, KEYED, INSERT, rows=rows(1, 2))
    assert (2, 0, "") == counts(store, source)
    elsewhere = tmp_path / "usb" / source.name
    elsewhere.parent.mkdir()
    source.rename(elsewhere)
    add(elsewhere, 3)
    assert (1, 2, "") == counts(store, elsewhere)


@pytest.mark.parametrize("made", [KEYED, KEYLESS])
def test_a_renamed_file_is_continued_as_the_same_agent(
    made: str, store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    ordinary.run(source, made, INSERT, rows=rows(1, 2))
    assert (2, 0, "") == counts(store, source)
    renamed = source.rename(tmp_path / "plant-2025.db")
    add(renamed, 3)
    found = table(store, renamed, agent="plant")
    assert (1, 2, "plant.db", "") == (found.rows, found.known, found.continues, found.error)
    ordinary.run(source, made, INSERT, rows=rows(10, 11, 12, 13))  # a new file with the old name
    assert (4, 0, "") == counts(store, source)
    assert (0, 3, "") == counts(store, renamed, agent="plant")
    assert [0.5, 1.0, 1.5, 5.0, 5.5, 6.0, 6.5] == celsius(store)


@pytest.mark.parametrize("made", [KEYED, AUTOINCREMENT, KEYLESS, CLUSTERED])
def test_another_file_with_the_same_name_is_refused(made: str, store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, made, INSERT, rows=rows(1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    source.unlink()
    ordinary.run(source, made, INSERT, rows=rows(4, 5, 6, 7))
    found = table(store, source)
    assert (0, True) == (found.rows, "it is another file" in found.error)
    assert (4, 0, "") == counts(store, source, agent="other")
    assert [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5] == celsius(store)


@pytest.mark.parametrize(
    "change",
    [
        "delete from readings where rowid = 1",
        "update readings set celsius = 99 where rowid = 1",
        "delete from readings where rowid = (select max(rowid) from readings)",
        "delete from readings where rowid = 2; vacuum",
        "update readings set rowid = 17 where rowid = 1",
    ],
)
def test_a_table_without_a_key_is_refused_once_its_imported_rows_changed(
    change: str, store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(source, KEYLESS, INSERT, rows=rows(1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    ordinary.run(source, *change.split(";"))
    add(source, 4)
    found = table(store, source)
    assert (0, True) == (found.rows, "are not the ones that were imported" in found.error), found.error
    assert [0.5, 1.0, 1.5] == celsius(store)


def test_a_vacuum_that_numbers_the_rows_anew_is_noticed(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, KEYLESS, INSERT, rows=rows(1, 2, 3))
    ordinary.run(source, "delete from readings where rowid = 1")
    assert (2, 0, "") == counts(store, source)
    ordinary.run(source, "vacuum")
    assert "numbered anew" in table(store, source).error


def test_deletes_and_updates_of_older_rows_with_a_key_are_not_noticed(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, KEYED, INSERT, rows=rows(1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    ordinary.run(source, "delete from readings where id = 1", "update readings set celsius = 99 where id = 2", "vacuum")
    add(source, 4)
    assert (1, 3, "") == counts(store, source)
    assert [0.5, 1.0, 1.5, 2.0] == celsius(store)


@pytest.mark.parametrize("made", [KEYED, AUTOINCREMENT])
def test_a_key_that_may_have_been_used_again_is_reported_once(made: str, store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, made, INSERT, rows=rows(1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    ordinary.run(source, "delete from readings where id = 3")
    add(source, 4)
    found = table(store, source)
    if made is AUTOINCREMENT:
        assert (1, ()) == (found.rows, found.notes)
        return
    assert (0, True) == (
        found.rows,
        "the rows with the keys 3 were imported, and are not as they were" in found.notes[0],
    )
    add(source, 5)
    assert (1, ()) == (table(store, source).rows, table(store, source).notes)
    assert [0.5, 1.0, 1.5, 2.5] == celsius(store)


@pytest.mark.parametrize("made", [KEYED, AUTOINCREMENT])
def test_a_table_that_was_emptied_goes_on_only_where_no_key_is_used_again(
    made: str, store: edgeshard.Store, source: Path
) -> None:
    ordinary.run(source, made, INSERT, rows=rows(1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    ordinary.run(source, "delete from readings")
    assert (0, 3, "") == counts(store, source)
    add(source, 4)
    found = table(store, source)
    assert (1, "") == (found.rows, found.error) if made is AUTOINCREMENT else "keys 1 to 3" in found.error


def test_a_column_that_was_added_comes_with_the_new_rows(store: edgeshard.Store, source: Path) -> None:
    for made in (KEYED, KEYLESS):
        source.unlink(missing_ok=True)
        agent = f"agent {len(made)}"
        ordinary.run(source, made, INSERT, rows=rows(1, 2))
        assert (2, 0, "") == counts(store, source, agent=agent)
        ordinary.run(source, "alter table readings add column unit text default 'C'")
        add(source, 3)
        assert (1, 2, "") == counts(store, source, agent=agent)
        add(source, 4)
        assert (1, 3, "") == counts(store, source, agent=agent)
        ordinary.run(source, "alter table readings drop column unit")
        assert "it has no column unit any more" in table(store, source, agent=agent).error


def test_rows_that_were_pruned_do_not_come_again(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(source, KEYLESS, INSERT, rows=rows(1, 2, 3))
    assert (3, 0, "") == counts(store, source)
    add(source, 4)
    assert (1, 3, "") == counts(store, source)
    store.prune(keep_rows=1)
    assert [2.0] == celsius(store)
    add(source, 5)
    assert (1, 4, "") == counts(store, source)
    assert [2.0, 2.5] == celsius(store)


# -- sources are only read --------------------------------------------------------------------------------------------


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {each.name: (each.stat().st_mtime_ns, each.stat().st_size, each.read_bytes()) for each in folder.iterdir()}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_source_and_its_folder_stay_as_they_are(mode: str, store: edgeshard.Store, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    ordinary.run(folder / "plant.db", f"pragma journal_mode = {mode}", KEYED, INSERT, rows=rows(1, 2))
    before = state(folder)
    assert (2, 0, "") == counts(store, folder / "plant.db")
    assert before == state(folder)


def test_rows_in_the_wal_of_a_live_writer_are_read_and_the_writer_goes_on(store: edgeshard.Store, source: Path) -> None:
    writer = apsw.Connection(str(source))
    writer.execute("pragma journal_mode = wal")
    writer.execute(KEYED)
    writer.execute("insert into readings(celsius) values (1)")
    writer.execute("begin immediate; insert into readings(celsius) values (2)")  # not committed
    assert (1, 0, "") == counts(store, source)
    writer.execute("commit")
    assert (1, 1, "") == counts(store, source)
    writer.close()
    assert [1.0, 2.0] == celsius(store)


@pytest.mark.slow
def test_a_wal_database_on_a_read_only_medium_is_read_from_a_copy(store: edgeshard.Store, tmp_path: Path) -> None:
    theirs, medium = tmp_path / "theirs", tmp_path / "medium"
    theirs.mkdir()
    writer = apsw.Connection(str(theirs / "plant.db"))
    for sql in ("pragma journal_mode = wal", KEYED, "insert into readings(celsius) values (1)"):
        writer.execute(sql)
    shutil.copytree(theirs, medium, ignore=shutil.ignore_patterns("*-shm"))
    writer.close()
    with read_only(medium, tmp_path / "mounted") as mounted:
        assert (1, 0, "") == counts(store, mounted / "plant.db")
    assert [1.0] == celsius(store)
    assert not [path for path in store.root.iterdir() if path.is_dir() and path.name != "shards"]


@pytest.mark.parametrize("made", [KEYED, KEYLESS, CLUSTERED])
def test_a_writer_does_not_wait_while_rows_are_written_to_the_store(
    made: str, store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary.run(source, made, INSERT, rows=rows(*range(7)))
    writer, added, write = apsw.Connection(str(source)), iter(range(7, 9)), imports._FileRun._write

    def write_both(*given: Any) -> int:
        for n in itertools.islice(added, 1):
            writer.execute(INSERT, rows(n)[0])  # it is not prepared to wait
        return write(*given)

    monkeypatch.setattr(import_tables.TableReader.batches, "__defaults__", (3,))
    monkeypatch.setattr(imports._FileRun, "_write", write_both)
    assert (9, 0, "") == counts(store, source)
    assert [n / 2 for n in range(9)] == celsius(store)
    writer.close()


def test_rows_that_change_while_others_are_written_to_the_store_are_noticed(
    store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary.run(source, KEYLESS, INSERT, rows=rows(*range(7)))
    write = imports._FileRun._write

    def write_both(*given: Any) -> int:
        ordinary.run(source, "delete from readings where rowid = 1", "vacuum")
        return write(*given)

    monkeypatch.setattr(import_tables.TableReader.batches, "__defaults__", (3,))
    monkeypatch.setattr(imports._FileRun, "_write", write_both)
    found = table(store, source)
    assert (3, True) == (found.rows, "are not the ones that were imported" in found.error)
    assert [0.0, 0.5, 1.0] == celsius(store)


@pytest.mark.parametrize("batch_rows", [1, 3])
def test_a_value_of_another_type_that_is_written_meanwhile_is_named_and_the_batches_before_it_are_imported(
    batch_rows: int, store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary.run(
        source, "create table t(n integer primary key, v int)", "insert into t values (?, 1)", rows=[(1,), (2,)]
    )
    write, added = imports._FileRun._write, [(3, 1), (4, "n/a"), (5, 1)]

    def write_both(*given: Any) -> int:
        while added:
            ordinary.run(source, "insert into t values (?, ?)", rows=[added.pop(0)])
        return write(*given)

    monkeypatch.setattr(import_tables.TableReader.batches, "__defaults__", (batch_rows,))
    monkeypatch.setattr(imports._FileRun, "_write", write_both)
    found = table(store, source)
    imported = {1: 3, 3: 2}[batch_rows]  # there were two rows when the first batch was read
    assert (imported, True) == (found.rows, found.error.startswith("table t, rowid 4: ")), found.error
    ordinary.run(source, "update t set v = 1 where n = 4")
    assert (5 - imported, imported, "") == counts(store, source)
    assert [1, 2, 3, 4, 5] == [row.n for row in store.query("select n from t order by _id")]


def test_a_source_that_is_locked_is_refused_and_comes_next_time(
    store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeshard.sources.ordinary._BUSY_TIMEOUT_S", 0.01)
    ordinary.run(source, KEYED, INSERT, rows=rows(1))
    writer = apsw.Connection(str(source))
    writer.execute("begin exclusive")
    assert "another process holds it locked" in file(store, source).error
    writer.close()
    assert (1, 0, "") == counts(store, source)


def test_databases_of_edgeshard_are_to_be_merged(store: edgeshard.Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    with other.shard("a") as shard:
        shard.write({"n": 1})
        for path in (other.master_path, shard.path, store.master_path):
            assert "it is an edgeshard database; merge it" in file(store, Path(path)).error


def damaged(path: Path) -> None:
    ordinary.run(path, KEYED, INSERT, rows=rows(*range(2_000)))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    path.write_bytes(content)


def circular(path: Path) -> None:
    """A table whose pages lead in a circle: an interior page that has itself as its only child."""
    ordinary.run(path, "create table t(a)", "insert into t values (?)", rows=[("x" * 500,)] * 200)
    ((page,),) = ordinary.run(path, "select rootpage from sqlite_schema where name = 't'")
    content = bytearray(path.read_bytes())
    start = (page - 1) * 4096
    content[start + 8 : start + 12] = page.to_bytes(4)
    for cell in range(int.from_bytes(content[start + 3 : start + 5])):
        pointer = int.from_bytes(content[start + 12 + 2 * cell :][:2])
        content[start + pointer : start + pointer + 4] = page.to_bytes(4)
    path.write_bytes(content)


def with_a_bad_schema(path: Path) -> None:
    ordinary.run(
        path,
        "create table t(a)",
        "pragma writable_schema = on",
        "update sqlite_schema set sql = 'create table t(a, a b c'",
    )


def test_a_virtual_table_that_claims_to_have_pages_is_left_out(store: edgeshard.Store, source: Path) -> None:
    ordinary.run(
        source,
        "create table fine(a)",
        "create virtual table pages using dbstat",
        "pragma writable_schema = on",
        "update sqlite_schema set rootpage = 2 where name = 'pages'",
    )
    assert (["fine"], ("virtual table pages",)) == (
        [each.table for each in file(store, source).tables],
        file(store, source).left_out,
    )


@pytest.mark.parametrize("damage", [damaged, circular, with_a_bad_schema])
def test_a_damaged_or_hostile_database_is_refused_and_the_other_files_are_imported(
    damage: Any, store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    damage(source)
    ordinary.run(tmp_path / "fine.db", KEYED, INSERT, rows=rows(1))
    report = store.import_([source, tmp_path / "fine.db"])
    assert (1, False, True) == (report.rows, report.complete, bool(report.files[0].errors))
    assert str(source) in report.files[0].errors[0]
