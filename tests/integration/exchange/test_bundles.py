"""Bundles: what another store lacks goes there in one file, whole or not at all, and no changed bit of it is merged."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, DamagedError, FormatError, StorageBusyError
from edgeshard.format import blocks
from edgeshard.master import database, receipts
from edgeshard.reports import PEER, UNKNOWN
from edgeshard.sources import readonly_copy
from tests.support.hostile_shards import edit
from tests.support.processes import command, paused, sql, unwrapped
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path


def add(store: edgeshard.Store, agent: str, *numbers: int) -> None:
    """Write dicts, a transaction each, and merge them."""
    with store.shard(agent) as shard:
        for n in numbers:
            shard.write({"n": n})
    store.merge()


def snapshot_of(folder: Path) -> list[tuple[str, int, int]]:
    """Each file in a folder, its size and its time."""
    return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())


@pytest.fixture
def hub(tmp_path: Path) -> edgeshard.Store:
    """A store elsewhere, of which there is nothing yet."""
    return new_store(tmp_path / "hub")


@pytest.fixture
def bundle(store: edgeshard.Store, tmp_path: Path) -> Path:
    """A bundle of twelve dicts of agent a, three of them in one transaction, and a record of agent b."""
    with store.shard("a") as shard, store.shard("b") as other:
        shard.write_many({"n": n} for n in range(3))
        for n in range(3, 12):
            shard.write({"n": n})
        other.write(Reading("inlet", 71.5, NOON))
    store.merge()
    store.export(tmp_path / "bundle.db")
    return tmp_path / "bundle.db"


# -- what is in one ---------------------------------------------------------------------------------------------------


def test_a_bundle_is_one_file_without_a_log_and_brings_everything(
    store: edgeshard.Store, hub: edgeshard.Store, bundle: Path
) -> None:
    assert ["bundle.db", "data", "hub"] == sorted(os.listdir(bundle.parent))
    assert (b"\1\1", 0o600) == (bundle.read_bytes()[18:20], bundle.stat().st_mode & 0o777)
    assert [["bundle", "delete", "ok"]] == sql(
        bundle, "select role, (select * from pragma_journal_mode), (select * from pragma_quick_check) "
        "from _edgeshard_database"
    )  # fmt: skip
    assert [] == sql(bundle, "select name from sqlite_schema where type = 'index' and tbl_name = 'reading'")
    before = bundle.read_bytes()
    report = hub.merge([bundle])
    assert (13, (), ()) == (report.rows, report.quarantined, report.gaps)
    assert (before, ["bundle.db", "data", "hub"]) == (bundle.read_bytes(), sorted(os.listdir(bundle.parent)))
    assert store.ranges().streams == hub.ranges().streams
    assert numbers(store) == numbers(hub)
    assert list(store.read(Reading)) == list(hub.read(Reading))
    assert [[1]] == sql(
        hub.master_path, "select count(*) from sqlite_schema where type = 'index' and sql like '%sensor%'"
    )
    assert [[3]] == sql(hub.master_path, "select last_id - first_id + 1 from _edgeshard_transactions")
    assert (0, True) == (hub.merge([bundle]).rows, hub.verify().ok)


def test_a_transaction_stays_whole_though_later_rows_of_its_agent_came_before_it(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    """The hub gets the last row first, from the shard, and then those before it, from the master."""
    with hub.shard("first") as shard:
        shard.write({"n": 0})
    hub.merge()
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(5))
        store.merge()
        shard.write({"n": 5})
    hub.merge([shard_path(store, "a")])
    hub.merge([store.master_path])
    assert [[5], [0], [1], [2], [3], [4]] == sql(hub.master_path, "select data ->> 'n' from agent_data")[1:]
    hub.export(tmp_path / "bundle.db")
    for path in (hub.master_path, tmp_path / "bundle.db"):
        within = "select min(_seq), max(_seq) from agent_data join _edgeshard_transactions on _id between first_id and last_id"
        assert [[1, 5]] == sql(path, within)


def test_a_bundle_has_no_free_page(bundle: Path) -> None:
    assert [[0]] == sql(bundle, "pragma freelist_count")


def test_what_a_bundle_says_to_have_held_is_what_is_in_it(store: edgeshard.Store, bundle: Path, tmp_path: Path) -> None:
    old = store.ranges()
    add(store, "a", 12)
    store.export(tmp_path / "news.db", ranges=old)
    held = "select agent_id, first, last from {} join _edgeshard_streams using(stream_no)"
    for table in ("_edgeshard_ranges", "_edgeshard_blocks"):
        assert [["a", 1, 1]] == sql(tmp_path / "news.db", held.format(table))
    known = "select agent_id, last_seq from _edgeshard_streams order by agent_id, last_seq"
    assert [["a", 1], ["a", 12], ["b", 1]] == sql(tmp_path / "news.db", known)


def test_a_bundle_lies_as_well_in_the_folder_of_the_shards(hub: edgeshard.Store, bundle: Path) -> None:
    bundle.rename(hub.root / "shards" / "bundle.db")
    assert (13, 0, 0) == (hub.merge().rows, hub.merge().rows, len(hub.merge().quarantined))
    assert [("bundle.db", 0, "")] == [(s.name, s.pending_rows, s.reason) for s in hub.status().shards]
    assert (hub.root / "shards" / "bundle.db").exists()


def test_a_bundle_is_no_master_and_no_shard_to_be_salvaged(hub: edgeshard.Store, bundle: Path) -> None:
    with pytest.raises(FormatError, match="it is a bundle; carry it here again"):
        hub.salvage(bundle)
    bundle.rename(hub.master_path)
    with pytest.raises(FormatError, match=r"Store\.merge"):
        hub.merge()
    done = command("verify", hub.root)
    assert (78, True) == (done.returncode, "it is a bundle" in done.stderr)


# -- there and back ---------------------------------------------------------------------------------------------------


def test_each_bundle_holds_only_what_the_last_receipt_lacks(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    hub_id = hub.ranges().database_id.hex()
    add(store, "a", 0, 1, 2)
    store.receipt(hub.ranges(), trust=True)
    for n, new in enumerate(([0, 1, 2], [3], [4, 5])):
        if n:
            add(store, "a", *new)
        carried = tmp_path / f"{n}.db"
        report = store.export(carried, since_hub=hub_id[:6])
        assert (len(new), new[0]) == (report.rows, report.left_out)
        assert len(new) == hub.merge([carried]).rows
        assert "next" == store.receipt(hub.ranges(), trust=True).outcome
    assert ([*range(6)], True) == (numbers(hub), hub.verify().ok)
    assert (0, 0, 6) == (lambda report: (report.rows, report.streams, report.left_out))(
        store.export(tmp_path / "none.db", since_hub=hub_id)
    )
    assert (0, True) == (hub.merge([tmp_path / "none.db"]).rows, hub.verify().ok)


@pytest.mark.slow
def test_the_same_by_the_commands_and_a_file_that_travels_the_other_way(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", 0, 1, 2)
    add(hub, "h", 7)
    ranges = command("ranges", hub.root).stdout
    assert 1 == ranges.count("\n")
    (tmp_path / "hub.json").write_text(ranges)
    done = command("export", store.root, tmp_path / "1.db", "--ranges", tmp_path / "hub.json", "--json")
    assert (0, 3, "") == (done.returncode, json.loads(done.stdout)["rows"], done.stderr)
    assert command("merge", hub.root, "--from", tmp_path / "1.db").stdout.startswith("merged 3 rows")
    done = command("receipt", store.root, "-", "--trust", input=command("ranges", hub.root, "--json").stdout)
    assert (0, "") == (done.returncode, done.stderr)
    assert "holds 3 rows of 1 stream known here; ignored 1 stream not known here" in done.stdout
    add(store, "a", 3)
    hub_id = hub.status().master.database
    assert hub_id in command("status", hub.root).stdout
    assert hub_id == json.loads(command("verify", hub.root, "--json").stdout)["database"]
    done = command("export", store.root, tmp_path / "2.db", "--since-hub", hub_id.upper())
    assert (0, True) == (done.returncode, done.stdout.startswith("exported 1 row of 1 stream"))
    done = command("export", store.root, tmp_path / "3.db", "--ranges", "-", "-q", input=ranges)
    assert (0, "", 4) == (done.returncode, done.stdout, sql(tmp_path / "3.db", "select count(*) from agent_data")[0][0])


def test_what_the_receiver_pruned_is_not_brought_again(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", 0, 1, 2, 3)
    hub.merge([store.master_path])
    assert (2, True) == (hub.prune(keep_rows=2).rows, hub.verify().ok)
    store.receipt(hub.ranges(), trust=True)
    assert 0 == store.export(tmp_path / "b.db", since_hub=hub.ranges().database_id.hex()).rows
    connection = database.open_master(store.master_path, writable=False)
    (held,) = receipts.held_elsewhere(connection, [receipts.EDGESHARD]).values()
    connection.close()
    assert [(3, 4)] == [(item.first, item.last) for item in held]


def test_an_id_of_which_there_is_no_receipt_is_refused_and_the_known_are_named(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", 0)
    with pytest.raises(ConfigurationError, match=r"there is no receipt at all; record one with Store\.receipt"):
        store.export(tmp_path / "b.db", since_hub="00112233")
    said = hub.ranges()
    store.receipt(said, trust=True)
    done = command("export", store.root, tmp_path / "b.db", "--since-hub", "xyzxyz")
    assert (78, "", True) == (done.returncode, done.stdout, said.database_id.hex() in done.stderr)
    with pytest.raises(ConfigurationError, match="at least 6 digits"):
        store.export(tmp_path / "b.db", since_hub=said.database_id.hex()[:5])
    with pytest.raises(ConfigurationError, match="exclude each other"):
        store.export(tmp_path / "b.db", since_hub=said.database_id.hex(), ranges=said)
    assert 2 == command("export", store.root, "b.db", "--since-hub", "aabbcc", "--ranges", "x").returncode
    assert ["data", "hub"] == sorted(os.listdir(tmp_path))


def test_rows_of_a_bundle_that_was_lost_are_named_until_they_come(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", 0, 1, 2)
    store.export(tmp_path / "1.db", ranges=hub.ranges())
    # whoever sends without waiting for receipts takes what is sent as received
    sent = store.ranges()
    add(store, "b", 3)
    store.export(tmp_path / "2.db", ranges=sent)
    report = hub.merge([tmp_path / "2.db"])
    (stream,) = (gap.stream for gap in report.gaps)
    assert [("a", 1, 3)] == [(gap.agent, gap.first, gap.last) for gap in report.gaps]
    status = hub.status()
    assert (report.gaps, 1, 3) == (status.gaps, status.master.gaps, status.master.missing_rows)
    named = f"3 rows missing in 1 gap: rows 1 to 3 of stream {stream} of agent 'a'"
    assert (3, True) == ((done := command("status", hub.root)).returncode, named in unwrapped(done.stdout))
    (gap,) = json.loads(command("status", hub.root, "--json").stdout)["gaps"]
    assert {"agent": "a", "stream": stream, "first": 1, "last": 3} == gap
    assert [(UNKNOWN, "")] == [(loss.cause, loss.kind) for loss in hub.verify().losses]

    hub.receipt(store.ranges(), trust=True)
    (loss,) = hub.verify().losses
    assert (PEER, store.ranges().database_id.hex(), "edgeshard") == (loss.cause, loss.database, loss.kind)
    assert f"database {loss.database} holds them" in command("verify", hub.root).stdout

    assert 3 == hub.merge([tmp_path / "1.db"]).rows
    assert ((), True, 0) == (hub.status().gaps, hub.verify().ok, command("status", hub.root).returncode)


def test_of_a_gap_each_part_says_who_has_it(store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path) -> None:
    add(store, "a", *range(10))
    old = store.ranges()
    add(store, "b", 10)
    store.export(tmp_path / "b.db", ranges=old)
    hub.merge([tmp_path / "b.db"])
    (stream,) = (bytes.fromhex(gap.stream) for gap in hub.status().gaps)
    connection = database.open_master(hub.master_path, writable=True)
    receipts.record(connection, b"p" * 16, receipts.POSTGRESQL, [(stream, [(3, 5, receipts.HELD)])])
    connection.close()
    losses = [(loss.gap.first, loss.gap.last, loss.cause, loss.kind) for loss in hub.verify().losses]
    assert [(1, 2, UNKNOWN, ""), (3, 5, PEER, "postgresql"), (6, 10, UNKNOWN, "")] == losses
    assert f"postgresql database {(b'p' * 16).hex()} holds them" in command("verify", hub.root).stdout


def test_a_terminal_is_spared_thousands_of_gaps(store: edgeshard.Store, hub: edgeshard.Store) -> None:
    for n in range(12):
        add(store, f"agent-{n:02}", n)
    hub.merge([store.master_path])
    edit(hub.master_path, "update _edgeshard_streams set last_seq = 3")
    edit(hub.master_path, "insert into _edgeshard_missing select stream_no, 2 from _edgeshard_streams")
    shown = unwrapped(command("status", hub.root).stdout)
    assert (3, True) == (shown.count("rows 2 to 3 of stream"), "12 gaps: " in shown and "; and more" in shown)
    assert 12 == len(json.loads(command("status", hub.root, "--json").stdout)["gaps"])


# -- while others work, and when it is killed -------------------------------------------------------------------------


@pytest.mark.slow
def test_merges_beside_an_export_come_with_the_next_one(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 2_000)
    add(store, "a", *range(40))
    seen: list[tuple[int, int]] = []

    def meanwhile(done: int, to_do: int) -> None:
        seen.append((done, to_do))
        add(store, "a", 1_000 + len(seen))

    report = store.export(tmp_path / "1.db", progress=meanwhile)
    assert (40, True, (40, 40)) == (report.rows, len(seen) > 3, seen[-1])
    assert 40 == hub.merge([tmp_path / "1.db"]).rows
    store.receipt(hub.ranges(), trust=True)
    assert len(seen) == store.export(tmp_path / "2.db", since_hub=hub.status().master.database).rows
    hub.merge([tmp_path / "2.db"])
    assert (numbers(store), True) == (numbers(hub), hub.verify().ok)


@pytest.fixture(params=["middle", "end"])
def stopped(
    store: edgeshard.Store, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[bytes]]:
    """An export to b.db that is paused in the middle, or with all rows copied."""
    add(store, "a", *range(200))
    with paused(store.root, "export", tmp_path / "b.db", request.param) as process:
        yield process


@pytest.mark.parametrize("old", [False, True])
def test_a_kill_leaves_no_half_bundle_and_the_next_export_removes_what_it_left(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path, stopped: subprocess.Popen[bytes], old: bool
) -> None:
    if old:
        (tmp_path / "b.db").write_text("the old one")
    stopped.kill()
    stopped.wait()
    assert old == (tmp_path / "b.db").exists()
    assert not old or "the old one" == (tmp_path / "b.db").read_text()
    left = tmp_path / "left.db"
    (unfinished,) = tmp_path.glob("b.db.edgeshard-*.new")
    os.link(unfinished, left)
    report = hub.merge([left])
    assert (0, 1) == (report.rows, len(report.quarantined))
    left.unlink()
    assert 0 == command("export", store.root, tmp_path / "b.db", "--force").returncode
    assert ["b.db", "data", "hub"] == sorted(os.listdir(tmp_path))
    assert 200 == hub.merge([tmp_path / "b.db"]).rows


def test_an_export_leaves_the_users_files_whatever_their_names(store: edgeshard.Store, tmp_path: Path) -> None:
    add(store, "a", 1)
    target = tmp_path / "b.db"
    store.export(tmp_path / "b.db.new")
    names = ("b.db.edgeshard-0123456.new", "b.db.edgeshard-01234567.new", "b.db.edgeshard-01234567.new.db")
    for name in names:
        (tmp_path / name).write_text("a letter to my mother")
    (tmp_path / "b.db.edgeshard-11111111.new").mkdir()
    (tmp_path / "b.db.edgeshard-22222222.new").symlink_to("b.db.new")
    os.mkfifo(tmp_path / "b.db.edgeshard-33333333.new")
    (tmp_path / "other.db.edgeshard-44444444.new").touch()  # of another target
    before = set(os.listdir(tmp_path))
    store.export(target)
    store.snapshot(target, force=True)
    assert before | {"b.db"} == set(os.listdir(tmp_path))
    assert {"a letter to my mother"} == {(tmp_path / name).read_text() for name in names}


def test_an_interrupt_leaves_nothing(tmp_path: Path, stopped: subprocess.Popen[bytes]) -> None:
    stopped.send_signal(signal.SIGINT)
    stopped.communicate()
    assert ["data"] == sorted(os.listdir(tmp_path))


def test_two_exports_to_one_file_do_not_meet(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path, stopped: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(StorageBusyError, match="another command is making this file"):
        store.export(tmp_path / "b.db")
    _, errors = stopped.communicate(b"\n" * 1_000)
    assert (0, b"", 200) == (stopped.returncode, errors, hub.merge([tmp_path / "b.db"]).rows)


def test_a_full_disk_exits_74_and_leaves_nothing(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path
) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n, "much": "x" * 3_000} for n in range(600))
    store.merge()
    done = command("export", store.root, small_disk / "b.db")
    assert (74, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert [] == list(small_disk.iterdir())
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert 0 == command("export", store.root, small_disk / "b.db").returncode
    assert 600 == hub.merge([small_disk / "b.db"]).rows


def test_an_existing_file_is_replaced_only_with_force(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", 0)
    (tmp_path / "b.db").write_text("precious")
    done = command("export", store.root, tmp_path / "b.db")
    assert (78, "", True) == (done.returncode, done.stdout, "--force" in done.stderr)
    assert "precious" == (tmp_path / "b.db").read_text()
    assert 0 == command("export", store.root, tmp_path / "b.db", "--force", "-q").returncode
    assert 1 == hub.merge([tmp_path / "b.db"]).rows
    for target in (store.master_path, tmp_path, tmp_path / "no" / "b.db"):
        assert 78 == command("export", store.root, target, "--force").returncode
    assert 1 == store.verify().rows


def test_a_damaged_master_is_named_and_not_the_bundle(store: edgeshard.Store, tmp_path: Path) -> None:
    add(store, "a", *range(2_000))
    with open(store.master_path, "rb+") as file:
        file.seek(-4_096 * 5, os.SEEK_END)
        file.write(b"\xff" * 4_096 * 3)
    with pytest.raises(DamagedError) as caught:
        store.export(tmp_path / "b.db")
    assert str(store.master_path) == caught.value.path
    assert ["data"] == sorted(os.listdir(tmp_path))


# -- damage -----------------------------------------------------------------------------------------------------------


def set_aside(hub: edgeshard.Store, path: Path) -> str:
    """Why the hub merges nothing of the file."""
    report = hub.merge([path])
    assert (0, 1) == (report.rows, len(report.quarantined)), report
    return report.quarantined[0].reason


@pytest.mark.slow
def test_each_bit_that_flips_is_noticed_and_nothing_is_merged(hub: edgeshard.Store, bundle: Path) -> None:
    whole = bundle.read_bytes()
    at = whole.index(bytes.fromhex(sql(bundle, "select hex(sha256) from _edgeshard_checksum")[0][0]))
    chance = random.Random(1)
    places = [*range(0, 100, 3), *range(at - 4, at + 32, 5), *(chance.randrange(len(whole)) for _ in range(150))]
    for place in [*places, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        bundle.write_bytes(damaged)
        set_aside(hub, bundle)
    assert (0, 0) == (hub.verify().streams, hub.verify().rows)
    bundle.write_bytes(whole)
    assert 13 == hub.merge([bundle]).rows


def test_a_bundle_that_was_cut_or_grew_or_was_written_to_is_set_aside(hub: edgeshard.Store, bundle: Path) -> None:
    whole = bundle.read_bytes()
    for changed in (whole[:-1], whole[: len(whole) // 2], whole + b"\0", whole + bytes(4_096)):
        bundle.write_bytes(changed)
        set_aside(hub, bundle)
    bundle.write_bytes(whole)
    sql(bundle, "update agent_data set data = '{}' where _seq = 1")
    assert "its checksum differs" in set_aside(hub, bundle)
    edit(bundle, "drop table _edgeshard_checksum")
    assert "without a checksum" in set_aside(hub, bundle)
    assert 0 == hub.verify().streams


def test_a_file_that_sqlite_would_take_for_a_part_of_a_bundle_keeps_it_from_being_merged(
    hub: edgeshard.Store, bundle: Path
) -> None:
    sql(bundle, "pragma journal_mode = wal")
    assert "its checksum differs" in set_aside(hub, bundle)
    sql(bundle, "pragma journal_mode = delete")
    Path(f"{bundle}-wal").write_bytes(b"something")
    assert "a bundle stands alone" in set_aside(hub, bundle)


def test_a_damaged_bundle_does_not_keep_others_from_being_merged(
    store: edgeshard.Store, hub: edgeshard.Store, bundle: Path
) -> None:
    damaged = bytearray(bundle.read_bytes())
    damaged[-50] ^= 1
    bundle.write_bytes(damaged)
    report = hub.merge([bundle, store.master_path])
    assert (13, [str(bundle)]) == (report.rows, [item.path for item in report.quarantined])
    other = new_store(hub.root / "other")
    (other.root / "shards" / "b.db").write_bytes(damaged)
    assert (0, 1) == ((report := other.merge()).rows, len(report.quarantined))
    assert 3 == command("merge", hub.root, "--from", bundle, "--dry-run").returncode


def test_a_bundle_is_merged_from_a_read_only_medium(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path
) -> None:
    add(store, "a", 0, 1)
    store.export(small_disk / "b.db")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert (2, ()) == ((report := hub.merge([small_disk / "b.db"])).rows, report.quarantined)


# -- WAL databases on media that cannot be written --------------------------------------------------------------------

COPYING = """
import shutil, sys, edgeshard
store = edgeshard.Store(sys.argv[1])
with store.shard("a") as shard:
    shard.write({"n": 0})
    store.merge()
    for n in range(1, 4):
        shard.write({"n": n})  # these are in the log alone
    for suffix in sys.argv[3:]:
        shutil.copy(f"{store.root}/shards/a.db{suffix.strip('.')}", f"{sys.argv[2]}/a.db{suffix.strip('.')}")
