"""What users make in a master by hand: it stops nobody who reads the master, and if it stops a merge, it is named."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard.errors import StorageError
from tests.support.forms import others_slow
from tests.support.last_known import LastKnown
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers

#: What a merge and all who read the master live with, each as statements.
HARMLESS = {
    "index over an expression": ["create index by_n on agent_data(data ->> '$.n')"],
    "partial index": ["create index long_ones on agent_data(timestamp) where length(data) > 100"],
    "index over a table of ours": ["create index by_sum on _edgeshard_ranges(first + last)"],
    "plain index": ["create index by_agent on _edgeshard_streams(agent_id)"],
    "generated column": ["alter table agent_data add column n text as (data ->> '$.n')"],
    "index over a generated column": [
        "alter table agent_data add column m text as (data ->> '$.m')",
        "create index by_m on agent_data(m)",
    ],
    "column": ["alter table agent_data add column note text", "alter table reading add column note text default 'x'"],
    "column of a keyed table": ["alter table last_known add column note text"],
    "collation of a table": ["create table sorted(x text collate theirs primary key)", "insert into sorted values ('a')"],
    "collation of a table without rowid": [
        "create table keyed(x text collate theirs primary key) without rowid",
        "insert into keyed values ('b'), ('a')",
    ],
    "view": ["create view latest as select * from agent_data order by _id desc limit 1"],
    "broken view": ["create view broken as select * from nowhere"],
    "deep view": [f"create view deep as select 1 from agent_data where {' and '.join(['_id > 0'] * 900)}"],
    "view with a function": ["create view counted as select theirs(data) from agent_data"],
    "trigger": [
        "create table seen(id integer)",
        "create trigger sees after insert on agent_data begin insert into seen values (new._id); end",
    ],
    "trigger that refuses": ["create trigger no before insert on agent_data begin select raise(abort, 'no'); end"],
    "trigger on a table of ours": [
        "create trigger nowhere before insert on _edgeshard_ranges begin select raise(abort, 'no'); end"
    ],
    "trigger with a function": ["create trigger calls after delete on agent_data begin select theirs(1); end"],
    "wide table": [f"create table wide({', '.join(f'c{n}' for n in range(1_990))})"],
    "table without rowid": ["create table without(a primary key) without rowid"],
    "strict table": ["create table strict_one(a int primary key) strict"],
    "table with checks": ["create table checked(a check (length(a) > 1000), b check (theirs(b)))"],
    "table with a reference": ["create table refers(x references agent_data(_id))"],
    "table with a sequence": ["create table numbered(a integer primary key autoincrement)"],
    "odd names": [f'create table "{name}"(x)' for name in ('a b ""c', "'; drop", "", "select", "edge\nshard", "_late_rows")],
    "full text": ["create virtual table words using fts5(word)", "insert into words values ('one two')"],
    "R-tree": ["create virtual table boxes using rtree(id, low, high)"],
    "statistics": ["analyze"],
    "unknown module": [
        "pragma writable_schema = on",
        "insert into sqlite_schema values ('table', 'gone', 'gone', 0, 'CREATE VIRTUAL TABLE gone USING nowhere(x)')",
        "pragma writable_schema = off",
    ],
    "many tables": [f"create table many{n}(x)" for n in range(300)],
}  # fmt: skip


def make_by_hand(store: edgeshard.Store, *statements: str) -> None:
    """Execute statements in the master, as a program with a collation and a function of its own."""
    connection = apsw.Connection(str(store.master_path))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.pragma("synchronous", "OFF")
    connection.create_collation("theirs", lambda one, other: (one < other) - (one > other))
    connection.create_scalar_function("theirs", lambda *values: values[0], 1, deterministic=True)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def write(store: edgeshard.Store, agent: str, n: int) -> None:
    with store.shard(agent) as shard:
        shard.write({"n": n})
        shard.write(Reading("inlet", 1.5, NOON))
        shard.write(LastKnown("inlet", float(n)))


@pytest.fixture
def written(store: edgeshard.Store) -> edgeshard.Store:
    """Return a store with three rows in its master."""
    write(store, "a", 1)
    store.merge()
    return store


@pytest.mark.parametrize("names", others_slow([*HARMLESS, "all"], always=("all",)))
def test_what_users_made_in_a_master_stops_nobody(names: str, written: edgeshard.Store, tmp_path: Path) -> None:
    store, hub, hubs_hub, carried = (
        written,
        *(new_store(tmp_path / name) for name in ("hub", "hubs_hub", "carried")),
    )
    make_by_hand(store, *(sql for name, made in HARMLESS.items() if names in (name, "all") for sql in made))
    store.snapshot(tmp_path / "snapshot.db")
    for number in (2, 3):
        write(store, "b", number)
        assert ((), 3) == ((dry := store.merge(dry_run=True)).quarantined, dry.rows)
        assert [""] == [shard.reason for shard in store.status().shards]
        assert ((), 3) == ((done := store.merge()).quarantined, done.rows)
        assert () == hub.merge([store.master_path]).quarantined
        assert () == hubs_hub.merge([hub.master_path]).quarantined
        assert 3 * number == store.export(tmp_path / f"{number}.db").rows
        assert () == carried.merge([tmp_path / "snapshot.db", tmp_path / f"{number}.db"]).quarantined
        assert hub.ranges().held == store.ranges().held
        assert ((), ()) == (store.verify().errors, store.verify(deep=True).errors)
    for each in (store, hub, hubs_hub, carried):
        assert [1, 2, 3] == numbers(each)
        assert [3.0] == [row.value for row in each.read(LastKnown)]
    assert 7 == store.prune(keep_rows=1).rows


#: What merges cannot live with: the statements, and what the message must name.
IN_THE_WAY = {
    "unique index": (["create unique index ever on agent_data(agent_id)"], 'index "ever"'),
    "unique index over an expression": (["create unique index ever on agent_data(data ->> '$.n')"], 'index "ever"'),
    "index with a collation": (["create index ever on agent_data(data collate theirs)"], 'index "ever"'),
    "index with a function": (["create index ever on agent_data(theirs(data))"], 'index "ever"'),
    "generated column with a function": (
        ["alter table agent_data add column ever text as (theirs(data))"],
        'column "ever" of table "agent_data"',
    ),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_users_made_that_refuses_rows_is_named_and_the_others_merge(
    name: str, written: edgeshard.Store, tmp_path: Path
) -> None:
    made, named = IN_THE_WAY[name]
    make_by_hand(written, *made)
    write(written, "a", 1)
    with written.shard("other") as shard:
        shard.write(Reading("inlet", 1.5, NOON))
    (refused,) = (report := written.merge()).quarantined
    assert (1, True) == (
        report.rows,
        f"What was made by hand in the master may be in the way: {named}. " in refused.reason,
    )
    assert () == new_store(tmp_path / "hub").merge([written.master_path]).quarantined
    assert 4 == written.export(tmp_path / "bundle.db").rows
    make_by_hand(written, named.replace("column", "alter table agent_data drop column").partition(" of ")[0]
                 if named.startswith("column") else f"drop {named}")  # fmt: skip
    assert ((), 3) == ((done := written.merge()).quarantined, done.rows)


@pytest.mark.parametrize(
    ("taken", "record"),
    [
        ('table "reading"', Reading("inlet", 1.5, NOON)),
        ('view "reading"', Reading("inlet", 1.5, NOON)),
        ('table "last_known"', LastKnown("inlet", 1.0)),
        ('table "last_known_deleted"', LastKnown("inlet", 1.0)),
    ],
)
def test_a_name_that_users_took_is_named(taken: str, record: object, store: edgeshard.Store) -> None:
    store.init()
    make_by_hand(store, f"create {taken}(x)" if taken.startswith("table") else f"create {taken} as select 1")
    with store.shard("a") as shard:
        shard.write(record)
    (refused,) = store.merge().quarantined
    assert taken in refused.reason
    make_by_hand(store, f"drop {taken}")
    assert ((), 1) == ((done := store.merge()).quarantined, done.rows)


@pytest.mark.parametrize("verb", ["prune", "verify"])
def test_a_verb_that_needs_an_index_that_it_cannot_compute_names_it(verb: str, written: edgeshard.Store) -> None:
    make_by_hand(written, "create index ever on agent_data(theirs(data))")
    with pytest.raises(StorageError, match=r"unknown function.* may be in the way: index \"ever\""):
        _ = written.prune(keep_rows=1) if verb == "prune" else written.verify(deep=True)


@pytest.mark.slow
def test_what_users_made_in_a_master_stops_no_push(written: edgeshard.Store, pg: str) -> None:
    make_by_hand(written, *(sql for made in HARMLESS.values() for sql in made))
    for number in (2, 3):
        assert (True, 3) == ((report := written.push(pg)).complete, report.rows)
        write(written, "b", number)
        assert () == written.merge().quarantined
