"""A table has a key only if every class that writes to it declares that key: nobody can make versions of others' rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import SchemaConflictError
from tests.support import hostile_shards
from tests.support.forms import others_slow
from tests.support.keyed_schema_versions import plain
from tests.support.processes import sql
from tests.support.schema_versions import merged, write
from tests.support.stores import numbers, shard_path, write_apart

DECLARATIONS: dict[str, dict[str, Any]] = {
    "no key": {},
    "key": {"key": "k"},
    "key with history": {"key": "k", "history": True},
    "other key": {"key": ("k", "v")},
    "other rule": {"key": "k", "conflict": "first"},
}

AGREEING = {frozenset({one}) for one in DECLARATIONS} | {frozenset({"key", "key with history"})}


def records(declaration: str, first: int = 0) -> list[Any]:
    """Return three rows of the table `sample` with equal values in k."""
    cls = plain(None, DECLARATIONS[declaration], k=str, v=int)
    return [cls("p", first + n) for n in range(3)]


def sources(route: str, tmp_path: Path, store: edgeshard.Store, declared: Iterable[str]) -> list[list[str]]:
    """Write what each declaration makes, and a dict; return for each which databases to merge into the store."""
    store.init()
    found: list[list[str]] = []
    for number, declaration in enumerate(declared):
        home = store if route == "shard" else edgeshard.Store(tmp_path / f"device{number}")
        write_apart(home, f"agent{number}", *records(declaration, 10 * number))
        found.append([])
        if route != "shard":
            merged(home)
            found[-1] = [str(home.master_path)]
        if route == "bundle":
            home.export(tmp_path / f"bundle{number}.db")
            found[-1] = [str(tmp_path / f"bundle{number}.db")]
    return found


CONFLICTS = [pair for pair in itertools.product(DECLARATIONS, repeat=2) if frozenset(pair) not in AGREEING]

GRID = [(route, *pair) for route in ("shard", "hub", "bundle") for pair in CONFLICTS]

ALWAYS = [
    (route, *pair) for route, *pair in GRID if ("no key" in pair and "key" in pair) or pair == ["key", "other rule"]
]


@pytest.mark.parametrize(("route", "first", "second"), others_slow(GRID, ALWAYS))
def test_a_table_keeps_the_key_that_it_has_first_and_all_its_rows(
    store: edgeshard.Store, tmp_path: Path, route: str, first: str, second: str
) -> None:
    write(store, "agent0", *records(first))
    merged(store)
    before = store.query("SELECT * FROM sample ORDER BY _id")
    ((named),) = sources(route, tmp_path, store, [first, second])[1:]
    write(store, "good", {"n": 1})
    report = store.merge(named)
    (aside,) = report.blocked
    expected = named[0] if named else str(shard_path(store, "agent1"))
    assert expected == aside.path
    assert "table sample has the key" in aside.reason
    assert [1] == numbers(store)  # of the same merge
    if first == "no key":
        assert before == store.query("SELECT * FROM sample WHERE _id <= 3 ORDER BY _id")
        assert "in this shard, and no key in the master" in aside.reason
    assert () == store.verify(deep=True).errors


@pytest.mark.parametrize("route", ["shard", "hub", "bundle"])
@pytest.mark.parametrize(("first", "second"), [("no key", "no key"), ("key", "key with history")])
def test_declarations_that_agree_merge(
    store: edgeshard.Store, tmp_path: Path, route: str, first: str, second: str
) -> None:
    for named in sources(route, tmp_path, store, [first, second]):
        merged(store) if not named else store.merge(named)
    assert [6 if first == "no key" else 1] == [count for (count,) in store.query("SELECT count(*) FROM sample")]
    assert store.verify(deep=True).ok


@pytest.mark.parametrize(("first", "second"), [("no key", "key"), ("key", "no key"), ("key", "other rule")])
def test_a_shard_refuses_a_class_with_another_key_at_its_first_write_and_goes_on(
    store: edgeshard.Store, first: str, second: str
) -> None:
    with store.shard("agent") as shard:
        shard.write_many(records(first))
        with pytest.raises(SchemaConflictError, match=r"table sample has .* there, and .* in this class"):
            shard.write(records(second)[0])
        shard.write({"n": 1})
    merged(store)
    assert [1] == numbers(store)


@pytest.mark.parametrize("role", ["shard", "master"])
def test_no_source_can_give_the_table_of_dicts_a_key(store: edgeshard.Store, tmp_path: Path, role: str) -> None:
    write(store, "good", *({"n": n} for n in range(9)))
    merged(store)
    evil = edgeshard.Store(tmp_path / "evil") if role == "master" else store
    write(evil, "evil", {"n": -1})
    path = shard_path(store, "evil")
    if role == "master":
        merged(evil)
        path = evil.master_path
    else:
        sql(path, format.DDL[format.KEYS])
    sql(path, "INSERT INTO _edgeshard_keys VALUES ('agent_data', '[\"agent_id\"]', 'lww', 0, 0)")
    sql(path, "ALTER TABLE agent_data ADD COLUMN _timestamp INTEGER")
    sql(path, "UPDATE agent_data SET _timestamp = 1")
    sql(path, "INSERT INTO _edgeshard_columns VALUES ('agent_data', '_timestamp', 'timestamp')")
    (aside,) = store.merge([path] if role == "master" else []).quarantined
    assert "declares a key for agent_data, which never has one" in aside.reason
    assert [*range(9)] == numbers(store)


# -- tombstones and history -------------------------------------------------------------------------------------------

OWNER = {"key": "k", "history": True}


def named(name: str, options: dict[str, Any]) -> Any:
    """Return a class of that table with the fields k and v."""
    return edgeshard.table(name=name, **options)(attrs.make_class("Named", {"k": attrs.field(type=str), "v": attrs.field(type=int)}, frozen=True))  # fmt: skip


@pytest.mark.parametrize("companion", ["sample_history", "sample_deleted"])
@pytest.mark.parametrize("options", [{}, {"key": "k"}], ids=["plain", "keyed"])
@pytest.mark.parametrize("order", ["owner first", "companion first", "in one merge"])
def test_no_table_becomes_the_tombstones_or_the_history_of_another_in_any_order(
    store: edgeshard.Store, companion: str, options: dict[str, Any], order: str
) -> None:
    owner, other = named("sample", OWNER), named(companion, options)
    steps = [("a", owner), ("b", other)]
    for agent, cls in reversed(steps) if order == "companion first" else steps:
        write_apart(store, agent, cls("p", 1), cls("q", 2))
        if order != "in one merge":
            store.merge()
    (aside,) = store.merge().blocked
    assert companion in aside.reason
    write(store, "good", {"n": 1})
    store.merge()
    assert [1] == numbers(store)
    assert (3, True) == ((report := store.verify(deep=True)).rows, report.ok)


@pytest.mark.parametrize("companion", ["sample_history", "sample_deleted"])
@pytest.mark.parametrize("owner_first", [True, False])
def test_a_shard_takes_no_table_for_the_tombstones_or_the_history_of_another(
    store: edgeshard.Store, companion: str, owner_first: bool
) -> None:
    pair = [named("sample", OWNER), named(companion, {})]
    with store.shard("a") as shard:
        first, second = pair if owner_first else reversed(pair)
        shard.write(first("p", 1))
        with pytest.raises(SchemaConflictError, match="where deletions or earlier versions of table sample go"):
            shard.write(second("p", 1))
        shard.write(first("q", 1))
    assert 2 == store.merge().rows


@pytest.mark.parametrize("companion", ["sample_history", "sample_deleted"])
@pytest.mark.parametrize("owner_first", [True, False])
def test_tombstones_or_a_history_without_their_table_are_refused_and_harm_no_later_merge(
    store: edgeshard.Store, companion: str, owner_first: bool
) -> None:
    owner = named("sample", OWNER)
    if owner_first:
        write(store, "a", owner("p", 1), owner("p", 2))
        merged(store)
    write(store, "evil", {"n": -1})
    hostile_shards.companion_without_its_table(shard_path(store, "evil"), companion, "v" if companion.endswith("history") else "k")  # fmt: skip
    for n in range(2):
        write(store, "a", owner("p", n), owner("p", n + 1))
        with store.shard("a") as shard:
            shard.delete(owner, "p")
        (aside,) = store.merge().quarantined
        assert f"table '{companion}' has timestamps or reasons, and belongs to no keyed table" in aside.reason
    shard_path(store, "evil").unlink()
    write(store, "a", owner("p", 7))
    report = store.merge()
    assert (1, ()) == (report.rows, report.blocked)
    assert [(7,)] == store.query("SELECT v FROM sample")
    assert store.verify(deep=True).ok
