"""What a hostile shard tries: it is set aside, in bounded time and memory, and nobody else notices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format, sqlite
from edgeshard.errors import RecordError
from edgeshard.merge import apply
from edgeshard.merge.merger import Merger
from edgeshard.records.keys import Key
from edgeshard.sources.source import SourceTable
from tests.support import hostile_shards
from tests.support.processes import python, sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path

#: Address space of a merger of hostile shards: about what the interpreter with its libraries needs, and 600 MB.
MEMORY_BYTES = 1 << 30

# a process of its own: what hangs or runs out of memory is ended, and does not end the tests
_MERGE = f"""
import json, resource, sys
import edgeshard
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
report = edgeshard.Store(sys.argv[1]).merge()
print(json.dumps([[item.path, item.reason] for item in report.quarantined]))
"""


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        for n in ns:
            shard.write({"n": n})


def merge_within_bounds(store: edgeshard.Store) -> list[list[str]]:
    """What a merge with little memory sets aside."""
    done = python(_MERGE, store.root)  # ended after two minutes
    assert 0 == done.returncode, done.stderr
    aside: list[list[str]] = json.loads(done.stdout)
    return aside


HOSTILE: list[Callable[[Path], None]] = [
    hostile_shards.format_table_with_a_computed_column, hostile_shards.record_table_with_another_computed_column,
    hostile_shards.index_over_an_expression, hostile_shards.index_over_a_part, hostile_shards.index_over_an_expression_in_a_format_table,
    hostile_shards.table_without_rowid, hostile_shards.full_text_table, hostile_shards.table_of_the_files_own_pages,
    hostile_shards.format_table_that_is_virtual, hostile_shards.format_table_without_its_key, hostile_shards.thousands_of_columns,
    hostile_shards.huge_text_of_a_table, hostile_shards.tables_without_number, hostile_shards.giant_cell,
    hostile_shards.giant_cell_in_a_format_table, hostile_shards.agent_with_a_long_name,
    hostile_shards.truncations_without_number, hostile_shards.pages_in_circles, hostile_shards.utf16,
]  # fmt: skip


#: What the fast tests try, each in a process of its own: one of each kind, and none that is large.
ALWAYS = (
    hostile_shards.format_table_with_a_computed_column, hostile_shards.index_over_an_expression,
    hostile_shards.full_text_table, hostile_shards.format_table_without_its_key, hostile_shards.huge_text_of_a_table,
    hostile_shards.agent_with_a_long_name, hostile_shards.pages_in_circles,
)  # fmt: skip


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(attack, id=attack.__name__, marks=() if attack in ALWAYS else pytest.mark.slow)
        for attack in HOSTILE
    ],
)
def test_a_hostile_shard_is_set_aside_within_bounds_and_the_others_merge(
    store: edgeshard.Store, attack: Callable[[Path], None]
) -> None:
    write(store, "a", 1)
    write(store, "bad", *range(10, 40))
    write(store, "good", 2)
    bad = shard_path(store, "bad")
    attack(bad)
    before = bad.read_bytes()

    ((path, reason),) = merge_within_bounds(store)
    assert str(bad) == path
    assert len(reason) > 10
    assert [1, 2] == numbers(store)
    assert before == bad.read_bytes()
    assert () == store.verify().errors


def test_a_time_that_is_none_is_not_believed_and_its_rows_are_merged(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    hostile_shards.time_that_is_long(shard_path(store, "bad"))
    write(store, "good", 2)
    assert [] == merge_within_bounds(store)
    assert [1, 2] == numbers(store)
    assert [("",)] == store.query("select began_at from _edgeshard_streams where agent_id = 'bad'")


@pytest.mark.slow
def test_a_status_of_a_hostile_shard_is_bounded_as_well(store: edgeshard.Store) -> None:
    write(store, "circles", 1)
    write(store, "tables", 2)
    hostile_shards.pages_in_circles(shard_path(store, "circles"))
    hostile_shards.tables_without_number(shard_path(store, "tables"))
    assert [True, True] == [bool(shard.reason) for shard in store.status().shards]
    assert 2 == len(store.merge(dry_run=True).quarantined)


def test_what_a_hostile_shard_has_beside_its_tables_is_never_looked_at(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    hostile_shards.edit(
        shard_path(store, "bad"),
        "create view endless as with recursive c(x) as (select 1 union all select x + 1 from c) select sum(x) from c",
        "create view itself as select * from itself",
        "create virtual table words using fts5(word)",
        "create virtual table pages using dbstat",
        f"create table wide({', '.join(f'c{n} text' for n in range(1_990))})",
        f"create view deep as select * from agent_data where {' and '.join(['_id > 0'] * 900)}",
        "create table defaults(x text default (hex(zeroblob(400000000))), y text as (hex(zeroblob(400000000))))",
        "create table checked(x integer check (length(hex(zeroblob(400000000))) = 1))",
    )
    report = store.merge(keep_empty=True)
    assert (1, 1, ()) == (report.rows, report.truncated, report.quarantined)


def test_no_check_of_a_hostile_shard_is_evaluated_when_its_rows_are_deleted(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    columns = "stream_no integer not null, first integer not null, last integer not null, database_id blob not null"
    hostile_shards.replace_table(
        shard_path(store, "bad"),
        "_edgeshard_truncations",
        f"{columns} check (length(hex(zeroblob(400000000))) = 1), primary key(stream_no, first)",
        "strict, without rowid",
    )
    report = store.merge(keep_empty=True)
    assert (1, 1, ()) == (report.rows, report.truncated, report.quarantined)


@pytest.mark.slow
@pytest.mark.parametrize("page_bytes", [512, 65536])
def test_a_shard_with_other_pages_than_ours_merges(store: edgeshard.Store, page_bytes: int) -> None:
    write(store, "other", *range(300))
    hostile_shards.remade(shard_path(store, "other"), page_bytes=page_bytes)
    report = store.merge(keep_empty=True)
    assert (300, 300, ()) == (report.rows, report.truncated, report.quarantined)
    assert [*range(300)] == numbers(store)


def test_a_shard_with_indexes_of_its_users_own_merges(store: edgeshard.Store) -> None:
    write(store, "agent", 1, 2)
    hostile_shards.edit(shard_path(store, "agent"), "create index theirs on agent_data(data, timestamp)")
    assert (2, 2, ()) == (lambda done: (done.rows, done.truncated, done.quarantined))(store.merge(keep_empty=True))


def test_a_format_table_made_by_another_text_with_the_same_columns_is_read(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    hostile_shards.edit(
        shard_path(store, "agent"),
        "update sqlite_schema set sql = replace(sql, '-- 16 random bytes', '-- 16 bytes') where type = 'table'",
    )
    assert (1, ()) == (lambda done: (done.rows, done.quarantined))(store.merge())


def test_a_shard_that_needs_more_memory_than_there_is_is_set_aside_and_tried_again(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "bad", 1)
    write(store, "good", 2)
    real = apply._copy_statement

    def without_memory(schema: str, table: SourceTable, thinning: Key | None = None) -> str:
        if "bad" in paths.get(schema, ""):
            raise apsw.NoMemError("out of memory")
        return real(schema, table, thinning)

    paths: dict[str, str] = {}
    attach = sqlite.attach

    def attach_and_note(connection: apsw.Connection, path: str, schema: str) -> None:
        paths[schema] = path
        attach(connection, path, schema)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "attach", attach_and_note)
        patch.setattr(apply, "_copy_statement", without_memory)
        ((_, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
    assert "memory" in reason
    assert [2] == numbers(store)
    assert (1, ()) == (lambda done: (done.rows, done.quarantined))(store.merge())


# -- names and files --------------------------------------------------------------------------------------------------


def test_a_name_that_means_something_elsewhere_is_a_name_like_any_other(store: edgeshard.Store) -> None:
    write(store, "agent", 0)
    for name in hostile_shards.strange_names():
        shutil.copy(shard_path(store, "agent"), store.root / "shards" / name)
    outside = {path.name for path in store.root.parent.iterdir()}
    report = store.merge()
    assert (1, ()) == (report.rows, report.quarantined)
    assert [0] == numbers(store)
    assert outside == {path.name for path in store.root.parent.iterdir()}
    assert {"shards", "master.db", "merge.lock", "removed"} == {
        path.name.split("-")[0] for path in store.root.iterdir()
    }


@pytest.mark.parametrize("agent", ["../../evil", "a\nb", "file:x?mode=memory", "/etc/passwd", "..", "."])
def test_an_agents_name_is_a_value_and_never_a_path(store: edgeshard.Store, agent: str) -> None:
    write(store, agent, 1)
    assert [store.root / "shards"] == [*store.root.iterdir()]
    assert 2 >= len([*(store.root / "shards").iterdir()]) - len([*(store.root / "shards").glob("*-wal")])
    assert (1, ()) == (lambda done: (done.rows, done.quarantined))(store.merge())
    assert [agent] == [row.agent_id for row in store.query("select agent_id from agent_data")]


def test_a_lock_that_is_a_symbolic_link_harms_not_what_it_leads_to(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    kept = store.root / "kept"
    kept.write_text("kept")
    lock = store.root / "shards" / "agent.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(kept)
    assert 1 == store.merge().rows
    assert "kept" == kept.read_text()


def test_a_journal_that_names_another_file_harms_it_not(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    write(store, "good", 2)
    kept = store.root / "kept"
    kept.write_text("kept\n")
    hostile_shards.journal_to_be_played_back(shard_path(store, "bad"), kept)
    store.merge()
    store.merge()
    assert 2 in numbers(store)
    assert "kept\n" == kept.read_text()


def test_two_names_of_one_shard_are_set_aside_until_one_is_removed(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        os.link(shard_path(store, "agent"), shard_path(store, "twin"))
        for _ in range(2):
            report = store.merge()
            assert (0, 2) == (report.rows, len(report.quarantined))
            assert "hard link" in report.quarantined[0].reason
        shard_path(store, "twin").unlink()
        shard.write({"n": 2})
        assert (2, ()) == (lambda done: (done.rows, done.quarantined))(store.merge())
        shard.write({"n": 3})
    store.merge()
    assert [1, 2, 3] == numbers(store)


_SCRIBBLE = """
import os, random, sys, time
rng = random.Random(7)
size = os.path.getsize(sys.argv[1])
print("at work", flush=True)
ends = time.monotonic() + 60
while time.monotonic() < ends:
    for name in (sys.argv[1], sys.argv[1] + "-wal"):
        try:
            with open(name, "r+b") as file:
                file.seek(rng.randrange(size))
                file.write(rng.randbytes(rng.choice((1, 16, 1024))))
        except OSError:
            pass
