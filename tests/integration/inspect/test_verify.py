"""verify finds what contradicts itself, what is missing, and why."""

from __future__ import annotations

import datetime
import decimal
import json
import shutil
import uuid
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard.reports import OLDER_MASTER, OTHER_MASTER, UNKNOWN, VerifyReport
from tests.support.hostile_shards import edit
from tests.support.processes import command, sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, shard_path


@attrs.frozen
class Everything:
    """A column of each kind."""

    flag: bool
    at: datetime.datetime
    day: datetime.date
    price: decimal.Decimal
    key: uuid.UUID
    names: list[str]
    raw: bytes
    text: str | None


def causes(report: VerifyReport) -> list[tuple[int, int, str]]:
    return [(loss.gap.first, loss.gap.last, loss.cause) for loss in report.losses]


def database_id(store: edgeshard.Store) -> str:
    identity: str = store.query("select lower(hex(database_id)) as id from _edgeshard_database")[0].id
    return identity


@pytest.fixture
def merged(store: edgeshard.Store) -> edgeshard.Store:
    """A master of ten rows, and their shard, which is empty."""
    with store.shard("agent") as shard:
        shard.write_many({"n": n} for n in range(8))
        shard.write_many(Reading("inlet", float(n), NOON) for n in range(2))
    store.merge(keep_empty=True)
    return store


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_master_is_sound_by_either_check(merged: edgeshard.Store, deep: bool) -> None:
    report = merged.verify(deep=deep)
    assert (True, 10, 1, (), ()) == (report.ok, report.rows, report.streams, report.errors, report.losses)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("update _edgeshard_streams set last_seq = 9", "seqs 1 to 10 are outside the stream"),
        ("update _edgeshard_ranges set stream_no = 7", "seqs 1 to 10 are outside the stream"),
        ("insert into _edgeshard_ranges values (1, 5, 6)", "two ranges hold seq 5"),
        ("insert into _edgeshard_missing values (1, 2)", "0 rows missing, and 2 recorded as missing"),
        ("update _edgeshard_streams set last_seq = 12", "2 rows missing, and 0 recorded as missing"),
        ("update _edgeshard_database set next_id = 10", "the next row would get id 10"),
        ("update agent_data set _seq = 3 where _seq = 2", "1 row not where the address says"),
        ("update reading set _stream = 7 where _seq = 9", "9 rows where its blocks hold 10"),
    ],
)
def test_each_contradiction_is_found_without_reading_the_values(
    merged: edgeshard.Store, statement: str, said: str
) -> None:
    edit(merged.master_path, statement)
    assert any(said in error for error in merged.verify().errors), merged.verify().errors


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("update agent_data set data = substr(data, 2) where _seq = 1", "1 value of column data not of type json"),
        ("update reading set at = replace(at, ':', ';')", "2 values of column at not of type datetime"),
        ("update reading set sensor = cast(x'ff' as text)", "2 texts of column sensor are not valid UTF-8"),
    ],
)
def test_values_that_no_agent_can_have_written_are_found_by_a_deep_check(
    merged: edgeshard.Store, statement: str, said: str
) -> None:
    edit(merged.master_path, statement)
    assert () == merged.verify().errors
    assert any(said in error for error in merged.verify(deep=True).errors), merged.verify(deep=True).errors


def test_an_index_that_does_not_say_what_the_table_says_is_found_by_a_deep_check(merged: edgeshard.Store) -> None:
    edit(
        merged.master_path,
        "create table kept as select rootpage as page from sqlite_schema where type = 'index' and tbl_name = 'reading'",
        "delete from sqlite_schema where type = 'index' and tbl_name = 'reading'",
    )
    edit(
        merged.master_path,
        "update reading set sensor = 'outlet' where _seq = 9",
        "insert into sqlite_schema select 'index', 'by sensor', 'reading', page, "
        "'CREATE INDEX \"by sensor\" ON reading(sensor)' from kept",
    )
    edit(merged.master_path, "drop table kept")
    assert () == merged.verify().errors
    assert any("SQLite finds" in error for error in merged.verify(deep=True).errors)


def test_every_kind_of_value_that_can_be_written_passes_a_deep_check(store: edgeshard.Store) -> None:
    moments = [
        datetime.datetime(1, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime.max.replace(tzinfo=datetime.UTC),
        NOON,
    ]
    with store.shard("agent") as shard:
        for at in moments:
            shard.write(
                Everything(True, at, at.date(), decimal.Decimal("NaN"), uuid.uuid4(), ["\\", "\0"], b"\xff", None)
            )
            shard.write(Everything(False, at, at.date(), decimal.Decimal("1e9"), uuid.uuid4(), [], b"", "a\0b é"))
    store.merge()
    assert store.verify(deep=True).ok


def test_rows_that_are_missing_since_an_older_master_was_put_back_are_told_from_those_that_another_has(
    merged: edgeshard.Store, tmp_path: Path
) -> None:
    merged.snapshot(tmp_path / "older.db")
    with merged.shard("agent") as shard:
        shard.write_many({"n": n} for n in range(5))
        merged.merge(keep_empty=True)
        other = new_store(tmp_path / "other")
        shard.write_many({"n": n} for n in range(3))
    sql(shard_path(merged, "agent"), "pragma wal_checkpoint(truncate)")
    shutil.move(shard_path(merged, "agent"), shard_path(other, "agent"))
    other.merge(keep_empty=True)
    shutil.move(shard_path(other, "agent"), shard_path(merged, "agent"))
    for suffix in ("", "-wal", "-shm"):
        Path(f"{merged.master_path}{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "older.db", merged.master_path)
    merged.merge(keep_empty=True)

    report = merged.verify()
    assert [(1, 5, OLDER_MASTER), (6, 8, OTHER_MASTER)] == causes(report)
    assert [database_id(merged), database_id(other)] == [loss.database for loss in report.losses]
    first, second = [line for line in command("verify", merged.root).stdout.splitlines() if line[:1] == "│"][1:]
    assert "this master held them before an older copy of it was restored" in first
    assert f"master {database_id(other)}" in second
    merged.merge([other.master_path])
    assert [(1, 5, OLDER_MASTER)] == causes(merged.verify())


def test_rows_of_which_nothing_was_noted_are_missing_for_an_unknown_reason(merged: edgeshard.Store) -> None:
    edit(
        merged.master_path,
        "update _edgeshard_streams set last_seq = 12",
        "insert into _edgeshard_missing select stream_no, 2 from _edgeshard_streams",
    )
    report = merged.verify()
    assert [(11, 12, UNKNOWN)] == causes(report)


def test_the_command_says_where_missing_rows_are_and_checks_deeply_where_told(merged: edgeshard.Store) -> None:
    edit(
        merged.master_path,
        "update _edgeshard_streams set last_seq = 12",
        "insert into _edgeshard_missing select stream_no, 2 from _edgeshard_streams",
    )
    report = json.loads(command("verify", merged.root, "--json").stdout)
    assert [{"first": 11, "last": 12, "agent": "agent"}] == [
        {key: loss["gap"][key] for key in ("first", "last", "agent")} for loss in report["losses"]
    ]
    edit(merged.master_path, "update agent_data set data = 'x'")
    assert 3 == command("verify", merged.root).returncode
    done = command("verify", merged.root, "--deep")
    assert (65, True) == (done.returncode, " not of type json" in done.stdout)
