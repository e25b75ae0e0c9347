"""Rows that PostgreSQL cannot store: they alone stay behind, they are listed, tried again, replaced or dismissed."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, PostgresError
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.pusher import Pusher
from edgeshard.postgres.sender import Sender
from edgeshard.postgres.server import Server
from tests.support.forms import others_slow
from tests.support.processes import command, sql

pytest.importorskip("psycopg")

from tests.support.items import NUL, Item, items, write
from tests.support.postgres_server import cluster_nodes, do, fetch, needs_free_constraints, needs_triggers

WAYS = pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])

HALF = "cut off \ud83d"


@edgeshard.table(key="name")
@attrs.frozen
class Device:
    name: str
    state: str = ""


def kinds(store: edgeshard.Store) -> dict[str, int]:
    """Return how many rows are rejected, by the kind of the reason."""
    return {item.kind: item.rows for item in store.rejected().rejected}


# -- no row is blocked by another -------------------------------------------------------------------------------------


@WAYS
def test_many_rows_with_nul_in_one_stream_block_none_behind_them(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    with store.shard("agent") as shard:
        for n in range(25):
            shard.write({"n": n, "text": NUL})
        for n in range(1_000):
            shard.write({"n": n})
            shard.write(Item(n))
    store.merge()
    report = store.push(pg, inserts=inserts)
    (rejected,) = report.rejected
    assert (2_000, 25, 25) == (report.rows, report.remaining, rejected.rows)
    assert ("nul", "agent_data", "data", 1, 25, 1, 1) == (
        rejected.kind, rejected.table, rejected.column, rejected.first, rejected.last, rejected.seq, rejected.ranges,
    )  # fmt: skip
    assert list(range(1_000)) == items(pg)
    again = store.push(pg, inserts=inserts)
    assert (0, report.rejected) == (again.rows, again.rejected)


@WAYS
def test_rows_between_good_ones_and_their_transactions_are_all_that_stays_behind(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    with store.shard("agent") as shard:
        for n in range(0, 300, 3):
            shard.write_many([Item(n), Item(n + 1, NUL if n % 2 else ""), Item(n + 2)])
    store.merge()
    report = store.push(pg, inserts=inserts, batch=40)
    assert [n for n in range(300) if not n // 3 % 2] == items(pg)
    assert ({"nul": 150}, 50, 150) == (kinds(store), report.rejected[0].ranges, report.remaining)


def trigger(body: str, when: str = "insert", table: str = "item") -> list[str]:
    """Return the statements that make a trigger."""
    return [
        f"create function act() returns trigger language plpgsql as $$ begin {body} end $$",
        f"create trigger acting before {when} on {table} for each row execute function act()",
    ]


#: The server knows all numbers but 7.
NUMBERS = [
    "create table numbers(n bigint primary key)",
    "insert into numbers select n from generate_series(0, 20) n where n <> 7",
]
REFERENCE = "alter table item add constraint known foreign key (n) references numbers"
DEFERRED = f"{REFERENCE} deferrable initially deferred"

#: What makes the server refuse item 7 of 20: statements, the SQLSTATE, and the constraint that it names.
REFUSALS = {
    "check": (["alter table item add constraint seven check (n <> 7)"], "23514", "seven"),
    "not null": (
        [
            "alter table item add column more text not null default ''",
            *trigger("if new.n = 7 then new.more = null; end if; return new;"),
        ],
        "23502",
        "",
    ),
    "unique": (["create unique index one on item ((case n when 7 then 0 else n end))"], "23505", "one"),
    "foreign key": ([*NUMBERS, REFERENCE], "23503", "known"),
    "deferred foreign key": ([*NUMBERS, DEFERRED], "23503", "known"),
    "exclusion": (
        ["alter table item add constraint far exclude using gist (point(n - 7 * (n = 7)::int, 0) with ~=)"],
        "23P01",
        "far",
    ),
    "trigger": (trigger("if new.n = 7 then raise 'not seven'; end if; return new;"), "P0001", ""),
    "trigger with a code of its own": (
        trigger("if new.n = 7 then raise 'not seven' using errcode = 'MY001'; end if; return new;"),
        "MY001",
        "",
    ),
    "trigger with a mistake": (
        trigger("if new.n = 7 then perform * from no_such_table; end if; return new;"),
        "42P01",
        "",
    ),
}


@pytest.mark.parametrize(
    ("refusal", "inserts"),
    others_slow(
        itertools.product(REFUSALS, [False, True]),
        [
            *((refusal, False) for refusal in REFUSALS),
            ("check", True),
            ("deferred foreign key", True),
            ("trigger", True),
        ],
    ),
)
def test_what_only_the_server_refuses_stays_behind_alone_and_goes_once_it_fits(
    store: edgeshard.Store, pg: str, refusal: str, inserts: bool
) -> None:
    statements, state, constraint = REFUSALS[refusal]
    if any("create trigger" in statement for statement in statements):
        needs_triggers(pg)
    if refusal in ("unique", "exclusion"):
        needs_free_constraints(pg)
    write(store, "first", Item(0))
    assert store.push(pg, inserts=inserts).complete
    if cluster_nodes(pg):
        constraint = ""  # Citus does not pass on which one it was
        if NUMBERS[0] in statements:
            do(pg, *NUMBERS, "select create_reference_table('numbers')")
            statements = statements[len(NUMBERS) :]
    do(pg, *statements)
    write(store, "agent", *map(Item, range(1, 20)), {"n": 20})
    report = store.push(pg, inserts=inserts)
    (rejected,) = report.rejected
    assert (state, "item", constraint, 7, 7, 7) == (
        rejected.kind, rejected.table, rejected.constraint, rejected.first, rejected.last, rejected.seq
    )  # fmt: skip
    assert ([n for n in range(20) if n != 7], 19) == (items(pg), report.rows)
    assert 0 == store.push(pg, inserts=inserts).rows
    do(pg, *(f"alter table item drop constraint if exists {name}" for name in ("seven", "known", "far")))
    if not cluster_nodes(pg):
        do(pg, "drop index if exists one", "drop trigger if exists acting on item")
    report = store.push(pg, inserts=inserts, retry_rejected=True)
    assert (1, (), list(range(20)), True) == (report.rows, report.rejected, items(pg), store.rejected().complete)


@pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])
def test_transactions_that_the_server_refuses_only_when_it_commits_stay_behind_alone(
    store: edgeshard.Store, pg: str, inserts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as Citus does, the server checks deferred constraints only then
    execute = Server.execute
    monkeypatch.setattr(
        Server,
        "execute",
        lambda self, sql, *more: execute(self, sql.replace("SET CONSTRAINTS ALL IMMEDIATE; ", ""), *more),
    )
    write(store, "first", Item(0))
    store.push(pg)
    do(pg, "alter table item add constraint limited check (n <> 50)", "create table numbers(n bigint primary key)")
    if cluster_nodes(pg):
        do(pg, "select create_reference_table('numbers')")
    do(pg, "insert into numbers select n from generate_series(0, 200) n where n not in (3, 7, 90)", DEFERRED)
    with store.shard("agent") as shard:
        shard.write(Item(1))
        for n in range(80, 100):
            shard.write(Item(n))
        shard.write_many(map(Item, range(2, 80)))  # more than half of all, with 3, 7 and 50
    store.merge()
    report = store.push(pg, inserts=inserts)
    assert [0, 1, *(n for n in range(80, 100) if n != 90)] == items(pg)
    assert {("23514", 78, 22), ("23503", 1, 12)} == {(each.kind, each.rows, each.first) for each in report.rejected}
    assert (20, 79) == (report.rows, report.remaining)
    assert 0 == store.push(pg, inserts=inserts).rows
    do(pg, "alter table item drop constraint limited")
    report = store.push(pg, inserts=inserts, retry_rejected=True)
    assert [("23503", "item", 79, 2)] == [(each.kind, each.table, each.rows, each.ranges) for each in report.rejected]
    do(pg, "insert into numbers values (3), (7), (90)")
    report = store.push(pg, inserts=inserts, retry_rejected=True)
    assert (79, list(range(100)), True) == (report.rows, items(pg), store.rejected().complete)


@pytest.mark.parametrize(
    ("bad", "limit"), [([500], 22), ([0, 999], 42), ([*range(0, 1000, 100)], 200), ([*range(200)], 240)]
)
def test_the_search_for_bad_rows_takes_few_statements(
    store: edgeshard.Store, pg: str, bad: list[int], limit: int
) -> None:
    write(store, "first", Item(-1))
    store.push(pg)
    do(pg, f"alter table item add check (not (n = any(array{bad})))")
    with store.shard("agent") as shard:
        for n in range(1_000):
            shard.write(Item(n))
    store.merge()
    sends = mock.Mock(side_effect=Sender.send_rows, autospec=Sender.send_rows)
    with mock.patch.object(Sender, "send_rows", lambda *given: sends(*given)):
        report = store.push(pg)
    assert (1_000 - len(bad), len(bad)) == (report.rows, report.remaining)
    assert sends.call_count <= limit


@pytest.mark.parametrize(
    ("seed", "inserts"), others_slow(itertools.product(range(3), [False, True]), [(0, False), (1, True)])
)
def test_transactions_of_any_size_are_rejected_whole_and_alone(
    store: edgeshard.Store, pg: str, seed: int, inserts: bool
) -> None:
    rng = random.Random(seed)
    write(store, "first", Item(-1))
    store.push(pg)
    do(pg, "alter table item add check (n % 41 <> 0 or n = 0)")
    n, good = 1, [-1]
    with store.shard("agent") as shard:
        while n < 1_000:
            size = rng.choice([1, 1, 2, 3, 20, 150])
            shard.write_many(map(Item, range(n, n + size)))
            if all(k % 41 for k in range(n, n + size)):
                good += range(n, n + size)
            n += size
    store.merge()
    report = store.push(pg, inserts=inserts, batch=rng.choice([10, 100, 1_000]))
    assert (sorted(good), n - len(good)) == (items(pg), report.remaining)
    assert report.remaining == store.rejected().rows


@WAYS
def test_a_row_that_the_ranges_do_not_name_is_no_rejected_row(store: edgeshard.Store, pg: str, inserts: bool) -> None:
    write(store, "agent", *map(Item, range(10)))
    store.push(pg)
    do(pg, "update edgeshard_ranges set last = 8")
    with pytest.raises(PostgresError, match="edgeshard_ranges does not name"):
        store.push(pg, inserts=inserts)
    assert store.rejected().complete


@WAYS
def test_a_table_that_cannot_be_made_fit_keeps_only_its_own_rows_back_until_it_fits(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    do(pg, "create table item(n text)")
    with store.shard("agent") as shard:
        for n in range(50):
            shard.write({"n": n})
            shard.write_many([Item(n), {"n": n}] if n % 10 == 0 else [{"n": n}])
    store.merge()
    report = store.push(pg, inserts=inserts)
    (rejected,) = report.rejected
    assert (95, 10, 10, "table", "item") == (
        report.rows, report.remaining, rejected.rows, rejected.kind, rejected.table
    )  # fmt: skip
    assert "was not made by a push" in rejected.reason
    do(pg, "drop table item")
    report = store.push(pg, inserts=inserts)
    assert (10, (), list(range(0, 50, 10))) == (report.rows, report.rejected, items(pg))


# -- again, otherwise, or not at all ----------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ("mode", "text", "half"), [("replace", "a\ufffdb", "\ufffd"), ("escape", r"a\u0000b", r"\ud83d")]
)
def test_invalid_characters_are_replaced_or_escaped_on_request(
    store: edgeshard.Store, pg: str, mode: Any, text: str, half: str, inserts: bool
) -> None:
    write(store, "agent", Item(1, NUL), {"n": 0}, Item(2, "\\u0000"), {"n": 3})
    # as another program wrote it
    data = json.dumps({"text": NUL, HALF: [HALF, "\U0001f600", "\\u0000", '\\"\0']})
    sql(store.master_path, f"update agent_data set data = '{data}' where _seq = 2")
    assert (2, 2) == (store.push(pg, inserts=inserts).rows, store.rejected().rows)
    report = store.push(pg, inserts=inserts, on_invalid=mode)
    assert (2, (), True) == (report.rows, report.rejected, store.rejected().complete)
    assert [(1, text), (2, "\\u0000")] == fetch(pg, "select n, text from item order by n")
    ((data,),) = fetch(pg, "select data from agent_data where data ? 'text'")
    key = f"cut off {half}"
    assert {"text": text, key: [key, "\U0001f600", "\\u0000", text.replace("a", '\\"').removesuffix("b")]} == data


def test_characters_of_keys_are_never_changed(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Device(NUL, "on"), Device("a\ufffdb", "off"), Device("c", NUL))
    report = store.push(pg, on_invalid="replace")
    assert [("device", "name", 1)] == [(item.table, item.column, item.rows) for item in report.rejected]
    assert [("a\ufffdb", "off"), ("c", "a\ufffdb")] == fetch(pg, "select name, state from device order by name")


def test_json_whose_names_would_become_one_is_rejected(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", {"a\0": 1, "a\ufffd": 2}, {"n": 1})
    (rejected,) = store.push(pg, on_invalid="replace").rejected
    assert ("value", 1, True) == (rejected.kind, rejected.rows, "twice" in rejected.reason)


def test_dismissed_rows_stay_in_the_master_and_are_never_pushed(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Item(1), Item(2, NUL), {"text": NUL}, Item(3))
    assert 2 == store.push(pg).remaining
    before = store.rejected()
    assert before.rejected[:1] == store.dismiss_rejected(why="a test", table=Item, dry_run=True).rejected
    assert before == store.rejected()
    report = store.dismiss_rejected(why="a test", table=Item)
    assert ([1], [("a test", "item")]) == (
        [item.rows for item in report.rejected],
        [(item.dismissed_why, item.table) for item in report.dismissed],
    )
    assert store.dismiss_rejected(why="another").complete
    write(store, "agent", Item(4))
    for options in ({}, {"retry_rejected": True}, {"on_invalid": "replace"}):
        pushed = store.push(pg, **options)
        assert ((), 0) == (pushed.rejected, pushed.remaining)
    assert ([1, 3, 4], 4) == (items(pg), len(store.query("select n from item")))
    write(store, "agent", Item(5, NUL))
    assert [1] == [item.rows for item in store.push(pg).rejected]


def test_the_command_lists_and_dismisses(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", *({"text": NUL, "n": n} if n % 2 else {"n": n} for n in range(10)))
    pushed = command("push", store.root, pg)
    assert (3, True) == (pushed.returncode, "5 rows rejected: 5 nul (agent_data.data)" in pushed.stdout)
    listed = command("rejected", store.root, "--limit", "2")
    assert (3, True, True) == (listed.returncode, "U+0000" in listed.stdout, "and 3 more ranges" in listed.stdout)
    said = json.loads(command("rejected", store.root, "--json").stdout)
    assert ([5], [2, 4, 6, 8, 10]) == (
        [item["rows"] for item in said["rejected"]],
        [item["first"] for item in said["ranges"]],
    )
    assert 2 == command("rejected", store.root, "--dismiss").returncode
    assert 3 == command("rejected", store.root, "--dismiss", "--why", "x", "--dry-run").returncode
    assert 0 == command("rejected", store.root, "--dismiss", "--why", "x").returncode
    assert 0 == command("push", store.root, pg).returncode


def test_a_mistaken_choice_is_refused(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Item(1))
    with pytest.raises(ConfigurationError, match="on_invalid must be one of reject, replace, escape"):
        store.push(pg, on_invalid="drop")  # type: ignore[arg-type]


# -- what is left when -------------------------------------------------------------------------------------------------


def test_status_says_so_until_the_rows_are_pushed_or_dismissed(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Item(1, NUL), Item(2, NUL), Item(3))
    store.push(pg)
    assert (2, ["rejected"]) == (store.status().rejected_rows, [each.kind for each in store.status().problems])
    store.push(pg, on_invalid="escape")
    assert (0, ()) == (store.status().rejected_rows, store.status().problems)


def test_an_older_master_tries_again_what_it_does_not_know(store: edgeshard.Store, pg: str, tmp_path: Path) -> None:
    write(store, "agent", Item(1, NUL), Item(2))
    store.snapshot(tmp_path / "older.db")
    store.push(pg)
    store.restore(tmp_path / "older.db")
    assert store.rejected().complete
    store.merge()
    assert (0, {"nul": 1}) == (store.push(pg).rows, kinds(store))


def test_rows_that_another_master_pushed_are_rejected_no_more(store: edgeshard.Store, pg: str, tmp_path: Path) -> None:
    write(store, "agent", Item(1, NUL), Item(2), Item(3, NUL))
    store.push(pg)
    shutil.copytree(store.root, tmp_path / "twin")
    assert 2 == edgeshard.Store(tmp_path / "twin").push(pg, on_invalid="replace").rows
    report = store.push(pg)
    assert (0, (), True) == (report.rows, report.rejected, store.rejected().complete)


def test_each_database_has_its_own_rejected_rows(store: edgeshard.Store, pg: str, pg_server: Any) -> None:
    write(store, "agent", Item(1), Item(2))
    with pg_server.database() as name:
        other = pg_server.dsn(name)
        do(other, "create table item(n text)")
        assert ([2], []) == ([item.rows for item in store.push(other).rejected], list(store.push(pg).rejected))
        assert (2, [1, 2]) == (store.rejected().rows, items(pg))


def test_erased_and_pruned_rows_leave_the_list_and_no_word_of_them_stays(store: edgeshard.Store, pg: str) -> None:
    write(store, "first", Item(0))
    store.push(pg)
    needs_triggers(pg)
    do(pg, *trigger("if new.n > 0 then raise 'not %', new.text; end if; return new;"))
    write(store, "agent", Item(1, "secret"), Item(2, "other"), Item(3, "third"))
    (rejected,) = store.push(pg).rejected
    assert "secret" in rejected.reason
    store.erase(Item, "n = 1")
    (rejected,) = store.rejected().rejected
    assert (2, 2, False) == (rejected.rows, rejected.first, "secret" in rejected.reason)
    assert (
        b"secret"
        not in sql(store.master_path, "select group_concat(message) from _edgeshard_rejections")[0][0].encode()
    )
    store.prune(keep_rows=0, table=Item)
    store.push(pg)
    assert store.rejected().complete


def test_rejected_rows_are_not_pruned_as_pushed_ones_are(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", *(Item(n, NUL if n % 3 == 0 else "") for n in range(9)))
    store.push(pg)
    store.prune(keep_rows=0, only_receipted=True)
    assert [0, 3, 6] == [row.n for row in store.query("select n from item order by n")]
    store.dismiss_rejected(why="a test")
    store.prune(keep_rows=0, only_receipted=True)
    assert 3 == len(store.query("select n from item"))


def test_a_rejected_version_of_a_key_keeps_no_later_one_back_and_brings_no_older_one(
    store: edgeshard.Store, pg: str
) -> None:
    write(store, "agent", Device("a", "1"), Device("b", "1"), Device("c", "1"))
    store.push(pg)
    write(store, "agent", Device("a", NUL), Device("b", NUL), Device("c", NUL))
    assert {"nul": 3} == (store.push(pg).complete or kinds(store))
    with store.shard("agent") as shard:
        shard.write(Device("a", "3"))
        shard.delete(Device, "b")
    store.merge()
    store.push(pg)
    there = "select name, state from device order by name"
    assert [("a", "3"), ("c", "1")] == fetch(pg, there)
    report = store.push(pg, on_invalid="replace")
    assert ((), [("a", "3"), ("c", "a\ufffdb")]) == (report.rejected, fetch(pg, there))


@WAYS
def test_a_trigger_that_keeps_versions_from_being_deleted_rejects_the_versions_that_replace_them(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    write(store, "agent", Device("a", "1"), Device("b", "1"))
    store.push(pg)
    needs_triggers(pg)
    do(pg, *trigger("if old.name = 'a' then raise 'kept'; end if; return old;", "delete", "device"))
    write(store, "agent", Device("a", "2"), Device("b", "2"), Item(1))
    report = store.push(pg, inserts=inserts)
    assert (2, [("P0001", "device")]) == (report.rows, [(item.kind, item.table) for item in report.rejected])
    assert [("a", "1"), ("b", "2")] == fetch(pg, "select name, state from device order by name")


def test_a_push_that_ends_before_it_records_them_tries_rejected_rows_again(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Item(1), Item(2, NUL), Item(3))
    with (
        mock.patch("edgeshard.master.rejected.record", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        store.push(pg)
    assert ([1, 3], True) == (items(pg), store.rejected().complete)
    assert (0, {"nul": 1}) == (store.push(pg).rows, kinds(store))


def test_a_long_running_push_rejects_rows_as_they_come_and_sends_the_others(store: edgeshard.Store, pg: str) -> None:
    pusher = Pusher(store.master_path, parse_dsn(pg))
    for first in range(0, 100, 20):
        write(store, "agent", *(Item(n, NUL if n % 5 == 0 else "") for n in range(first, first + 20)))
        report = pusher.run()
        assert (16, first // 5 + 4) == (report.rows, report.rejected[0].rows)
    pusher.close()
    assert 80 == len(items(pg))


def test_a_master_that_cannot_be_written_is_pushed_and_the_report_is_right(store: edgeshard.Store, pg: str) -> None:
    write(store, "agent", Item(1), Item(2, NUL), Item(3))
    with mock.patch("edgeshard.postgres.rejected_record._BUSY_TIMEOUT_S", 0.0):
        blocker = sqlite.connect(str(store.master_path), writable=True)
        blocker.execute("BEGIN IMMEDIATE")
        report = store.push(pg)
        blocker.execute("ROLLBACK")
        blocker.close()
    assert ([1], True) == ([item.rows for item in report.rejected], store.rejected().complete)
    assert [1] == [item.rows for item in store.push(pg).rejected]
