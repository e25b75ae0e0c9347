"""Rejected rows together with other features: hubs, prunes, restored masters and servers, erasure, keys, odd values."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.pusher import Pusher
from edgeshard.postgres.rejected_record import RejectedRecord
from edgeshard.postgres.server import Server
from edgeshard.reports import PushReport
from tests.support.processes import sql
from tests.support.stores import new_store
from tests.support.wall_clock import Wall

pytest.importorskip("psycopg")

from tests.support.items import NUL, Item, items, write
from tests.support.postgres_server import PgServer, do, fetch

MODES = ("reject", "replace", "escape")


def kept(store: edgeshard.Store) -> list[int]:
    return [row.n for row in store.query("select n from item order by n")]


def account(store: edgeshard.Store) -> tuple[int, int]:
    """Return how many rows are rejected, and how many dismissed."""
    report = store.rejected()
    return report.rows, sum(item.rows for item in report.dismissed)


# -- many ranges ------------------------------------------------------------------------------------------------------


def test_a_chunk_reads_only_the_ranges_around_its_rows(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pusher = Pusher(store.master_path, parse_dsn(pg))
    with store.shard("agent") as shard:
        for n in range(600):
            shard.write(Item(n, NUL if n % 2 else ""))
        store.merge()
        assert (300, 300) == ((report := pusher.run()).rows, report.rejected[0].ranges)
        fetched = []
        execute = Server.execute

        def counted(self: Server, sql: str, values: Any = ()) -> Any:
            rows = execute(self, sql, values)
            fetched.append(len(rows))
            return rows

        monkeypatch.setattr(Server, "execute", counted)
        for n in range(600, 604):
            shard.write(Item(n))
            store.merge()
            assert 1 == pusher.run().rows
    pusher.close()
    assert max(fetched) < 10
    assert (304, 300) == (len(items(pg)), store.rejected().rows)


def test_rows_that_never_fit_are_not_tried_again_by_each_push_that_replaces_characters(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "agent", Device("a\0"), Item(1, NUL), Device("b", NUL))
    assert 3 == store.push(pg).remaining
    assert (2, 1) == ((report := store.push(pg, on_invalid="replace")).rows, report.remaining)
    changes = []
    monkeypatch.setattr(RejectedRecord, "_change", lambda *given: changes.append(given))
    for mode in MODES:
        assert (0, 1) == ((report := store.push(pg, on_invalid=mode)).rows, report.remaining)  # type: ignore[arg-type]
    assert [] == changes


def test_rows_of_many_ranges_leave_the_list_when_they_are_erased_or_arrive(
    store: edgeshard.Store, pg: str, tmp_path: Path
) -> None:
    with store.shard("agent") as shard:
        for n in range(0, 2_400, 4):
            shard.write(Item(n))
            shard.write(Item(n + 1, NUL))
            shard.write_many([Item(n + 2, NUL), Item(n + 3)])
    store.merge()
    store.push(pg)
    hub = new_store(tmp_path / "hub")
    hub.merge([store.master_path])
    assert (1_800, 600) == (account(store)[0], store.rejected().rejected[0].ranges)
    store.erase(Item, "n % 8 = 1")
    assert (1_500, 600) == (account(store)[0], store.rejected().rejected[0].ranges)
    store.erase(Item, "n % 8 = 6")
    assert (1_200, 900) == (account(store)[0], store.rejected().rejected[0].ranges)
    assert 1_800 == hub.push(pg, on_invalid="escape").rows
    assert (0, (0, 0)) == (store.push(pg).rows, account(store))
    assert store.verify_against(pg, deep=True).ok


# -- hubs -------------------------------------------------------------------------------------------------------------


def test_a_stream_that_two_masters_push_is_there_once_and_each_has_its_own_account(
    store: edgeshard.Store, pg: str, tmp_path: Path
) -> None:
    hub = new_store(tmp_path / "hub")
    write(store, "agent", Item(1), Item(2, NUL), Item(3), Item(4, NUL))
    hub.merge([store.master_path])
    for each, rows in ((hub, 2), (store, 0)):
        report = each.push(pg)
        assert (rows, 2, (2, 0)) == (report.rows, report.remaining, account(each))
    assert [1, 3] == items(pg)
    store.dismiss_rejected(why="a test")
    # what the hub dismisses is its own affair, and a later push from anywhere ends both records
    assert ((0, 2), (2, 0)) == (account(store), account(hub))
    assert 2 == hub.push(pg, on_invalid="replace").rows
    assert ((0, 2), 0, (0, 0)) == (account(store), store.push(pg).rows, account(store))
    assert [1, 2, 3, 4] == items(pg)
    write(store, "agent", Item(5, NUL))
    hub.merge([store.master_path])
    assert (1, 1) == (store.push(pg).remaining, hub.push(pg).remaining)
    hub.dismiss_rejected(why="a test")
    assert (0, 1, 0) == (
        hub.push(pg, on_invalid="escape").rows,
        store.push(pg, on_invalid="escape").rows,
        account(hub)[0],
    )
    hub.push(pg)
    assert (0, 0) == account(hub) == account(store)
    assert all(each.verify_against(pg, deep=True).ok for each in (store, hub))


def test_a_rejected_row_that_a_hub_holds_is_pruned_once_the_hub_says_so_and_not_as_pushed(
    store: edgeshard.Store, pg: str, tmp_path: Path
) -> None:
    hub = new_store(tmp_path / "hub")
    write(store, "agent", Item(1), Item(2, NUL), Item(3, NUL))
    hub.merge([store.master_path])
    store.push(pg)
    assert 1 == store.prune(keep_rows=0, only_pushed=True).rows
    store.dismiss_rejected(why="a test")
    assert (0, (0, 2)) == (store.prune(keep_rows=0, only_pushed=True).rows, account(store))
    store.receipt(hub.ranges(), trust=True)
    assert (2, []) == (store.prune(keep_rows=0, only_receipted=True).rows, kept(store))
    assert (0, (0, 0)) == (store.push(pg).rows, account(store))
    # the hub has them, and what the device dismissed is none of its business
    assert (0, (2, 0)) == (hub.push(pg).rows, account(hub))
    assert (2, [1, 2, 3]) == (hub.push(pg, on_invalid="replace").rows, items(pg))


# -- masters and servers of yesterday ---------------------------------------------------------------------------------


def test_a_restored_master_tries_again_what_it_does_not_know_and_drops_what_is_there_by_now(
    store: edgeshard.Store, pg: str, tmp_path: Path
) -> None:
    write(store, "agent", Item(1, NUL), Item(2), Item(3, NUL))
    store.push(pg)
    store.snapshot(tmp_path / "rejected.db")
    store.dismiss_rejected(why="a test", table=Item)
    store.snapshot(tmp_path / "dismissed.db")
    write(store, "agent", Item(4, NUL))
    assert (1, 2) == (store.push(pg).remaining, account(store)[1])
    store.restore(tmp_path / "rejected.db")
    assert (2, 0) == account(store)
    # what came after the snapshot is in no shard any more: only PostgreSQL's account of it is left
    assert (0, 2, 2) == ((report := store.push(pg)).rows, report.remaining, report.rejected[0].rows)
    assert (2, [1, 2, 3]) == (store.push(pg, on_invalid="replace").rows, items(pg))
    store.restore(tmp_path / "dismissed.db")
    assert (0, 2) == account(store)
    assert (0, (0, 0), [1, 2, 3]) == (store.push(pg, retry_rejected=True).rows, account(store), items(pg))
    assert store.verify_against(pg, deep=True).ok


def test_a_server_that_was_set_back_gets_everything_again_but_what_is_rejected_and_dismissed(
    store: edgeshard.Store, pg_server: PgServer
) -> None:
    with pg_server.database() as name:
        dsn, admin = pg_server.dsn(name), pg_server.dsn()
        write(store, "agent", Item(1), Item(2, NUL), Item(3), Item(4, NUL))
        store.push(dsn)
        do(admin, f"create database {name}_old template {name}")
        try:
            assert 2 == store.push(dsn, on_invalid="escape").rows
            write(store, "agent", Item(5), Item(6, NUL), Item(7))
            store.push(dsn)
            store.dismiss_rejected(why="a test")
            write(store, "agent", Item(8, NUL), Item(9))
            assert (1, 1) == (store.push(dsn).rows, account(store)[1])
            back = pg_server.dsn(f"{name}_old")
            compared = store.verify_against(back, deep=True)
            assert ({"lost": 5}, False) == ({kind: n for kind, n in compared.counts.items() if n}, compared.ok)
            report = store.push(back)
            # rows 2 and 4, once escaped, are rejected again; row 6 stays dismissed, and row 8 rejected
            assert (3, 3, (3, 1)) == (report.rows, report.remaining, account(store))
            assert [1, 3, 5, 7, 9] == items(back)
            report = store.push(back, on_invalid="escape")
            assert (3, (), (0, 1), [1, 2, 3, 4, 5, 7, 8, 9]) == (
                report.rows, report.rejected, account(store), items(back)
            )  # fmt: skip
            assert [(r"a\u0000b",)] * 3 == fetch(back, "select text from item where text <> ''")
            assert 3 == store.verify_against(back, deep=True).unchecked
        finally:
            do(admin, f"drop database if exists {name}_old with (force)")


def test_a_server_that_was_emptied_is_a_new_database_and_the_old_one_can_be_forgotten(
    store: edgeshard.Store, pg: str
) -> None:
    write(store, "agent", Item(1), Item(2, NUL), Item(3, NUL))
    store.push(pg)
    ((old,),) = fetch(pg, "select id from edgeshard_database")
    store.dismiss_rejected(why="a test")
    write(store, "agent", Item(4, NUL))
    store.push(pg)
    tables = [
        name for (name,) in fetch(pg, "select table_name from information_schema.tables where table_schema = 'public'")
    ]
    do(pg, *(f"drop table {name} cascade" for name in tables))
    report = store.push(pg)
    assert (1, 3, [1]) == (report.rows, report.remaining, items(pg))
    # both databases' accounts are there until the user says that the old one will not return
    assert (4, 2) == account(store)
    store.forget_peer(old.hex)
    assert (3, 0) == account(store)
    assert {old.hex} & {item.database for item in store.rejected().rejected} == set()
    store.push(pg, on_invalid="replace")
    assert (0, 0, [1, 2, 3, 4]) == (*account(store), items(pg))


def test_a_database_that_rejected_everything_can_be_forgotten(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Item(1, NUL))
    assert 1 == store.push(pg).remaining
    ((database,),) = fetch(pg, "select id from edgeshard_database")
    store.forget_peer(database.hex)
    assert (0, 0) == account(store)
    assert ["nul"] == [item.kind for item in store.push(pg).rejected]


# -- erasure, and a wrong clock ---------------------------------------------------------------------------------------


def test_erasing_what_a_transaction_is_rejected_for_lets_the_rest_of_it_go(store: edgeshard.Store, pg: str) -> None:
    with store.shard("agent") as shard:
        shard.write_many([Item(1), Item(2, NUL), Item(3)])
        shard.write_many([Item(4), Item(5, NUL)])
        shard.write_many([Item(6, NUL), Item(7)])
    store.merge()
    store.push(pg)
    store.erase(Item, "n = 5")
    assert (6, 0) == account(store)
    store.dismiss_rejected(why="a test")
    store.erase(Item, "n = 6")
    assert (0, 5) == account(store)
    assert (0, [1, 2, 3, 4, 7]) == (store.push(pg, retry_rejected=True).rows, kept(store))
    store.erase(Item, "n = 2")
    store.forget_peer(fetch(pg, "select id from edgeshard_database")[0][0].hex)
    assert (4, (), [1, 3, 4, 7]) == ((report := store.push(pg)).rows, report.rejected, items(pg))
    assert store.verify_against(pg, deep=True).ok


def test_a_wrong_clock_loses_no_account_of_rejected_rows(store: edgeshard.Store, pg: str, wall: Wall) -> None:
    now_us = wall.us.now_us
    write(store, "agent", Item(1), Item(2, NUL))
    for at_us in (60_000_000, now_us + 4_000 * 86_400_000_000, now_us):  # 1970, ten years ahead, right
        wall.us.now_us = at_us
        write(store, "agent", Item(3, NUL))
        rows = store.push(pg).rejected[0].rows
        store.prune(older_than="30d", only_pushed=True)
        assert rows == account(store)[0]
        store.dismiss_rejected(why=f"at {at_us}")
    assert (0, 4) == account(store)
    assert {"at 60000000", f"at {now_us}", f"at {now_us + 4_000 * 86_400_000_000}"} == {
        item.dismissed_why for item in store.rejected().dismissed
    }
    assert 0 == store.push(pg, retry_rejected=True, on_invalid="replace").rows


# -- keys -------------------------------------------------------------------------------------------------------------


@edgeshard.table(key="name", history=True)
@attrs.frozen
class Device:
    name: str
    state: str = ""


@edgeshard.table(key="name", conflict="max:rank")
@attrs.frozen
class Ranked:
    name: str
    rank: str
    note: str = ""


#: Keys of which some become equal if characters are replaced or escaped.
KEYS = ("a\0", "a\ufffd", "a\\u0000", "a\0\0", "a")


@pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])
def test_keys_that_would_become_one_stay_two(store: edgeshard.Store, pg: str, inserts: bool) -> None:
    stored = sorted(name for name in KEYS if "\0" not in name)
    for number, mode in enumerate((*MODES, "replace")):
        write(store, "agent", *(Device(name, f"{number}{name}") for name in KEYS))
        write(store, "agent", *(Ranked(name, f"{number}") for name in KEYS), Ranked("b", f"{number}", NUL))
        with store.shard("agent") as shard:
            shard.delete(Device, "a\0\0")
        store.merge()
        report = store.push(pg, inserts=inserts, on_invalid=mode)  # type: ignore[arg-type]
        assert {("device", "name"), ("ranked", "name")} <= {(item.table, item.column) for item in report.rejected}
        text = {"reject": None, "replace": "a\ufffdb", "escape": "a\\u0000b"}
        there = fetch(pg, 'select name, state from device order by name collate "C"')
        assert sorted(stored) == [name for name, _ in there]
        notes = fetch(pg, "select rank, note from ranked where name = 'b'")
        assert notes == ([(f"{number}", text[mode])] if mode != "reject" else [])
        assert sorted(stored) == [
            n for (n,) in fetch(pg, "select name from ranked where name <> 'b' order by name collate \"C\"")
        ]
    # versions of these keys are all that is rejected, and none came under another key's name
    assert all(item.kind == "nul" and item.column == "name" for item in store.rejected().rejected)
    history = fetch(pg, "select name, count(*) from device_history group by name")
    assert {(name, 3) for name in stored} == set(history)
    assert [] == fetch(pg, "select name from device_deleted")
    assert store.verify_against(pg, deep=True).ok
    assert {"a\0"} | set(stored) == {row.name for row in store.read(Device)}


def test_a_value_that_decides_between_versions_is_never_changed(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Ranked("a", "1"), Ranked("a", "2\0"), Ranked("b", "9\0"), Ranked("b", "1"))
    for mode in MODES:
        report = store.push(pg, on_invalid=mode)  # type: ignore[arg-type]
        assert [("ranked", "rank", 2)] == [(item.table, item.column, item.rows) for item in report.rejected]
    assert [] == fetch(pg, "select * from ranked where rank like '%\ufffd' or rank like '%u0000'")


@pytest.mark.parametrize("mode", MODES[1:])
def test_texts_that_become_one_in_an_index_of_the_server_are_rejected(
    store: edgeshard.Store, pg: str, mode: Any
) -> None:
    write(store, "first", Item(0))
    store.push(pg)
    do(pg, "create unique index mine on item (text)")
    same = {"replace": "a\ufffdb", "escape": "a\\u0000b"}[mode]
    write(store, "agent", Item(1, same), Item(2, NUL), Item(3, "other"))
    report = store.push(pg, on_invalid=mode)
    assert [("23505", "mine", 1, 2)] == [(each.kind, each.constraint, each.rows, each.seq) for each in report.rejected]
    assert [0, 1, 3] == items(pg)


# -- values -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Odd:
    n: int
    text: str = ""
    data: dict = attrs.Factory(dict)  # type: ignore[type-arg]
    real: float = 0.0
    exact: decimal.Decimal = decimal.Decimal(0)
    day: datetime.date = datetime.date(2026, 1, 1)
    at: datetime.datetime = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    raw: bytes = b""
    id: uuid.UUID = attrs.field(factory=lambda: uuid.UUID(int=0))


#: Values that PostgreSQL stores as they are, whatever is done with others.
FINE: tuple[dict[str, Any], ...] = (
    {"real": math.inf}, {"real": -math.inf}, {"real": 5e-324}, {"real": -0.0},
    {"data": {"n": 2**64, "m": -(10**4_000)}}, {"data": {"": {"": []}}}, {"data": {"a\\u0000b": "\\u0000"}},
    {"exact": decimal.Decimal("NaN")}, {"exact": decimal.Decimal("Infinity")}, {"exact": decimal.Decimal("1E+131071")},
    {"exact": decimal.Decimal("1E-16383")}, {"day": datetime.date.min}, {"day": datetime.date.max},
    {"at": datetime.datetime.min.replace(tzinfo=datetime.UTC)}, {"at": datetime.datetime.max.replace(tzinfo=datetime.UTC)},
    {"raw": b"\0\xff"}, {"text": "\ufffd\uffff\U0010ffff\x01\x7f"}, {"n": 2**63 - 1}, {"n": -(2**63)},
)  # fmt: skip

#: Values that it can only store in another form: the column, and what is there if characters are replaced or escaped.
REPAIRED = (
    ({"text": "\0"}, "text", "\ufffd", r"\u0000"),
    ({"text": "a\0\\u0000\0"}, "text", "a\ufffd\\u0000\ufffd", r"a\u0000\u0000\u0000"),
    ({"data": {NUL: [NUL, {"\0": 1}]}}, "data", {"a\ufffdb": ["a\ufffdb", {"\ufffd": 1}]},
     {r"a\u0000b": [r"a\u0000b", {r"\u0000": 1}]}),
    ({"data": {"a\\\0": "\\u0000\0"}}, "data", {"a\\\ufffd": "\\u0000\ufffd"}, {"a\\\\u0000": "\\u0000\\u0000"}),
)  # fmt: skip

#: Values that it cannot store in any form, and why.
UNFIT = (
    ({"exact": decimal.Decimal("1E+131072")}, "value"),
    ({"exact": decimal.Decimal("1E-16384")}, "value"),
)

#: Names that become equal by one of the two, and not by the other.
EQUAL = ({NUL: 1, "a\ufffdb": 2}, {NUL: 1, "a\\u0000b": 2})

#: What another program wrote into columns of a master that edgeshard does not write.
FORGED = (
    ("day = '-0044-03-15'", "day"), ("day = '10000-01-01'", "day"), ("at = '10000-01-01T00:00:00+00:00'", "at"),
    ("at = '2026-01-01T00:00:00'", "at"), ("at = '2026-01-01T00:00:00.1234567+00:00'", "at"), ("exact = '0x1'", "exact"), ("exact = '-NaN'", "exact"),
    ("id = 'x'", "id"), ("data = 'NaN'", "data"), ("data = '{\"a\":1,\"a\":2}'", "data"), ("data = '[1'", "data"),
)  # fmt: skip


@pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])
def test_unusual_values_go_or_stay_behind_alone_under_each_choice(
    store: edgeshard.Store, pg_server: PgServer, inserts: bool
) -> None:
    rows: list[dict[str, Any]] = [*FINE, *(each[0] for each in REPAIRED), *(each[0] for each in UNFIT)]
    rows += [{"data": data} for data in EQUAL]
    first_forged = len(rows)
    rows += [{}] * len(FORGED)
    with store.shard("agent") as shard:
        for at, values in enumerate(rows):
            shard.write(Odd(**{"n": at, **values}))
    store.merge()
    sql(
        store.master_path,
        *(f"update odd set {change} where n = {first_forged + at}" for at, (change, _) in enumerate(FORGED)),
    )
    never = len(UNFIT) + len(FORGED)
    for mode in MODES:
        with pg_server.database() as name:
            dsn = pg_server.dsn(name)
            report: PushReport = store.push(dsn, inserts=inserts, on_invalid=mode)  # type: ignore[arg-type]
            stay = never + (len(REPAIRED) + len(EQUAL) if mode == "reject" else 1)
            assert (len(rows) - stay, stay) == (report.rows, report.remaining)
            values = {item.column: item.rows for item in report.rejected if item.kind == "value"}
            assert {"exact": 4, "day": 2, "at": 3, "id": 1, "data": 3 + (mode != "reject")} == values
            if mode != "reject":
                found = fetch(dsn, "select n, text, data from odd order by n")
                texts = {n: {"text": text, "data": data} for n, text, data in found}
                for at, (_, column, *forms) in enumerate(REPAIRED, len(FINE)):
                    assert forms[mode == "escape"] == texts[at][column]
            compared = store.verify_against(dsn, deep=True)
            assert (True, 0 if mode == "reject" else len(REPAIRED) + 1) == (compared.ok, compared.unchecked)
            # the others are tried again, and what does not fit stays
            again = store.push(dsn, inserts=inserts, on_invalid=mode, retry_rejected=True)  # type: ignore[arg-type]
            assert (0, stay) == (again.rows, again.remaining)


def test_agents_whose_names_become_equal_keep_their_rows_apart(store: edgeshard.Store, pg: str) -> None:
    for agent in ("x", "y"):
        write(store, agent, Item(1), Item(2), {"n": 3})
    # edgeshard refuses such names
    sql(store.master_path, *(f"update {{}} set agent_id = {name} where agent_id = '{agent}'".format(table)
        for agent, name in (("x", "'a' || char(0)"), ("y", "'a' || char(65533)"))
        for table in ("_edgeshard_streams", "agent_data")))  # fmt: skip
    assert (3, ["agent"]) == ((report := store.push(pg)).rows, [item.kind for item in report.rejected])
    assert (3, ()) == ((report := store.push(pg, on_invalid="replace")).rows, report.rejected)
    assert [("a\ufffd", 2)] == fetch(pg, "select agent_id, count(*) from edgeshard_streams group by 1")
    assert (2, [1, 1, 2, 2]) == (len(fetch(pg, "select distinct _stream from agent_data")), items(pg))
    assert 0 == store.push(pg).rows