"""


@pytest.mark.slow
def test_a_shard_that_changes_while_it_is_read_harms_only_itself(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("bad") as shard:
        shard.write_many({"n": -n} for n in range(1, 3_000))
    whole = tmp_path / "whole"
    shutil.copy(shard_path(store, "bad"), whole)
    scribbler = subprocess.Popen([sys.executable, "-c", _SCRIBBLE, str(shard_path(store, "bad"))], stdout=-1)
    try:
        assert scribbler.stdout is not None
        scribbler.stdout.readline()
        for n in range(20):
            write(store, "good", n)
            store.merge()
            if n % 4 == 0 and shard_path(store, "bad").exists():
                with open(shard_path(store, "bad"), "r+b") as file:
                    file.write(whole.read_bytes())
    finally:
        scribbler.kill()
        scribbler.wait()
        assert scribbler.stdout is not None
        scribbler.stdout.close()
    assert [*range(20)] == [n for n in numbers_that_are_whole(store) if n >= 0]
    assert () == store.verify().errors


def numbers_that_are_whole(store: edgeshard.Store) -> list[int]:
    """The field n of the dicts whose text is still JSON: a byte of a payload is nobody's to check."""
    rows = store.query("select cast(data as blob) as data from agent_data where agent_id = 'good'")
    return sorted(json.loads(row.data)["n"] for row in rows)


