"""PostgreSQL compared with the master: what its users deleted or changed is named by address, and nothing else is."""

from __future__ import annotations

import datetime
import decimal
import json
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError
from edgeshard.postgres import compare
from edgeshard.reports import CHANGED, DELETED, EXTRA, LOST, CompareReport
from tests.support import keyed_model
from tests.support.keyed_model import Lww
from tests.support.processes import command
from tests.support.records import NOON, Reading

pytest.importorskip("psycopg")
from tests.support.postgres_server import do, fetch


def found(report: CompareReport) -> list[tuple[str, str, str, int, int]]:
    return [(each.kind, each.table, each.agent, each.first, each.last) for each in report.differences]


@pytest.fixture
def pushed(store: edgeshard.Store, pg: str) -> edgeshard.Store:
    """A store with ten readings of each of two agents, and dicts between them, all pushed."""
    for agent in "ab":
        with store.shard(agent) as shard:
            for n in range(10):
                shard.write(Reading(agent, float(n), NOON))
                shard.write({"n": n})
    store.merge()
    store.push(pg)
    return store


@pytest.mark.parametrize("deep", [False, True])
def test_what_was_pushed_does_not_differ(pushed: edgeshard.Store, pg: str, deep: bool) -> None:
    report = pushed.verify_against(pg, deep=deep)
    assert (True, 40, 0, (), deep) == (report.ok, report.rows, report.remaining, report.differences, report.deep)


