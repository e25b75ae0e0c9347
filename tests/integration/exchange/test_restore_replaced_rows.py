"""A master that is put back is told what the replaced one held: no row is missing silently, and none is named wrongly."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import apsw
import attrs
import pytest

import edgeshard
from edgeshard.reports import OLDER_MASTER, REPLACED, Gap
from tests.support.damaged_masters import damage
from tests.support.processes import command
from tests.support.stores import new_store, numbers, shard_path


@edgeshard.table(key="place")
@attrs.frozen
class Level:
    """The newest level of a tank."""

    place: str
    value: int


def seqs(gaps: Iterable[Gap]) -> list[tuple[str, int, int]]:
    return [(gap.agent, gap.first, gap.last) for gap in gaps]


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in ns)


def copy_shard(store: edgeshard.Store, to: Path) -> None:
    source, target = apsw.Connection(str(shard_path(store, "a"))), apsw.Connection(str(to))
    with target.backup("main", source, "main") as backup:
        backup.step()
    source.close()
    target.close()


def remove_shard(store: edgeshard.Store, away: Path | None = None) -> None:
    """Delete the shard of agent a, or move it away."""
    for path in store.root.joinpath("shards").glob("a.db*"):
        if away is None:
            path.unlink()
        else:
            away.mkdir(exist_ok=True)
            shutil.move(path, away)


#: What happened to the shard with the rows 2 and 3, and which of them a merge then brings.
FATES = {
    "moved away": [],
    "deleted": [],
    "older copy put back": [2],
    "copy put back from before the merge": [2, 3],
    "removed by a merge": [],
    "still there": [],
}


def history(store: edgeshard.Store, tmp_path: Path, fate: str) -> Path:
    """Merge the row 1, take the snapshot that is returned, merge the rows 2 and 3; then something happens."""
    with store.shard("a") as shard:
        shard.write({"n": 1})
        store.merge()
        store.snapshot(tmp_path / "older.db")
        shard.write({"n": 2})
        copy_shard(store, tmp_path / "copy of 2.db")
        shard.write({"n": 3})
        copy_shard(store, tmp_path / "copy of 3.db")
        store.merge()
    match fate:
        case "moved away":
            remove_shard(store, tmp_path / "away")
            store.merge()
        case "deleted":
            remove_shard(store)
        case "older copy put back":
            remove_shard(store)
            shutil.copyfile(tmp_path / "copy of 2.db", shard_path(store, "a"))
        case "copy put back from before the merge":
            remove_shard(store)
            shutil.copyfile(tmp_path / "copy of 3.db", shard_path(store, "a"))
        case "removed by a merge":
            assert 1 == store.merge().removed
    return tmp_path / "older.db"


@pytest.mark.parametrize("fate", FATES)
def test_each_row_that_is_missing_is_named_whatever_happened_to_the_shard(
    store: edgeshard.Store, tmp_path: Path, fate: str
) -> None:
    snapshot = history(store, tmp_path, fate)
    coming = FATES[fate]
    missing = [("a", len(coming) + 2, 3)] if len(coming) < 2 else []
    assert missing == seqs(store.restore(snapshot, dry_run=True).gaps)
    assert [1, 2, 3] == numbers(store)
    report = store.restore(snapshot)
    assert (missing, not missing, "") == (seqs(report.gaps), report.complete, report.unnamed)
    assert {REPLACED} >= {loss.cause for loss in report.losses}
    verified, status = store.verify(deep=True), store.status()
    assert (missing, missing) == (seqs(verified.gaps), seqs(status.gaps))
    assert {OLDER_MASTER} >= {loss.cause for loss in verified.losses}
    assert missing == seqs(store.merge(dry_run=True).gaps)
    merged = store.merge()
    assert (missing, not missing, [1, *coming]) == (seqs(merged.gaps), merged.complete, numbers(store))
    assert (missing, ()) == (seqs(store.verify(deep=True).gaps), verified.errors)
    assert store.merge([report.replaced]).complete
    assert (True, [1, 2, 3]) == (store.verify(deep=True).ok, numbers(store))


@pytest.mark.parametrize("fate", FATES)
def test_the_order_of_the_merges_does_not_matter(store: edgeshard.Store, tmp_path: Path, fate: str) -> None:
    report = store.restore(history(store, tmp_path, fate))
    assert store.merge([report.replaced]).complete
    assert (True, [1, 2, 3]) == (store.verify(deep=True).ok, numbers(store))


def test_rows_that_came_to_a_hub_in_bundles_are_named(tmp_path: Path) -> None:
    device, hub = new_store(tmp_path / "device"), new_store(tmp_path / "hub")
    for number, ns in enumerate(((1,), (2, 3))):
        write(device, "a", *ns)
        device.merge()
        device.export(tmp_path / f"{number}.db")
        hub.merge([tmp_path / f"{number}.db"])
        if not number:
            hub.snapshot(tmp_path / "older.db")
    report = hub.restore(tmp_path / "older.db")
    assert ([("a", 1, 2)], [("a", 1, 2)]) == (seqs(report.gaps), seqs(hub.merge().gaps))
    assert 3 == command("verify", hub.root).returncode
    hub.merge([tmp_path / "1.db"])
    assert (True, [1, 2, 3]) == (hub.verify(deep=True).ok, numbers(hub))


def test_a_salvaged_shard_that_was_moved_away_is_named_and_an_accepted_loss_stays_accepted(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    hub = new_store(tmp_path / "hub")
    snapshot = history(store, tmp_path, "moved away")
    with store.shard("b") as shard:
        shard.write_many({"n": n} for n in range(10, 14))
    store.merge()
    hub.merge([store.master_path])
    # a master that lacks rows whose loss is accepted: it knows of them from the removed shard
    store.restore(snapshot)
    store.merge()
    assert 6 == sum(len(gap) for gap in store.accept_loss(why="card broke").gaps)
    report = store.restore(snapshot)
    assert ((), True) == (report.gaps, report.complete)
    assert 6 == store.verify(deep=True).states.written_off
    # rows that arrive all the same are no longer accepted as lost, and are missing after the next restore
    store.merge([hub.master_path])
    store.snapshot(tmp_path / "newer.db")
    report = store.restore(snapshot)
    assert [("a", 2, 3), ("b", 1, 4)] == seqs(report.gaps)
    assert store.restore(tmp_path / "newer.db").complete, "a newer snapshot lacks nothing"
    assert (True, 7) == (store.verify(deep=True).ok, len(numbers(store)))


def test_a_loss_that_the_snapshot_accepted_is_missing_again_if_the_rows_had_come(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    first = store.restore(history(store, tmp_path, "removed by a merge"))
    store.accept_loss(why="card broke")
    store.snapshot(tmp_path / "accepted.db")
    store.merge([first.replaced])
    assert [1, 2, 3] == numbers(store)
    assert [("a", 2, 3)] == seqs(store.restore(tmp_path / "accepted.db").gaps)
    assert [("a", 2, 3)] == seqs(store.verify(deep=True).gaps)


@pytest.mark.parametrize("fate", ["moved away", "removed by a merge"])
@pytest.mark.parametrize("is_retired", [False, True])
def test_rows_that_were_pruned_since_are_not_missing(
    store: edgeshard.Store, tmp_path: Path, fate: str, is_retired: bool
) -> None:
    snapshot = history(store, tmp_path, fate)
    if is_retired:  # a stream with the highest number does not retire
        write(store, "z", 9)
        store.merge()
        store.merge()
        remove_shard(store)
    store.prune(keep_rows=1)
    left = numbers(store)
    report = store.restore(snapshot)
    named = [("z", 1, 1)] if is_retired else [("a", 3, 3)]
    assert named == seqs(report.gaps), left
    assert named == seqs(store.verify(deep=True).gaps)
    store.merge([report.replaced])
    assert (True, (), {1, *left}) == (store.verify(deep=True).ok, store.merge().gaps, {1, *numbers(store)})


def test_rows_that_were_erased_since_are_not_missing_and_those_deleted_by_hand_are(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    snapshot = history(store, tmp_path, "moved away")
    assert 1 == store.erase("agent_data", "data->>'n' = 2").rows
    connection = apsw.Connection(str(store.master_path))
    connection.execute("DELETE FROM agent_data WHERE data->>'n' = 3")
    connection.close()
    store.merge()
    assert [("a", 3, 3)] == seqs(store.verify().by_hand)
    report = store.restore(snapshot)
    assert ([("a", 3, 3)], 1) == (seqs(report.gaps), store.verify(deep=True).states.erased)
    store.merge([report.replaced])
    assert ((), ()) == ((found := store.verify(deep=True)).gaps, found.errors)


def test_superseded_rows_close_with_the_replaced_master(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "z", 1)
    store.merge()
    store.snapshot(tmp_path / "older.db")
    with store.shard("a") as shard:
        for value in range(3):
            shard.write(Level("tank", value))
        store.merge()
    remove_shard(store)
    report = store.restore(tmp_path / "older.db")
    assert [("a", 1, 3)] == seqs(report.gaps)
    store.merge([report.replaced])
    assert (True, [2]) == (store.verify(deep=True).ok, [level.value for level in store.read(Level)])


def test_what_a_restored_master_was_told_is_told_to_the_next_one(store: edgeshard.Store, tmp_path: Path) -> None:
    snapshot = history(store, tmp_path, "deleted")
    first = store.restore(snapshot)
    write(store, "b", 4)
    store.merge()
    remove_shard(store)
    second = store.restore(snapshot)
    assert [("a", 2, 3), ("b", 1, 1)] == seqs(second.gaps)
    assert {("a", OLDER_MASTER), ("b", REPLACED)} == {(loss.gap.agent, loss.cause) for loss in second.losses}
    store.merge([second.replaced])
    assert store.merge([first.replaced]).complete
    assert (True, [1, 2, 3, 4]) == (store.verify(deep=True).ok, numbers(store))


def test_a_damaged_master_cannot_tell_and_the_report_says_so(store: edgeshard.Store, tmp_path: Path) -> None:
    snapshot = history(store, tmp_path, "deleted")
    store.master_path.write_bytes(b"z" * 8192)
    for dry_run in (True, False):
        report = store.restore(snapshot, dry_run=dry_run)
        assert ((), False) == (report.gaps, report.complete)
        assert "the replaced master cannot be read" in report.unnamed
    assert [1] == numbers(store)


def test_a_master_that_is_gone_cannot_tell_and_the_command_says_so(store: edgeshard.Store, tmp_path: Path) -> None:
    snapshot = history(store, tmp_path, "deleted")
    for path in store.root.glob("master.db*"):
        path.unlink()
    done = command("restore", store.root, snapshot)
    assert (0, True) == (done.returncode, "there was no master to compare with" in done.stdout)


def test_a_master_that_is_damaged_in_part_is_told_of_what_can_be_read(store: edgeshard.Store, tmp_path: Path) -> None:
    snapshot = history(store, tmp_path, "deleted")
    damage(store, "row")
    assert [("a", 2, 3)] == seqs(store.restore(snapshot).gaps)