# -- other agents' rows -----------------------------------------------------------------------------------------------


def forged(store: edgeshard.Store, agent: str, name: str, rows: int) -> None:
    """Put a shard into the folder that has rows of its own making by the addresses of an agent's."""
    path = shard_path(store, name)
    shutil.copy(shard_path(store, agent), path)
    if os.path.exists(f"{shard_path(store, agent)}-wal"):
        shutil.copy(f"{shard_path(store, agent)}-wal", f"{path}-wal")
    hostile_shards.edit(
        path,
        "update _edgeshard_database set database_id = randomblob(16)",
        "delete from agent_data",
        f"with recursive c(n) as (select 1 union all select n + 1 from c where n < {rows}) "
        f"insert into agent_data select (1 << 32) + n, '{agent}', 0, '{{\"n\":' || -n || '}}' from c",
    )


def test_rows_that_another_shard_has_by_the_same_addresses_are_never_deleted(store: edgeshard.Store) -> None:
    with store.shard("victim") as victim:
        for n in range(50):
            victim.write({"n": n})
        forged(store, "victim", "a-forgery", 1_000)
        assert 1_000 == store.merge().rows  # it comes first
        for n in range(50, 60):
            victim.write({"n": n})
        for _ in range(2):
            ((path, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
            assert str(shard_path(store, "victim")) == path
            assert "differ from those that the master holds" in reason
    store.merge()
    assert 60 == sql(shard_path(store, "victim"), "select count(*) from agent_data")[0][0]
    # and the rows are merged elsewhere
    other = new_store(store.root.parent / "other")
    assert (60, ()) == (lambda done: (done.rows, done.quarantined))(other.merge([shard_path(store, "victim")]))
    assert [*range(60)] == numbers(other)


def test_a_clone_that_is_behind_gives_up_no_row_that_it_has_yet_to_write(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard_path(store, 'agent')}{suffix}", f"{shard_path(store, 'clone')}{suffix}")
        shard.write({"n": 2})
    report = store.merge(keep_empty=True)  # the master holds seqs 1 and 2 when it comes to the clone, which has seq 1
    assert (2, 3, ()) == (report.rows, report.truncated, report.quarantined)
    hostile_shards.edit(
        shard_path(store, "clone"), "insert into agent_data values ((1 << 32) + 2, 'agent', 0, '{\"n\":22}')"
    )

    assert ["clone.db"] == [Path(item.path).name for item in store.merge().quarantined]
    assert [['{"n":22}']] == sql(shard_path(store, "clone"), "select data from agent_data")


def test_a_machine_that_was_cloned_while_it_wrote_loses_no_row(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard_path(store, 'agent')}{suffix}", f"{shard_path(store, 'clone')}{suffix}")
        hostile_shards.edit(
            shard_path(store, "clone"), "insert into agent_data values ((1 << 32) + 2, 'agent', 0, '{\"n\":22}')"
        )
        shard.write({"n": 2})
    report = store.merge()
    assert (2, 1) == (report.rows, len(report.quarantined))
    assert shard_path(store, "clone").exists()


def test_a_copy_of_a_shard_is_found_equal_and_emptied(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": n, "text": "x" * n} for n in range(200)])
        shard.write(Reading("inlet", 1.5, NOON))
        shard.write(Reading("inlet", -0.0, NOON))
    shutil.copy(shard_path(store, "agent"), shard_path(store, "copy"))
    report = store.merge(keep_empty=True)
    assert (202, 404, ()) == (report.rows, report.truncated, report.quarantined)


def test_rows_that_a_killed_merger_copied_are_found_equal_and_deleted(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "agent", 1, 2, 3)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgeshard.merge.merger.Merger._truncate_or_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            store.merge()
    report = store.merge(keep_empty=True)
    assert (0, 3, ()) == (report.rows, report.truncated, report.quarantined)


def test_rows_that_a_watching_merger_copied_itself_are_not_compared_again_at_each_pass(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    real = apply._count_equal

    def count_equal(schema: str, table: SourceTable, name: str) -> str:
        compared.append(name)
        return real(schema, table, name)

    monkeypatch.setattr(apply, "_count_equal", count_equal)
    store.init()
    store.merge()
    with store.shard("agent") as shard:
        merger = Merger(store.root, watching=True)
        shard.write({"n": -2})
        shard.write({"n": -1})  # the first one in the WAL
        for n in range(3):
            shard.write({"n": n})
            report = merger.run(thorough=False)
            assert (1 if n else 3, 0) == (report.rows, report.truncated)  # the agent is busy: its rows stay
        assert 5 == merger.run(thorough=False).truncated
        assert [] == compared
        shard.write({"n": 3})
        merger.run(thorough=False)
        merger.abandon()
        # another merger knows nothing of that
        assert (0, 1) == ((report := store.merge()).rows, report.truncated)
        assert ["agent_data"] == compared


@pytest.mark.slow
def test_shards_cannot_give_the_master_more_tables_and_columns_than_it_can_have(store: edgeshard.Store) -> None:
    for number in range(3):
        write(store, f"bad{number}", number)
        hostile_shards.edit(
            shard_path(store, f"bad{number}"),
            *(
                f"create table t{number}_{n}(_id integer primary key, {', '.join(f'c{c} text' for c in range(45))}) strict"
                for n in range(190)
            ),
            *(
                "insert into _edgeshard_columns values "
                + ", ".join(f"('t{number}_{n}', 'c{c}', 'text', {c})" for c in range(45))
                for n in range(190)
            ),
        )
    report = store.merge()
    assert (3, ()) == (report.rows, report.quarantined)  # tables without rows that do not fit are not made
    ((columns,),) = store.query("select count(*) from _edgeshard_columns")
    assert 2 * 190 * 45 < columns <= format.COLUMNS_IN_ALL_MAX
    write(store, "good", 9)
    assert 1 == store.merge().rows


@pytest.mark.slow
def test_two_shards_cannot_widen_a_table_beyond_what_can_be_opened(store: edgeshard.Store) -> None:
    wide = edgeshard.table(name="wide")(attrs.make_class("Wide", {"n": attrs.field(type=int)}))
    for number in range(2):
        with store.shard(f"bad{number}") as shard:
            shard.write(wide(number))
        columns = [f"c{number}_{n}" for n in range(300)]
        hostile_shards.edit(
            shard_path(store, f"bad{number}"),
            *(f"alter table wide add column {name} text" for name in columns),
            *(f"insert into _edgeshard_columns values ('wide', '{name}', 'text', 9)" for name in columns),
        )
    report = store.merge()
    assert (1, 1) == (report.rows, len(report.blocked))
    write(store, "good", 9)
    assert 1 == store.merge().rows
    assert [9] == numbers(store)
    assert [wide(0)] == list(store.read(wide))


@pytest.mark.slow
def test_a_row_that_no_merge_could_take_is_refused_when_it_is_written(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        with pytest.raises(RecordError):
            shard.write({"text": "x" * format.ROW_BYTES_MAX})
        assert 1 == shard.write({"n": 1})
    assert 1 == store.merge().rows


@pytest.mark.slow
def test_the_largest_row_that_can_be_written_merges_in_little_memory(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"text": "x" * (format.ROW_BYTES_MAX - 1_000)})
    assert [] == merge_within_bounds(store)
    assert [(1,)] == [tuple(row) for row in store.query("select count(*) from agent_data")]


def test_the_notes_of_a_shard_may_be_false_but_its_payload_is_what_it_wrote(store: edgeshard.Store) -> None:
    """A hostile shard may speak of its own rows as it likes; a stranger's remain."""
    write(store, "good", 1)
    store.merge()
    stream = store.query("select hex(stream_id) as id from _edgeshard_streams")[0].id
    write(store, "bad", 2)
    hostile_shards.edit(shard_path(store, "bad"), f"update _edgeshard_streams set stream_id = x'{stream}'")
    ((_, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
    assert "'good'" in reason
    assert [1] == numbers(store)
