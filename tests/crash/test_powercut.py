"""Play a short form of the campaign `powercut`, and test its disk and its oracle."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path

import apsw
import attrs
import pytest

import edgeshard
from tests.crash.powercut.command import campaign
from tests.crash.powercut.contents import Found, ViolationError, look, record_of
from tests.crash.powercut.disk import Crash, Disk, Folder, Inode
from tests.crash.powercut.oracle import Oracle
from tests.crash.powercut.trials import Tally, play, play_one, playground
from tests.support.forms import short_and_full


@pytest.mark.parametrize("trials", short_and_full(20, 120))
def test_no_promise_is_broken_by_chains_of_power_cuts_torn_writes_and_kills(trials: int) -> None:
    code, output = campaign("--trials", trials, "--seed", 21)
    counts = {name: int(count.replace(",", "")) for count, name in re.findall(r"^ +([0-9,]+)  (.+)$", output, re.M)}
    assert (0, trials, 0) == (code, counts["trials"], counts["violations"]), output
    for what in ("kill", "power", "torn"):
        assert counts[f"cuts: {what}"] > 100 * trials // 120
    for name in ("rows acknowledged at power", "rows acknowledged at process", "rows reported as merged"):
        assert counts[name] > 1_000 * trials // 120
    assert counts["changes of a key"] > 50 * trials // 120
    for name in ("actors killed alone", "shards removed", "masters restored", "snapshots"):
        assert counts[name] > 0


def test_a_seed_replays_exactly() -> None:
    with playground() as folder:
        play_one(folder, "1-3")  # what a process does once, such as describing our own tables, draws random numbers
        first, second, other = (play_one(folder, seed).log for seed in ("1-3", "1-3", "1-4"))
    assert len(first) > 300
    assert first == second
    assert first != other


@pytest.mark.slow
def test_a_seed_replays_exactly_in_another_process() -> None:
    one, other = (campaign("--seed", 77, "--only", 5) for _ in range(2))
    assert one == other
    assert (0, True) == (one[0], "no violation" in one[1])


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole = play(4, seed=3)
    play(2, seed=3).save(tmp_path / "state", seed=3)
    resumed = play(4, seed=3, tally=Tally.load(tmp_path / "state", seed=3))
    assert whole == resumed
    with pytest.raises(ValueError, match="seed 3, not 4"):
        Tally.load(tmp_path / "state", seed=4)


# -- the disk ---------------------------------------------------------------------------------------------------------


def file_of(disk: Disk, name: str, *, durable: bytes) -> Inode:
    """Create a file whose name and bytes are durable."""
    inode = disk.new_file()
    inode.durable[:] = durable
    disk.root.change(((name, inode),))
    disk.root.sync()
    return inode


def left(disk: Disk, crash: Crash, seed: int) -> dict[str, bytes]:
    """Return what a crash leaves."""
    disk.crash(crash, random.Random(seed))
    return {path: inode.content() for path, inode in disk.files()}


def test_a_kill_takes_nothing_and_makes_nothing_durable() -> None:
    disk = Disk()
    inode = file_of(disk, "a", durable=b"old")
    inode.unsynced.append((1, b"NEW"))
    disk.root.change((("b", disk.new_file()),))
    assert {"a": b"oNEW", "b": b""} == left(disk, Crash.KILL, 0)
    assert b"old" == inode.durable
    assert ["a"] == list(disk.root.durable)


@pytest.mark.parametrize("crash", [Crash.POWER, Crash.TORN])
def test_a_power_cut_takes_any_part_of_what_was_not_synced_and_nothing_else(crash: Crash) -> None:
    found = set()
    for seed in range(200):
        disk = Disk()
        inode = file_of(disk, "a", durable=b"1234")
        inode.unsynced += [(0, b"5"), (3, b"6")]
        found.add(left(disk, crash, seed)["a"])
    whole = {b"1234", b"5234", b"1236", b"5236"}
    assert whole <= found
    assert all(content[1:3] == b"23" and len(content) == 4 for content in found)
    assert (found == whole) == (crash is Crash.POWER)  # torn: garbage as well


def test_a_torn_write_is_torn_at_sectors_of_the_file() -> None:
    changed = set()
    for seed in range(200):
        disk = Disk()
        file_of(disk, "a", durable=bytes(2000)).unsynced.append((500, b"x" * 1000))
        content = left(disk, Crash.TORN, seed)["a"]
        assert bytes(500) == content[:500]
        assert bytes(500) == content[1500:]
        changed.add(
            tuple(content[start:end] == b"x" * (end - start) for start, end in ((500, 512), (512, 1024), (1024, 1500)))
        )
    assert 8 == len(changed)


def test_a_synced_file_survives_and_its_name_does_not_unless_the_folder_is_synced_too() -> None:
    found = set()
    for seed in range(50):
        disk = Disk()
        inode = disk.new_file()
        inode.unsynced.append((0, b"data"))
        disk.root.change((("a", inode),))
        inode.sync()
        found.add(left(disk, Crash.POWER, seed).get("a"))
    assert {None, b"data"} == found


def test_a_file_that_replaces_another_leaves_one_of_both_after_a_power_cut() -> None:
    found = set()
    for seed in range(50):
        disk = Disk()
        file_of(disk, "a", durable=b"old")
        made = file_of(disk, "b", durable=b"new")
        disk.root.change((("a", made), ("b", None)))
        found.add(tuple(sorted(left(disk, Crash.POWER, seed).items())))
    assert {(("a", b"old"), ("b", b"new")), (("a", b"new"),)} == found


def test_names_are_lost_in_any_order_but_those_of_one_name_in_their_own() -> None:
    found = set()
    for seed in range(300):
        disk = Disk()
        for name in ("a", "b"):
            file_of(disk, name, durable=b"old")
        for name in ("a", "b"):
            disk.root.change(((name, None),))
        newer = disk.new_file()
        newer.durable[:] = b"new"
        disk.root.change((("a", newer),))
        names = left(disk, Crash.POWER, seed)
        found.add((names.get("a"), names.get("b")))
    assert {(a, b) for a in (b"old", None, b"new") for b in (b"old", None)} == found


def test_a_folder_that_is_lost_takes_what_is_in_it() -> None:
    disk = Disk()
    folder = disk.new_folder()
    disk.root.change((("data", folder),))
    folder.change((("a", disk.new_file()),))
    folder.sync()
    disk.root.unsynced.clear()  # as if the disk never wrote it
    assert {} == left(disk, Crash.POWER, 0)
    assert isinstance(folder, Folder)


# -- the oracle -------------------------------------------------------------------------------------------------------

HARM = {
    "nothing": ("SELECT 1", ""),
    "a row that is lost": ("DELETE FROM sample WHERE n = 3", "is in the master in part only"),
    "a transaction that is lost": ("DELETE FROM agent_data WHERE data ->> 'n' = 4", "is lost"),
    "a row that is doubled": (
        "INSERT INTO sample(_id, _stream, _seq, n, text) SELECT 99, _stream, 99, n, text FROM sample WHERE n = 3",
        "is in master.db twice",
    ),
    "a row that is altered": ("UPDATE sample SET text = text || '?' WHERE n = 3", "was altered"),
    "a row with another's address": ("UPDATE sample SET _seq = 2 WHERE n = 3", "have the address"),
    "a row with a new address": ("UPDATE sample SET _seq = 9 WHERE n = 6", "has another address"),
    "a row that was pruned and is there": (
        "INSERT INTO _edgeshard_pruned_ranges SELECT 1, database_id, 1, 4, 4, '', '' FROM _edgeshard_database",
        r"was pruned, and \[4\] are there",
    ),
    "a row that was never written": (
        "INSERT INTO sample(_id, _stream, _seq, n, text) SELECT 99, _stream, 99, 99, 'row 99 ' FROM sample LIMIT 1",
        "was never written",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_the_oracle_finds(harm: str, store: edgeshard.Store) -> None:
    statement, complaint = HARM[harm]
    oracle = Oracle()
    with store.shard("agent") as shard:
        for size in (3, 1, 2):
            unit = oracle.begin("agent", size)
            shard.write_many(map(record_of, unit.numbers))
            oracle.acknowledge(unit, shard.stream, unit.numbers[0], durable=True)
    store.merge()
    connection = apsw.Connection(str(store.master_path))
    connection.execute(statement).fetchall()
    connection.close()
    expected = pytest.raises(ViolationError, match=complaint) if complaint else contextlib.nullcontext()
    with expected:
        oracle.judge(look(store.root), Crash.POWER)


def test_the_oracle_takes_what_was_pruned_for_held_while_the_master_says_so(store: edgeshard.Store) -> None:
    oracle = Oracle()
    with store.shard("agent") as shard:
        for number in (1, 2):
            unit = oracle.begin("agent", 1)
            shard.write(record_of(number))
            oracle.acknowledge(unit, shard.stream, number, durable=True)
    store.merge()
    store.prune(keep_rows=1)
    found = look(store.root)
    oracle.prune(found.pruned)
    oracle.judge(found, Crash.POWER)
    assert ({1, 2}, 1, "rows pruned") == (set(oracle.held(found)), len(found.pruned), list(oracle.counts)[-1])
    with pytest.raises(ViolationError, match="was pruned, and the master does not say so"):
        oracle.judge(attrs.evolve(found, pruned=frozenset()), Crash.KILL)
    with pytest.raises(ViolationError, match=r"was pruned, and \[1\] are there"):
        oracle.judge(attrs.evolve(found, master=oracle.held(found)), Crash.KILL)


def test_the_oracle_forgives_a_power_cut_what_was_acknowledged_at_process_and_a_kill_nothing(
    store: edgeshard.Store,
) -> None:
    oracle = Oracle()
    for durable in (False, True):
        unit = oracle.begin("agent", 1)
        oracle.acknowledge(unit, "00", unit.numbers[0], durable=False)
        if durable:
            oracle.report(unit.numbers)
    with store.shard("agent") as shard:
        shard.write(record_of(1))
    with pytest.raises(ViolationError, match=r"rows 1 to 1 .* has another address"):
        oracle.judge(look(store.root), Crash.KILL)
    empty = Found(None, {}, frozenset())
    with pytest.raises(ViolationError, match=r"rows 1 to 1 .* is lost"):
        oracle.judge(empty, Crash.KILL)
    with pytest.raises(ViolationError, match=r"rows 2 to 2 .* is lost"):
        oracle.judge(empty, Crash.POWER)


def test_the_oracle_wants_a_note_in_a_shard_of_what_it_had_and_not_of_what_a_power_cut_took_from_it() -> None:
    for is_in_shard in (True, False):
        oracle = Oracle()
        unit = oracle.begin("agent", 1)
        oracle.acknowledge(unit, "00", 1, durable=False)
        row = {1: ("00", 1)}
        oracle.judge(Found(row, row if is_in_shard else {}, frozenset()), Crash.POWER)
        oracle.sync("agent")
        nothing = Found({}, {}, frozenset())
        expected = pytest.raises(ViolationError, match="nothing says so") if is_in_shard else contextlib.nullcontext()
        with expected:
            oracle.restored(nothing)
