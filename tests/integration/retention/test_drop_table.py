"""An operator decides for another declaration of a table than that which came first."""

from __future__ import annotations

from typing import Any

import pytest

import edgeshard
from edgeshard import units
from edgeshard.errors import ConfigurationError
from edgeshard.merge.merger import Merger
from tests.support.keyed_schema_versions import plain
from tests.support.processes import command
from tests.support.schema_versions import merged, write
from tests.support.stores import numbers, write_apart

KEYED = {"key": "k"}

#: Pairs of declarations that contradict one another: what an evil agent writes first, and an honest one later.
PAIRS: list[tuple[Any, Any]] = [
    (plain(k=str, v=str)("x", "y"), plain(k=str, v=int)("p", 1)),
    (plain(None, KEYED, k=str, v=int)("p", 7), plain(k=str, v=int)("p", 1)),
    (plain(k=str, v=int)("p", 7), plain(None, KEYED, k=str, v=int)("p", 1)),
    (plain(None, {**KEYED, "history": True}, k=int, v=int)(7, 7), plain(None, KEYED, k=str, v=int)("p", 1)),
]


@pytest.mark.parametrize(("evil", "good"), PAIRS)
def test_the_report_says_who_came_first_and_the_operator_decides_for_the_other(
    store: edgeshard.Store, evil: Any, good: Any
) -> None:
    write(store, "early-bird", evil, evil, {"n": 1})
    merged(store)
    write_apart(store, "honest", good, good)
    (aside,) = store.merge().blocked
    assert "its oldest row is of agent 'early-bird'" in aside.reason
    assert "Store.prune(table='sample', drop_table=True)" in aside.reason
    (reason,) = (each.reason for shard in store.status().shards for each in shard.blocked)
    assert "'early-bird'" in reason

    dry = store.prune(table="sample", drop_table=True, dry_run=True)
    done = command("prune", store.root, "--table", "sample", "--drop-table")
    assert 0 == done.returncode, done.stderr
    assert units.count(dry.rows, "row") in done.stdout
    assert () == store.verify(deep=True).errors
    merged(store)
    values = [row.v for row in store.query("SELECT v FROM sample")]
    assert {1} == set(values)
    assert [1] == numbers(store)
    report = store.verify(deep=True)
    assert (True, dry.rows) == (report.ok, report.pruned["drop table"])


def test_a_dropped_table_of_a_keyed_class_leaves_nothing_behind_and_can_come_again(store: edgeshard.Store) -> None:
    cls = plain(None, {"key": "k", "history": True, "index": ["v"], "priority": 3}, k=str, v=int)
    with store.shard("a") as shard:
        shard.write_many([cls("p", n) for n in range(3)])
        shard.write(cls("q", 1))
        shard.delete(cls, "q")
    merged(store)
    assert 5 == store.prune(table=cls, drop_table=True).rows
    for table in ("columns", "indexes", "keys", "renames", "priorities"):
        assert [] == store.query(f"SELECT * FROM _edgeshard_{table} WHERE table_name LIKE 'sample%'")
    assert [] == store.query("SELECT name FROM sqlite_schema WHERE tbl_name LIKE 'sample%'")
    assert store.verify(deep=True).ok
    write(store, "a", cls("p", 9))
    merged(store)
    assert [(9,)] == store.query("SELECT v FROM sample")


@pytest.mark.parametrize(("evil", "good"), PAIRS)
def test_a_shard_whose_rows_are_all_merged_does_not_make_a_dropped_table_anew(
    store: edgeshard.Store, evil: Any, good: Any
) -> None:
    with store.shard("early-bird") as shard:
        shard.write(evil)
        merged(store)
        write_apart(store, "honest", good)
        assert 1 == store.prune(table="sample", drop_table=True).rows
        # its agent is stopped, and its shard is still there
    report = store.merge()
    assert (1, ()) == (report.rows, report.quarantined)
    assert [1] == [row.v for row in store.query("SELECT v FROM sample")]


def test_a_shard_whose_rows_were_all_pruned_does_not_make_a_dropped_table_anew(store: edgeshard.Store) -> None:
    evil, good = PAIRS[0]
    merger = Merger(store.root, watching=True)
    with store.shard("early-bird") as shard:
        shard.write(evil)
        write_apart(store, "honest", good)
        report = merger.run()
        assert (1, 0, 1) == (report.rows, report.truncated, len(report.blocked))  # its agent is busy
    store.prune(table="sample", drop_table=True)
    report = merger.run()
    assert (1, 2, ()) == (report.rows, report.truncated, report.blocked)
    merger.close()
    assert [1] == [row.v for row in store.query("SELECT v FROM sample")]


def test_an_empty_shard_that_declares_another_table_is_no_problem(store: edgeshard.Store) -> None:
    evil, good = PAIRS[0]
    with store.shard("early-bird") as shard:
        shard.write(evil)
        merged(store)
        store.prune(table="sample", drop_table=True)
        write(store, "honest", good)
        merged(store)
        store.root.joinpath("shards", "early-bird.db").touch()
        assert () == store.merge().blocked
        assert [()] == [shard.blocked for shard in store.status().shards]
        shard.write(evil)
        blocked = store.merge().blocked
        assert ([1], [blocked]) == ([each.rows for each in blocked], [shard.blocked for shard in store.status().shards])


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        ({}, "needs a table"),
        ({"table": "sample", "keep_rows": 0}, "and no other rule"),
        ({"table": "sample", "only_receipted": True}, "and no other rule"),
        ({"table": "nothing"}, "there is no table 'nothing'"),
        ({"table": "agent_data"}, "every master has agent_data"),
        ({"table": "sample_deleted"}, "belongs to table sample: drop that one"),
    ],
)
def test_what_cannot_be_dropped(store: edgeshard.Store, rule: dict[str, Any], cause: str) -> None:
    write(store, "a", plain(None, KEYED, k=str, v=int)("p", 7))
    merged(store)
    with pytest.raises(ConfigurationError, match=cause):
        store.prune(drop_table=True, **rule)
    assert 1 == store.verify(deep=True).rows


def test_the_command_refuses_other_rules_next_to_it(store: edgeshard.Store) -> None:
    assert 2 == command("prune", store.root, "--drop-table").returncode
    assert 2 == command("prune", store.root, "--drop-table", "--table", "t", "--keep-rows", "1").returncode
