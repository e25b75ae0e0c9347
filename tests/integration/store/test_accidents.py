"""What happens to stores by mistake, and which guarantee still holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import AccessError, ShardPoisonedError
from edgeshard.files import folders, scan
from edgeshard.shard import handle
from tests.support.processes import merge_command, python
from tests.support.stores import new_store, numbers

YEAR_S = 365 * 86_400.0

#: A program that opens and closes a live shard by another SQLite library. It does so in the writer's own process.
_STDLIB = """
import sqlite3, subprocess, sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
with store.shard("agent") as shard:
    for n in range(400):
        shard.write({"n": n, "much": "x" * 500})
    reader = sqlite3.connect(shard.path)
    assert reader.execute("select count(*) from agent_data").fetchone() == (400,)
    reader.close()
    for n in range(400, 405):
        shard.write({"n": n})
    if sys.argv[2] == "merged":
        subprocess.run([sys.executable, "-m", "edgeshard.merge", sys.argv[1], "-q"], check=True)
    try:
        shard.sync()
    except edgeshard.errors.ShardPoisonedError:
        print("noticed")
"""


#: The same in the middle of a transaction, while another process has the shard open: the log stays, the locks go. It is
#: so long that the merge checkpoints it, and begins it again, so that the writer's commit goes where nobody looks.
_STDLIB_IN_A_TRANSACTION = """
import sqlite3, subprocess, sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
shard = store.shard("agent")
shard.write({"n": 0, "much": "x" * 3_000})
shard.write_many({"n": n, "much": "x" * 3_000} for n in range(1, 400))
reads = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('select 1 from agent_data').fetchall()"
reads += "; print(flush=True); sys.stdin.read()"
reader = subprocess.Popen(
    [sys.executable, "-c", reads, shard.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
reader.stdout.readline()
with shard.transaction():
    for n in range(400, 450):
        shard.write({"n": n, "much": "x" * 3_000})
    other = sqlite3.connect(shard.path)
    other.execute("select 1 from agent_data").fetchall()
    other.close()
    subprocess.run([sys.executable, "-m", "edgeshard.merge", sys.argv[1], "-q"], check=True)
for use in (shard.sync, lambda: shard.write({"n": 1}), shard.close):
    try:
        use()
    except edgeshard.errors.ShardPoisonedError as error:
        print("missing from it" in str(error))
reader.communicate()
"""


# -- other programs, and locks that are lost --------------------------------------------------------------------------


def test_what_was_written_before_another_library_closed_the_shard_is_merged_once_and_what_after_is_not_praised(
    store: edgeshard.Store,
) -> None:
    done = python(_STDLIB, store.root, "merged")
    assert (0, "noticed") == (done.returncode, done.stdout.strip()), done.stderr
    with store.shard("agent") as shard:  # the file is whole
        shard.write({"n": 1000})
    store.merge()
    found = numbers(store)
    assert [*range(400), 1000] == [n for n in found if n not in range(400, 405)]
    assert len(found) == len(set(found))
    assert store.verify().ok


def test_where_nobody_came_meanwhile_even_that_is_kept(store: edgeshard.Store) -> None:
    done = python(_STDLIB, store.root, "not merged")
    assert (0, "noticed") == (done.returncode, done.stdout.strip()), done.stderr
    store.merge()
    assert [*range(405)] == numbers(store)


def test_rows_that_were_overwritten_because_another_library_dropped_the_locks_are_missed_aloud(
    store: edgeshard.Store,
) -> None:
    done = python(_STDLIB_IN_A_TRANSACTION, store.root)
    assert (0, ["True", "True"]) == (done.returncode, done.stdout.split()), done.stderr
    with store.shard("agent") as shard:
        shard.write({"n": 1000})
    store.merge()
    found = numbers(store)
    assert [*range(400), 1000] == [n for n in found if not 400 <= n < 450]
    assert len(found) == len(set(found))
    assert store.verify().ok


def test_a_handle_whose_log_was_unlinked_says_so_when_it_is_closed(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    os.unlink(shard.path + "-wal")
    shard.write({"n": 2})
    with pytest.raises(ShardPoisonedError, match=r"close shard .* old files"):
        shard.close()
    shard.close()
    with store.shard("agent") as again:  # the lock was given back
        again.write({"n": 3})
    store.merge()
    assert [1, 2, 3] == numbers(store)  # the last to close copied the log, although it had no name


def test_a_sync_of_rows_in_a_log_without_a_name_is_refused(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    os.unlink(shard.path + "-wal")
    with pytest.raises(ShardPoisonedError):
        shard.sync()
    shard.close()


def test_two_handles_whose_lock_file_was_deleted_lose_and_double_nothing(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "UPKEEP_INTERVAL_S", YEAR_S)  # the first handle does not notice it
    code = """
import sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
with store.shard("agent") as shard:
    for n in range(100, 150):
        shard.write({"n": n})
        print(n, flush=True)
        sys.stdin.readline()
"""
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        os.unlink(store.root / "shards" / "agent.lock")
        other = subprocess.Popen(
            [sys.executable, "-c", code, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdin is not None
        assert other.stdout is not None
        for n in range(1, 51):
            other.stdout.readline()
            shard.write({"n": n})
            if n == 25:
                assert 0 == merge_command(store.root).returncode
            other.stdin.write("\n")
            other.stdin.flush()
        assert 0 == other.wait()
        other.stdin.close()
        other.stdout.close()
    store.merge()
    assert [*range(51), *range(100, 150)] == numbers(store)
    assert store.verify().ok


def test_a_live_shard_whose_lock_file_was_deleted_is_not_removed(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        os.unlink(store.root / "shards" / "agent.lock")
        for n in range(2, 5):
            assert 0 == merge_command(store.root).returncode
            shard.write({"n": n})
            shard.sync()  # asks whether its files are in place
    store.merge()
    assert [1, 2, 3, 4] == numbers(store)


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
def test_no_row_hides_behind_a_clock_that_jumps(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real, real_ns = time.time, time.time_ns
    with store.shard("agent") as shard:
        for n in range(6):
            with monkeypatch.context() as patch:
                if n % 2:
                    patch.setattr(time, "time", lambda: real() + jump_s)
                    patch.setattr(time, "time_ns", lambda: real_ns() + int(jump_s * 1e9))
                shard.write({"n": n})
                assert 1 == store.merge().rows
    assert [*range(6)] == numbers(store)


@pytest.mark.parametrize("jump_s", [-YEAR_S, YEAR_S])
def test_no_row_hides_behind_the_time_of_a_file(store: edgeshard.Store, jump_s: float) -> None:
    """The clock jumps when the shard was found without news, and files get the times of the other year."""

    def jump(path: str) -> None:
        times = time.time() + jump_s
        for name in (path, path + "-wal"):
            os.utime(name, (times, times))

    with store.shard("agent") as shard:
        for n in range(4):
            shard.write({"n": n})
            jump(shard.path)
            assert 1 == store.merge().rows
            jump(shard.path)
            assert 0 == store.merge().rows
    assert [*range(4)] == numbers(store)


def test_a_row_in_a_log_of_the_same_size_is_found_whatever_the_jump(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the log's time tells that it was written anew from its beginning: one of a year ago is news as well."""
    monkeypatch.setattr(scan, "FRESH_S", -2 * YEAR_S)  # what was seen is relied on at once
    with store.shard("agent") as shard:
        shard.write_many([{"n": n, "much": "x" * 900} for n in range(200)])
        store.merge()
        for n in range(200, 203):
            shard.write({"n": n})
            before = os.stat(shard.path + "-wal")
            os.utime(shard.path + "-wal", ns=(before.st_atime_ns, before.st_mtime_ns - int(YEAR_S * 1e9)))
            assert before.st_size == os.stat(shard.path + "-wal").st_size
            assert 1 == store.merge().rows
    assert [*range(203)] == numbers(store)


# -- copies and moves -------------------------------------------------------------------------------------------------


def test_two_stores_copied_from_one_meet_in_a_hub_without_loss_or_doubles(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("merged") as shard:
        shard.write_many({"n": n} for n in range(5))
    store.merge(keep_empty=True)
    with store.shard("waiting") as shard:
        shard.write_many({"n": n} for n in range(5, 10))
    with store.shard("open") as shard:  # copied while it is written
        shard.write({"n": 10})
        subprocess.run(["cp", "-a", store.root, tmp_path / "copy"], check=True)
        shard.write({"n": 11})
    copy = edgeshard.Store(tmp_path / "copy")
    for number, each in enumerate((store, copy)):
        for agent in ("merged", "waiting", "open", "new"):
            with each.shard(agent) as shard:
                shard.write({"n": 100 * (number + 1) + len(agent)})
    store.merge()
    copy.merge(keep_empty=True)
    hub = new_store(tmp_path / "hub")
    shards = sorted((copy.root / "shards").glob("*.db"))
    for sources in ([store.master_path], [copy.master_path], [copy.master_path, store.master_path, *shards]):
        assert () == hub.merge(sources).quarantined
    expected = [*range(12), *(100 * number + length for number in (1, 2) for length in (3, 4, 6, 7))]
    assert expected == numbers(hub)
    assert hub.verify().ok


def test_rows_written_to_a_store_that_was_moved_away_are_in_the_store_that_was_moved(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    store.root.rename(tmp_path / "moved")
    moved = edgeshard.Store(tmp_path / "moved")
    shard.write({"n": 2})
    assert 2 == moved.merge().rows
    shard.write({"n": 3})
    with pytest.raises(ShardPoisonedError, match="moved"):
        shard.sync()
    shard.close()
    with store.shard("agent") as again:  # another store, where the first one was
        again.write({"n": 4})
    moved.merge()
    assert [1, 2, 3] == numbers(moved)
    store.merge()
    assert [4] == numbers(store)


def test_the_handle_of_a_moved_store_does_not_delete_the_log_of_the_store_that_took_its_place(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    store.root.rename(tmp_path / "moved")
    with store.shard("agent") as again:
        again.write({"n": 2})
        with pytest.raises(ShardPoisonedError):
            shard.close()
        again.write({"n": 3})
        again.sync()  # its log has its name
    store.merge()
    assert [2, 3] == numbers(store)


@pytest.mark.parametrize(("kind", "warned"), [("nfs4", 1), ("fuse.sshfs", 1), ("9p", 1), ("ext4", 0), ("fuseblk", 0)])
def test_a_store_on_a_network_file_system_warns_once(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    kind: str, warned: int
) -> None:  # fmt: skip
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"27 1 {os.major(device)}:{os.minor(device)} / /mnt/far rw,relatime shared:1 - {kind} host:/export rw\n"
    )
    monkeypatch.setattr(folders, "_MOUNTS", table)
    folders._warn_if_remote.cache_clear()
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    folders._warn_if_remote.cache_clear()
    assert [f"/mnt/far is a file system of type {kind}"] * warned == [
        record.getMessage().partition(":")[0] for record in caplog.records
    ]


def test_a_system_that_names_no_mounts_warns_of_nothing(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folders, "_MOUNTS", tmp_path / "nothing")
    folders._warn_if_remote.cache_clear()
    store.init()
    folders._warn_if_remote.cache_clear()
    assert [] == caplog.records


# -- media ------------------------------------------------------------------------------------------------------------


def test_a_store_on_a_read_only_medium_says_so(small_disk: Path) -> None:
    store = edgeshard.Store(small_disk / "data")
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge(keep_empty=True)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    uses: list[Callable[[], object]] = [
        lambda: store.shard("agent"),
        lambda: store.shard("another"),
        lambda: store.merge(),
        lambda: edgeshard.Store(small_disk / "new").init(),
    ]
    for use in uses:
        with pytest.raises(AccessError, match="read-only"):
            use()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert [1] == numbers(store)