@pytest.mark.parametrize("deep", [False, True])
def test_rows_that_users_deleted_are_named(
    pushed: edgeshard.Store, pg: str, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_WINDOW", 7)
    do(pg, "DELETE FROM reading WHERE sensor = 'a' AND celsius < 3", "DELETE FROM agent_data WHERE _seq = 20")
    report = pushed.verify_against(pg, deep=deep)
    assert {DELETED: 5, CHANGED: 0, EXTRA: 0, LOST: 0} == report.counts
    assert {
        *((DELETED, "reading", "a", seq, seq) for seq in (1, 3, 5)),
        *((DELETED, "agent_data", agent, 20, 20) for agent in "ab"),
    } == set(found(report))


def test_rows_that_users_changed_are_named_by_a_deep_comparison_only(pushed: edgeshard.Store, pg: str) -> None:
    do(
        pg,
        "UPDATE reading SET celsius = celsius + 0.5 WHERE sensor = 'b' AND celsius > 7",
        """UPDATE agent_data SET data = '{"n": 77}' WHERE data = '{"n": 7}'""",
    )
    assert pushed.verify_against(pg).ok
    report = pushed.verify_against(pg, deep=True)
    assert {(CHANGED, "reading", "b", 17, 17), (CHANGED, "reading", "b", 19, 19),
            (CHANGED, "agent_data", "a", 16, 16), (CHANGED, "agent_data", "b", 16, 16)} == set(found(report))  # fmt: skip


def test_a_row_that_was_deleted_and_one_that_was_added_in_its_place_differ(pushed: edgeshard.Store, pg: str) -> None:
    do(
        pg,
        "DELETE FROM reading WHERE _seq = 3",
        "INSERT INTO reading (_stream, _seq) SELECT stream, 4 FROM edgeshard_streams",
    )
    assert {DELETED: 2, CHANGED: 0, EXTRA: 2, LOST: 0} == pushed.verify_against(pg, deep=True).counts


def test_a_table_that_users_dropped_has_lost_all_its_rows(pushed: edgeshard.Store, pg: str) -> None:
    do(pg, "DROP TABLE reading")
    for deep in (False, True):
        assert {DELETED: 20, CHANGED: 0, EXTRA: 0, LOST: 0} == pushed.verify_against(pg, deep=deep).counts


def test_rows_that_the_server_lost_with_its_ranges_are_named_until_they_are_pushed_again(
    pushed: edgeshard.Store, pg: str
) -> None:
    ((stream,),) = fetch(pg, "SELECT stream FROM edgeshard_streams WHERE agent_id = 'a'")
    do(pg, f"UPDATE edgeshard_ranges SET last = 15 WHERE stream = '{stream}'")
    do(pg, f"DELETE FROM {{}} WHERE _stream = '{stream}' AND _seq > 15".format("reading"))
    do(pg, f"DELETE FROM agent_data WHERE _stream = '{stream}' AND _seq > 15")
    report = pushed.verify_against(pg, deep=True)
    assert ([(LOST, "", "a", 16, 20)], 5) == (found(report), report.remaining)
    assert 5 == pushed.push(pg).rows
    assert pushed.verify_against(pg, deep=True).ok


def test_rows_that_are_pending_pruned_or_erased_are_no_differences(pushed: edgeshard.Store, pg: str) -> None:
    pushed.erase("reading", "sensor = 'a' AND celsius = 5.0")
    assert 0 < pushed.prune(keep_rows=30).rows
    with pushed.shard("a") as shard:
        shard.write({"n": 10})
    pushed.merge()
    report = pushed.verify_against(pg, deep=True)
    assert (True, 1) == (report.ok, report.remaining)


def test_rejected_rows_are_no_differences(store: edgeshard.Store, pg: str) -> None:
    with store.shard("a") as shard:
        shard.write({"text": "a\0b"})
        shard.write({"text": "ab"})
    store.merge()
    assert 1 == store.push(pg).rows
    report = store.verify_against(pg, deep=True)
    assert (True, 1, 1) == (report.ok, report.rows, report.remaining)


def test_rows_that_the_push_changed_on_request_are_counted_apart(store: edgeshard.Store, pg: str) -> None:
    with store.shard("a") as shard:
        shard.write({"text": "a\0b"})
        shard.write({"text": "ab"})
    store.merge()
    assert 2 == store.push(pg, on_invalid="replace").rows
    report = store.verify_against(pg, deep=True)
    assert (True, 2, 1) == (report.ok, report.rows, report.unchecked)


# -- keyed tables -----------------------------------------------------------------------------------------------------


@edgeshard.table(key="name", history=True)
@attrs.frozen
class Setting:
    name: str
    value: str


@pytest.mark.parametrize("deep", [False, True])
def test_versions_that_another_master_superseded_are_no_differences(tmp_path: Path, pg: str, deep: bool) -> None:
    one, other = keyed_model.world(tmp_path, 2)
    with one.shard("a") as shard:
        shard.write_many(Lww("p", n, 1) for n in range(4))
        shard.write(Setting("colour", "red"))
    one.merge()
    one.push(pg)
    with other.shard("b") as shard:
        shard.write(Lww("p", 0, 2))
        shard.write(Lww("p", 1, 2))
        shard.delete(Lww, "p", 1)
        shard.write(Setting("colour", "blue"))
    other.merge()
    other.push(pg)
    assert one.verify_against(pg, deep=deep).ok
    do(pg, "DELETE FROM cell WHERE col IN (0, 2)", "DELETE FROM setting_history")
    report = one.verify_against(pg, deep=deep)
    assert [(DELETED, "cell", "a", 1, 1), (DELETED, "cell", "a", 3, 3), (DELETED, "setting", "a", 5, 5)] == sorted(
        found(report)
    )


def test_versions_that_the_master_superseded_since_the_push_are_no_differences(tmp_path: Path, pg: str) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        shard.write(Lww("p", 1, 1))
        shard.write(Setting("colour", "red"))
        store.merge()
        store.push(pg)
        shard.write(Lww("p", 1, 2))
        shard.write(Setting("colour", "blue"))
        store.merge()
    assert store.verify_against(pg, deep=True).ok
    store.push(pg)
    assert store.verify_against(pg, deep=True).ok


def test_a_version_that_another_master_superseded_for_another_reason_is_no_difference(tmp_path: Path, pg: str) -> None:
    one, other = keyed_model.world(tmp_path, 2)
    with one.shard("a") as shard:
        shard.write(Setting("colour", "red"))
        one.merge()
        one.push(pg)
        shard.delete(Setting, "colour")
    with other.shard("b") as shard:
        shard.write(Setting("colour", "blue"))
    for store in (other, one):
        store.merge()
        store.push(pg)
    reason = "SELECT value, _reason FROM setting_history"
    assert ([("red", "deleted")], [("red", "replaced")]) == (one.query(reason), fetch(pg, reason))
    assert one.verify_against(pg, deep=True).ok
    do(pg, "UPDATE setting_history SET value = 'green'")
    assert [(CHANGED, "setting_history", "a", 1, 1)] == found(one.verify_against(pg, deep=True))


# -- values -----------------------------------------------------------------------------------------------------------


@edgeshard.table
@attrs.frozen
class All:
    text: str | None
    number: int | None
    real: float | None
    flag: bool | None
    data: bytes | None
    at: datetime.datetime | None
    day: datetime.date | None
    exact: decimal.Decimal | None
    key: uuid.UUID | None
    members: dict[str, Any] | None


_JSON = {
    "longer": 1, "a": [1.50, -0.0, 1e300, 5e-324, 10**40, True, None, {}], "ä": "\u001f\b\"\\/\x7f\U0001f600", "b": {"zz": [], "z": ""},
    "": "é",
}  # fmt: skip
VALUES = [
    All(*[None] * 10),
    All("", 0, 0.0, False, b"", NOON, NOON.date(), decimal.Decimal(0), uuid.UUID(int=0), {}),
    All("ä\U0001f600", -(2**63), -0.0, True, bytes(range(256)), datetime.datetime(1, 1, 2, tzinfo=datetime.UTC),
        datetime.date(9999, 12, 31), decimal.Decimal("-12345678901234567890.1234500"), uuid.UUID(int=2**128 - 1), _JSON),
    All("x" * 100_000, 2**63 - 1, float("inf"), True, b"\0", NOON.replace(microsecond=1), NOON.date(),
        decimal.Decimal("1E+20"), uuid.uuid4(), {"deep": [[[[{"n": 0.1}]]]]}),
]  # fmt: skip


def test_each_value_has_the_same_checksum_on_both_sides(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("a") as shard:
        shard.write_many(VALUES)
    store.merge()
    store.push(pg)
    monkeypatch.setattr(compare._Comparison, "_is_changed", lambda *_: pytest.fail("checksums differ"))
    assert store.verify_against(pg, deep=True).ok


CHANGES = ["text = text || ' '", "number = number # 1", "real = '-Infinity'", "flag = NOT flag", "data = data || '\\x00'",
           # no function here that Citus refuses because its result depends on more than its arguments
           "at = '0001-01-02T00:00:00.000001Z'", "day = day - 1", "exact = exact + 1", f"key = '{uuid.UUID(int=1)}'",
           """members = members || '{"new": 1}'""", "text = NULL", "members = NULL"]  # fmt: skip


def test_a_change_of_any_column_is_found(store: edgeshard.Store, pg: str) -> None:
    with store.shard("a") as shard:
        shard.write_many(VALUES)
    store.merge()
    store.push(pg)
    do(pg, 'CREATE TABLE kept AS SELECT * FROM "all" WHERE _seq = 3')
    missed = []
    for change in CHANGES:
        do(pg, f'UPDATE "all" SET {change} WHERE _seq = 3')
        if [(CHANGED, "all", "a", 3, 3)] != found(store.verify_against(pg, deep=True)):
            missed.append(change)
        do(pg, 'DELETE FROM "all" WHERE _seq = 3', 'INSERT INTO "all" SELECT * FROM kept')
    assert [] == missed
    assert store.verify_against(pg, deep=True).ok


def test_json_in_another_form_is_compared_by_the_server(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(3))
    store.merge()
    store.push(pg)
    do(pg, """UPDATE agent_data SET data = '{"n": 9}' WHERE _seq = 2""")
    monkeypatch.setattr(compare, "jsonb_text", lambda value: value + " ")
    assert [(CHANGED, "agent_data", "a", 2, 2)] == found(store.verify_against(pg, deep=True))


def test_a_table_whose_columns_lag_behind_is_counted_only(store: edgeshard.Store, pg: str) -> None:
    with store.shard("a") as shard:
        shard.write(Reading("inlet", 1.0, NOON))
    store.merge()
    store.push(pg)
    do(pg, "ALTER TABLE reading DROP COLUMN celsius")
    report = store.verify_against(pg, deep=True)
    assert (True, ("reading",)) == (report.ok, report.behind)


# -- memory, the command, and refusals --------------------------------------------------------------------------------


def test_a_comparison_needs_little_memory(store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_WINDOW", 500)
    with store.shard("a") as shard:
        shard.write_many({"text": f"{n} " * 200} for n in range(5_000))
    store.merge()
    store.push(pg)
    do(pg, "DELETE FROM agent_data WHERE _seq % 2 = 0", "UPDATE agent_data SET data = '{}'")
    tracemalloc.start()
    try:
        report = store.verify_against(pg, deep=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {DELETED: 2_500, CHANGED: 2_500, EXTRA: 0, LOST: 0} == report.counts
    assert 1_000 == len(report.differences)
    assert peak < 4 << 20  # all texts together have six megabytes


def test_the_command_names_differences_and_exits_3(pushed: edgeshard.Store, pg: str) -> None:
    assert 0 == command("verify", pushed.root, "--against", pg, "--deep").returncode
    do(pg, "DELETE FROM reading WHERE _seq = 1")
    done = command("verify", pushed.root, "--against", pg)
    assert (3, 2) == (done.returncode, done.stdout.count("deleted: rows 1 to 1 of table reading"))
    said = json.loads(command("verify", pushed.root, "--against", pg, "--json").stdout)
    assert ({DELETED: 2, CHANGED: 0, EXTRA: 0, LOST: 0}, 2) == (said["counts"], len(said["differences"]))


def test_a_database_without_pushes_is_refused(store: edgeshard.Store, pg: str) -> None:
    store.init()
    with pytest.raises(ConfigurationError, match="nothing was pushed to this database yet"):
        store.verify_against(pg)
    assert 78 == command("verify", store.root, "--against", pg).returncode
