"""A real disk that is really full: a small tmpfs."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import DiskFullError
from tests.support.stores import numbers


def fill(shard: edgeshard.Shard, start: int) -> list[int]:
    """Write until the disk is full; the numbers that were acknowledged."""
    acknowledged: list[int] = []
    for n in range(start, start + 10_000):
        try:
            shard.write({"n": n, "much": "x" * (3_000 if n % 2 else 10)})
        except DiskFullError:
            return acknowledged
        acknowledged.append(n)
    raise AssertionError("the disk did not fill")


def test_rows_of_a_full_disk_are_merged_and_deleted_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    store = edgeshard.Store(tmp_path / "data")
    store.root.mkdir()
    (store.root / "shards").symlink_to(small_disk)
    with store.shard("agent") as shard:
        acknowledged = fill(shard, 0)
        # a deletion is a write, too: it needs room in the log
        report = store.merge()
        assert (len(acknowledged), 0) == (report.rows, report.truncated)
        assert "merged, but cannot be deleted" in report.quarantined[0].reason
        subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
        report = store.merge()
        assert (0, len(acknowledged), ()) == (report.rows, report.truncated, report.quarantined)
        acknowledged += fill(shard, 10_000)
        assert store.merge().rows > 0
    assert acknowledged == numbers(store)
    assert store.verify().ok


def test_a_master_on_a_full_disk_fails_clearly_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    store = edgeshard.Store(small_disk / "data")
    with store.shard("agent") as shard:
        acknowledged = fill(shard, 0)
        with pytest.raises(DiskFullError):
            store.merge()
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        assert len(acknowledged) == store.merge().rows
        shard.write({"n": 20_000})
    store.merge()
    assert [*acknowledged, 20_000] == numbers(store)
    assert store.verify().ok


def test_a_master_without_room_takes_nothing_from_shards_on_another_disk(tmp_path: Path, small_disk: Path) -> None:
    store = edgeshard.Store(small_disk / "data")
    store.root.mkdir()
    (tmp_path / "shards").mkdir()
    (store.root / "shards").symlink_to(tmp_path / "shards")
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        store.merge()
        shard.write_many({"n": n, "much": "x" * 3_000} for n in range(1, 1_001))
        for _ in range(2):
            with pytest.raises(DiskFullError):
                store.merge()
        shard.write({"n": 1_001})  # its own disk has room
        assert [0] == numbers(store)
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        assert (1_001, ()) == (store.merge().rows, store.merge().quarantined)
    assert [*range(1_002)] == numbers(store)
    assert store.verify().ok


def test_a_watcher_on_a_full_disk_goes_on_once_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = edgeshard.Store(small_disk / "data")
    acknowledged = []
    with store.watching(interval=0.02, rescan=0.1), store.shard("agent") as shard:
        acknowledged += fill(shard, 0)
        _await_log(caplog, "the disk is full")
        with pytest.raises(DiskFullError):
            shard.write({"n": -1, "much": "x" * 100_000})
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        shard.write({"n": 20_000})
        deadline = time.monotonic() + 60
        while 20_000 not in numbers(store):
            assert time.monotonic() < deadline, "the watcher did not go on"
            time.sleep(0.05)
    assert [*acknowledged, 20_000] == numbers(store)
    assert store.verify().ok


def _await_log(caplog: pytest.LogCaptureFixture, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in caplog.text:
        assert time.monotonic() < deadline, f"nothing was said of {words!r}"
        time.sleep(0.01)