"""


def carry(store: edgeshard.Store, disk: Path, *suffixes: str) -> Path:
    """Copy files of a live shard to a medium, which then can no longer be written."""
    subprocess.run([sys.executable, "-c", COPYING, store.root, disk, ".", *suffixes], check=True)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return disk / "a.db"


@pytest.mark.parametrize("suffixes", [["-wal"], ["-wal", "-shm"]])
def test_rows_that_are_in_the_log_alone_are_read_from_a_read_only_medium(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path, suffixes: list[str]
) -> None:
    path = carry(store, small_disk, *suffixes)
    before = snapshot_of(small_disk)
    assert 3 == hub.merge([path], dry_run=True).rows
    report = hub.merge([path])
    assert (3, ()) == (report.rows, report.quarantined)
    assert [1, 2, 3] == numbers(hub)
    assert before == snapshot_of(small_disk)
    assert [] == [path.name for path in hub.root.iterdir() if path.name.startswith("edgeshard-readonly-copy-")]
    hub.merge([store.master_path])
    assert (True, [0, 1, 2, 3]) == (hub.verify().ok, numbers(hub))


@pytest.mark.parametrize("suffixes", [[], ["-shm"]])
def test_a_database_without_its_log_on_a_read_only_medium_is_refused(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path, suffixes: list[str]
) -> None:
    path = carry(store, small_disk, *suffixes)
    assert "its WAL (-wal) is not next to it" in set_aside(hub, path)
    done = command("merge", hub.root, "--from", path)
    assert (3, True) == (done.returncode, "Store.export" in done.stderr)


def test_the_same_on_a_medium_that_can_be_written_is_complete_where_its_agent_closed_it(
    store: edgeshard.Store, hub: edgeshard.Store
) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 0})
    assert not Path(f"{shard_path(store, 'a')}-wal").exists()
    assert (1, ()) == ((report := hub.merge([shard_path(store, "a")])).rows, report.quarantined)


def test_a_copy_that_finds_no_room_says_so_and_the_others_are_merged(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = carry(store, small_disk, "-wal")
    other = new_store(tmp_path / "other")
    add(other, "b", 9)
    monkeypatch.setattr(readonly_copy, "_SPARE_BYTES", 1 << 60)
    report = hub.merge([path, other.master_path])
    assert (1, True) == (report.rows, "free some space there" in report.quarantined[0].reason)
    monkeypatch.undo()
    assert 3 == hub.merge([path]).rows


def test_what_changes_while_it_is_copied_is_not_believed(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = carry(store, small_disk, "-wal")
    read_raw = sqlite.read_raw

    def changing(path: str) -> Iterator[bytes]:
        yield from read_raw(path)
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        os.utime(small_disk / "a.db-wal")
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    monkeypatch.setattr(sqlite, "read_raw", changing)
    assert "another process changed or opened it" in set_aside(hub, path)
    monkeypatch.undo()
    assert 3 == hub.merge([path]).rows


KILLED_WITH_A_COPY = """
import os, signal, sys, edgeshard
from edgeshard.sources import readonly_copy
copy = readonly_copy._copy
def killed(*arguments):
    copy(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
readonly_copy._copy = killed
edgeshard.Store(sys.argv[1]).merge([sys.argv[2]], dry_run=sys.argv[3] == "dry")
"""


def leave_a_copy(hub: edgeshard.Store, path: Path, folder: Path, kind: str = "") -> Path:
    """Kill a merge that reads a database from a copy; return the copy's folder in `folder`."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    arguments = [sys.executable, "-c", KILLED_WITH_A_COPY, str(hub.root), str(path), kind]
    assert -signal.SIGKILL == subprocess.run(arguments, check=False, env=environment).returncode
    (left,) = folder.glob("edgeshard-readonly-copy-*")
    return left


def test_a_copy_that_a_killed_merge_left_is_removed_by_the_next(
    store: edgeshard.Store, hub: edgeshard.Store, small_disk: Path
) -> None:
    path = carry(store, small_disk, "-wal")
    left = leave_a_copy(hub, path, hub.root)
    assert (True, 3) == (left.exists(), hub.merge([path]).rows)
    assert [] == list(hub.root.glob("*readonly-copy-*"))


def test_a_copy_that_a_killed_dry_run_left_in_the_folder_for_temporary_files_is_removed_by_the_next(
    store: edgeshard.Store, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = carry(store, small_disk, "-wal")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (temporary / "readonly-copy-of-my-thesis").mkdir()
    new = edgeshard.Store(tmp_path / "new")
    (new.root / "shards").mkdir(parents=True)  # with a master, the copy would be made next to it
    leave_a_copy(new, path, temporary, "dry")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert 3 == new.merge([path], dry_run=True).rows
    assert ["readonly-copy-of-my-thesis"] == os.listdir(temporary)
