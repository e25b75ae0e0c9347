"""One bad shard harms only itself: it is reported each time, with its reason, and stays where it is, as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard import format, sqlite
from edgeshard.errors import QueryError, UnreadableRowError
from edgeshard.files import scan
from tests.support.hostile_shards import edit
from tests.support.processes import sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        for n in ns:
            shard.write({"n": n})


def zero_length(path: Path) -> None:
    path.write_bytes(b"")


def log_without_database(path: Path) -> None:
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(b"rows")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def text(path: Path) -> None:
    path.write_text("not a database at all\n" * 100)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def truncated_oddly(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 700)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for position in range(3000, len(content), 7):
        content[position] ^= 0x55
    path.write_bytes(content)


def foreign(path: Path) -> None:
    path.unlink()
    edit(path, "create table t(x)", "insert into t values(1)")


def foreign_with_our_id(path: Path) -> None:
    foreign(path)
    edit(path, f"pragma application_id = {format.APPLICATION_ID}", f"pragma user_version = {format.FORMAT_VERSION}")


def later_format(path: Path) -> None:
    edit(path, "pragma user_version = 99")


def symbolic_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def view_for_a_table(path: Path) -> None:
    edit(
        path,
        "drop table agent_data",
        "create view agent_data as select 1 as _id, 'x' as agent_id, '2026-01-01' as timestamp, '{}' as data",
    )


def view_for_a_format_table(path: Path) -> None:
    edit(
        path,
        "alter table _edgeshard_streams rename to elsewhere",
        "create view _edgeshard_streams as select * from elsewhere, (with recursive c(x) as (select 1 union all select x from c) select x from c)",
    )


def generated_column(path: Path) -> None:
    edit(
        path,
        "drop table agent_data",
        "create table agent_data(_id integer primary key, agent_id text, timestamp text, data text as (agent_id || 'x')) strict",
        "insert into agent_data(_id, agent_id, timestamp) values (4294967297, 'bad', '2026-01-01')",
    )


def unstrict_values(path: Path) -> None:
    edit(
        path,
        "drop table agent_data",
        "create table agent_data(_id integer primary key, agent_id text, timestamp text, data text)",
        "insert into agent_data values (4294967297, 'bad', x'00', '{}')",
    )


def stream_of_a_wrong_type(path: Path) -> None:
    edit(
        path,
        "drop table _edgeshard_streams",
        "create table _edgeshard_streams(stream_no integer primary key, agent_id, stream_id, began_at, last_seq)",
        "insert into _edgeshard_streams values (1, 5, 7, 'x', 'y')",
    )


def stream_of_another_agent(path: Path) -> None:
    edit(path, "update _edgeshard_streams set agent_id = 'good'")


def row_of_no_stream(path: Path) -> None:
    edit(path, "insert into agent_data values (38654705665, 'bad', 1, '{}')")


def row_with_a_negative_id(path: Path) -> None:
    edit(path, "insert into agent_data values (-5, 'bad', 1, '{}')", "delete from agent_data where _id > 0")


def hole(path: Path) -> None:
    edit(path, "delete from agent_data where _id = 4294967297")


def unknown_kind(path: Path) -> None:
    edit(path, "update _edgeshard_columns set type = 'colour'")


def strange_table_name(path: Path) -> None:
    edit(path, "insert into _edgeshard_columns values ('x\"; drop table agent_data; --', 'y', 'text', 1)")


def format_table_as_record_table(path: Path) -> None:
    edit(path, "insert into _edgeshard_columns values ('_edgeshard_streams', 'agent_id', 'text', 1)")


def index_over_nothing(path: Path) -> None:
    edit(path, f"{format.DDL[format.INDEXES]}; insert into _edgeshard_indexes values ('agent_data', '[\"nothing\"]')")


def index_that_is_deep(path: Path) -> None:
    edit(path, f"{format.DDL[format.INDEXES]}; insert into _edgeshard_indexes values ('agent_data', '{'[' * 100_000}')")


def impossible_truncation(path: Path) -> None:
    edit(path, "insert into _edgeshard_truncations values (1, 1, 99999999999, x'00112233445566778899aabbccddeeff')")


def two_descriptions(path: Path) -> None:
    edit(path, "insert into _edgeshard_database(database_id, role) values (randomblob(16), 'shard')")


def no_description(path: Path) -> None:
    edit(path, "delete from _edgeshard_database")


def agent_that_is_no_utf8(path: Path) -> None:
    edit(path, "update _edgeshard_database set agent_id = cast(x'ff' as text)")


def role_that_is_no_utf8(path: Path) -> None:
    edit(path, "update _edgeshard_database set role = cast(x'ff' as text)")


def table_name_that_is_no_utf8(path: Path) -> None:
    edit(path, "insert into _edgeshard_columns values (cast(x'ff' as text), 'y', 'text', 1)")


def schema_that_is_no_utf8(path: Path) -> None:
    edit(path, "create table zzz(x)", "update sqlite_schema set name = cast(x'ff' as text) where name = 'zzz'")


def key_that_is_no_rowid(path: Path) -> None:
    edit(
        path,
        "drop table agent_data",
        "create table agent_data(_id integer primary key desc, agent_id text, timestamp text, data text)",
        "insert into agent_data values (4294967297.5, 'bad', 1, '{}')",
    )


def key_of_two_columns(path: Path) -> None:
    edit(
        path,
        "drop table agent_data",
        "create table agent_data(_id integer, agent_id text, timestamp text, data text, x int, primary key(_id, x))",
        "insert into agent_data values (4294967297, 'bad', 1, '{}', 1), (4294967297, 'bad', 1, '{}', 2)",
    )


def doubled_transactions(path: Path) -> None:
    edit(
        path,
        "drop table _edgeshard_transactions",
        "create table _edgeshard_transactions(first_id, last_id)",
        "insert into _edgeshard_transactions values (4294967297, 4294967298), (4294967297, 4294967298)",
    )


def blocks_at_the_end_of_ids(path: Path) -> None:
    edit(
        path,
        "update _edgeshard_database set role = 'master'",
        *(format.DDL[name] for name in format.REQUIRED_TABLES[format.MASTER] if name not in format.COMMON_TABLES),
        "insert into _edgeshard_blocks values (1, 1, 30, 9223372036854775807)",
        "insert into _edgeshard_ranges values (1, 1, 30)",
        "update _edgeshard_streams set last_seq = 30",
    )


def journal_that_is_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name(path.name + "-journal"))


def utf16(path: Path) -> None:
    path.unlink()
    edit(path, "pragma encoding = 'UTF-16'", "create table t(x)")
    edit(path, f"pragma application_id = {format.APPLICATION_ID}", f"pragma user_version = {format.FORMAT_VERSION}")


DAMAGE: list[Callable[[Path], None]] = [
    zero_length, log_without_database, garbage, text, truncated, truncated_oddly, flipped, foreign, foreign_with_our_id,
    later_format, symbolic_link, fifo, folder, view_for_a_table, view_for_a_format_table, generated_column,
    unstrict_values, stream_of_a_wrong_type, stream_of_another_agent, row_of_no_stream, row_with_a_negative_id, hole,
    unknown_kind, strange_table_name, format_table_as_record_table, index_over_nothing, index_that_is_deep,
    impossible_truncation, two_descriptions, no_description, agent_that_is_no_utf8, role_that_is_no_utf8,
    table_name_that_is_no_utf8, schema_that_is_no_utf8, key_that_is_no_rowid, key_of_two_columns, doubled_transactions,
    blocks_at_the_end_of_ids, journal_that_is_a_fifo, utf16,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_bad_shard_is_set_aside_with_a_reason_and_the_others_merge(
    store: edgeshard.Store, damage: Callable[[Path], None]
) -> None:
    write(store, "a", 1)
    write(store, "bad", *range(10, 40))
    write(store, "good", 2)
    bad = shard_path(store, "bad")
    damage(bad)
    before = content_of(bad)

    for _ in range(2):
        report = store.merge()
        assert [str(bad)] == [item.path for item in report.quarantined]
        assert len(report.quarantined[0].reason) > 10
    assert [1, 2] == numbers(store)
    assert [False, False] == [shard_path(store, name).exists() for name in ("a", "good")]
    assert before == content_of(bad)
    verified = store.verify()
    assert () == verified.errors


def content_of(path: Path) -> bytes | str:
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else str(path.exists() and path.stat().st_mode)


def test_a_bad_shard_merges_once_it_is_mended(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "agent", 1, 2)
    shutil.copy(shard_path(store, "agent"), tmp_path / "whole")
    garbage(shard_path(store, "agent"))
    assert 1 == len(store.merge().quarantined)
    shutil.copy(tmp_path / "whole", shard_path(store, "agent"))
    assert (2, ()) == (store.merge().rows, store.merge().quarantined)


def test_a_shard_that_vanishes_during_the_merge_is_left_to_whoever_removed_it(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a", 1)
    write(store, "b", 2)
    real = sqlite.attach

    def vanish(connection: apsw.Connection, path: str, schema: str) -> None:
        if path.endswith("a.db"):
            Path(path).unlink(missing_ok=True)
        real(connection, path, schema)

    monkeypatch.setattr("edgeshard.sqlite.attach", vanish)
    report = store.merge()
    assert (1, ()) == (report.rows, report.quarantined)
    assert not shard_path(store, "a").exists()


def test_a_shard_that_keeps_a_transaction_from_beginning_is_set_aside_and_the_others_merge(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for agent in ("a", "b", "c"):
        write(store, agent, 1)
    real = sqlite.immediate

    @contextlib.contextmanager
    def refusing(connection: apsw.Connection) -> Iterator[None]:
        # as SQLite does where a shard was replaced while it was attached, and is read beside the log of the other
        if any(path == str(shard_path(store, "b")) for _, _, path in connection.execute("PRAGMA database_list")):
            raise apsw.CorruptError
        with real(connection):
            yield

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "immediate", refusing)
        report = store.merge()
    assert (2, [str(shard_path(store, "b"))]) == (report.rows, [item.path for item in report.quarantined])
    assert (1, ()) == ((again := store.merge()).rows, again.quarantined)


def test_a_shard_that_somebody_locks_is_soon_left_for_the_next_merge(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    write(store, "b", 2)
    holder = apsw.Connection(str(shard_path(store, "a")))
    holder.pragma("locking_mode", "EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("UPDATE _edgeshard_database SET generation = 1")
    report = store.merge()
    assert (1, 1) == (report.rows, len(report.quarantined))
    assert "locked" in report.quarantined[0].reason
    assert report.seconds < sqlite.BUSY_TIMEOUT_S / 2
    holder.execute("ROLLBACK")
    holder.close()
    assert (1, ()) == (store.merge().rows, store.merge().quarantined)


def test_a_false_claim_to_have_given_rows_up_shows_as_a_gap_only(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    edit(
        shard_path(store, "bad"),
        "insert into _edgeshard_truncations values (1, 1, 1000, x'00112233445566778899aabbccddeeff')",
    )
    report = store.merge()
    assert [(1, 1000)] == [(gap.first, gap.last) for gap in report.gaps]
    assert 0 == report.rows


@pytest.mark.parametrize("wrong", ["(4294967300, 4294967298)", "(4294967300, 4294967310), (4294967305, 4294967306)"])
def test_false_notes_of_transactions_harm_that_shard_alone(store: edgeshard.Store, wrong: str) -> None:
    write(store, "bad", *range(50))
    write(store, "good", 99)
    edit(shard_path(store, "bad"), f"insert into _edgeshard_transactions values {wrong}")
    (aside,) = store.merge().quarantined
    assert "its transactions overlap, or end before they begin" in aside.reason
    assert [99] == numbers(store)


def test_notes_of_transactions_that_have_no_row_do_no_harm(store: edgeshard.Store) -> None:
    write(store, "bad", *range(50))
    edit(shard_path(store, "bad"), "insert into _edgeshard_transactions values (1, 9223372036854775807), (-5, 3)")
    assert 50 == store.merge().rows
    assert [*range(50)] == numbers(store)


def test_triggers_of_a_shard_do_not_run(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    edit(
        shard_path(store, "bad"),
        "create trigger t after delete on agent_data begin insert into _edgeshard_columns values ('x', 'y', 'z', 1); end",
    )
    assert 1 == store.merge(keep_empty=True).truncated
    assert [] == sql(shard_path(store, "bad"), "select * from _edgeshard_columns where table_name = 'x'")
    assert [1] == numbers(store)


def test_a_source_that_is_not_there_is_reported(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "a", 1)
    report = store.merge([tmp_path / "missing.db"])
    assert (1, ["there is no such file"]) == (report.rows, [item.reason for item in report.quarantined])


def test_a_file_whose_name_is_no_text_is_reported_and_harms_nothing(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    with open(os.fsencode(store.root / "shards") + b"/\xff.db", "wb") as file:
        file.write(b"garbage")
    for _ in range(2):
        ((path, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
        assert path.endswith("\\xff.db")
        assert "UTF-8" in reason
    assert [1] == numbers(store)


def test_a_text_that_is_no_utf8_is_named_when_it_is_read(store: edgeshard.Store) -> None:
    write(store, "bad", 1)
    edit(shard_path(store, "bad"), "update agent_data set data = cast(x'ff' as text)")
    store.merge()
    with pytest.raises(QueryError, match="UTF-8"):
        store.query("select data from agent_data")
    with pytest.raises(UnreadableRowError, match="UTF-8"):
        list(store.read(edgeshard.AgentData))
    assert [(b"\xff",)] == store.query("select cast(data as blob) from agent_data")


def test_what_is_wrong_with_the_master_is_not_remembered_of_the_shard(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    store.init()
    edit(store.master_path, "create view reading as select 1")
    with store.shard("a") as shard:
        shard.write(Reading("x", 1, NOON))
    for _ in range(2):
        assert "view" in store.merge().quarantined[0].reason
    edit(store.master_path, "drop view reading")
    assert (1, ()) == (store.merge().rows, store.merge().quarantined)


def test_what_one_version_cannot_read_the_next_one_looks_at_again(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    write(store, "a", 1)
    later_format(shard_path(store, "a"))
    for _ in range(2):
        assert 1 == len(store.merge().quarantined)
    monkeypatch.setattr(format, "VERSION", "99")
    monkeypatch.setattr(format, "IDENTITY", (format.APPLICATION_ID, 99))
    monkeypatch.setattr("edgeshard.format.IDENTITY", (format.APPLICATION_ID, 99))
    edit(store.master_path, "pragma user_version = 99")
    assert (1, ()) == (store.merge().rows, store.merge().quarantined)


def test_a_source_in_many_pieces_is_merged_in_reasonable_time(store: edgeshard.Store, tmp_path: Path) -> None:
    pieces = 4000
    with store.shard("a") as one, store.shard("b") as other:
        one.write_many([{"n": n} for n in range(2 * pieces)])
        other.write({"n": -1})
        stream = one.stream
    store.merge()
    # as if the two agents had been merged row by row, in turn
    edit(
        store.master_path,
        f"update agent_data set _id = _id + {10**6}",
        f"update _edgeshard_blocks set first_id = first_id + {10**6}",
        f"update _edgeshard_database set next_id = next_id + {10**6}",
        "delete from _edgeshard_transactions",
        f"delete from agent_data where _seq % 2 = 0 and _stream = (select stream_no from _edgeshard_streams where stream_id = x'{stream}')",
        "delete from _edgeshard_blocks where last > 1",
        "delete from _edgeshard_ranges where last > 1",
        "insert into _edgeshard_blocks select _stream, _seq, _seq, _id from agent_data where _seq > 1 or agent_id = 'a'",
        "insert into _edgeshard_ranges select _stream, _seq, _seq from agent_data where _seq > 1 or agent_id = 'a'",
        f"insert into _edgeshard_missing select stream_no, {pieces} from _edgeshard_streams where stream_id = x'{stream}'",
    )
    assert () == store.verify().errors
    hub = new_store(tmp_path / "hub")
    report = hub.merge([store.master_path])
    assert (pieces + 1, pieces) == (report.rows, report.missing_rows)
    assert report.seconds < 60  # it took minutes when each piece looked at all others
