"""Flash: what was written is counted, exactly and for nothing; a store that is to write less does, and loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeshard
from edgeshard import format, sqlite, units
from edgeshard.errors import ConfigurationError
from edgeshard.files import scan
from edgeshard.files.locks import is_locked
from edgeshard.master import database, write_stats
from edgeshard.master.write_stats import LockFileCounter, Meter, WriteCount, WriterMeter
from edgeshard.merge import locks, truncate, watcher
from edgeshard.merge.listener import Listener
from edgeshard.merge.merger import Merger
from edgeshard.merge.shard_cache import CacheEntry
from edgeshard.merge.watcher import Watcher
from edgeshard.options import Durability
from edgeshard.reports import MergeReport, WriteStats
from edgeshard.shard import write_profile
from tests.support.processes import command, merge_command, python, sql
from tests.support.stores import numbers, shard_path

NEVER_S = 10_000.0


def write(store: edgeshard.Store, *numbers_: int, agent: str = "a") -> None:
    with store.shard(agent) as shard:
        for n in numbers_:
            shard.write({"n": n})


def low(store: edgeshard.Store) -> edgeshard.Store:
    return edgeshard.Store(store.root, wear="low")


def lock_of(store: edgeshard.Store, agent: str) -> Path:
    return shard_path(store, agent).with_suffix(".lock")


# -- what is counted --------------------------------------------------------------------------------------------------

_COUNTED = """
import sys, edgeshard
from edgeshard.retention import plan
plan.next_size = lambda size, took_s, *_: size  # as many rows a step on a busy machine, where the estimate would differ
def written():
    return int(dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())["wchar"])
store, before = edgeshard.Store(sys.argv[1], wear=sys.argv[2]), written()
for opening in range(3):
    with store.shard("a") as shard, store.shard("b") as other:
        for n in range(300):
            shard.write({"n": n, "text": "x" * 60})
        other.write_many({"n": n} for n in range(500))
        store.merge()
store.merge()
if sys.argv[3] == "pruned":
    store.prune(keep_rows=500)
    store.merge()
print(written() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", ["normal", "low"])
@pytest.mark.parametrize("after", ["", "pruned"])
def test_what_is_counted_is_what_the_system_counts(store: edgeshard.Store, level: str, after: str) -> None:
    done = python(_COUNTED, store.root, level, after)
    assert "" == done.stderr
    counted, actual = store.status().write_stats, int(done.stdout)
    assert 2_400 == counted.rows
    assert 0.95 * actual <= counted.bytes <= 1.03 * actual  # a prune adds what it expects of its last copying


def test_a_writer_notes_what_it_wrote_as_it_closes_and_a_merge_takes_it_once(store: edgeshard.Store) -> None:
    write(store, *range(10))
    first = LockFileCounter(lock_of(store, "a")).total.bytes
    assert first > os.path.getsize(shard_path(store, "a"))
    write(store, *range(10, 20))
    second = LockFileCounter(lock_of(store, "a")).total.bytes
    assert first < second
    with store.shard("a"):  # so that it is not removed
        store.merge()
        assert WriteCount() == LockFileCounter(lock_of(store, "a")).uncollected
    merged = LockFileCounter(store.root / "merge.lock").total
    assert merged.bytes > second
    assert 20 == merged.rows
    store.merge(keep_empty=True)
    assert 20 == store.status().write_stats.rows


@pytest.mark.parametrize("durability", ["process", "power"])
def test_closing_counts_the_checkpoint_that_it_makes(store: edgeshard.Store, durability: Durability) -> None:
    write(store, 0)
    before = LockFileCounter(lock_of(store, "a")).total.bytes
    with store.shard("a", durability=durability) as shard:
        shard.write({"n": 1})
        logged = sqlite.wal_bytes_written(shard._connection)
    counted = LockFileCounter(lock_of(store, "a")).total.bytes - before
    makes_checkpoint = not os.path.exists(f"{shard_path(store, 'a')}-wal")
    assert (durability == "power") == makes_checkpoint == (counted > logged)
    assert counted >= logged > 0


def test_making_a_shard_counts(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    assert LockFileCounter(lock_of(store, "a")).total.bytes > os.path.getsize(shard_path(store, "a"))


def test_what_a_shard_noted_is_taken_before_it_is_removed(store: edgeshard.Store) -> None:
    store.init()
    store.merge()
    before = LockFileCounter(store.root / "merge.lock").total.bytes
    held = locks.merge_lock(store.root, 0.0, lambda: False)
    assert held is not None
    merger = Merger(store.root, watching=True)
    merger.run()
    write(store, *range(1000))  # one by one: the merger writes less than a tenth of that
    noted = LockFileCounter(lock_of(store, "a")).total.bytes
    assert 1 == merger.run(thorough=False).removed
    merger.close()
    held.release()
    assert LockFileCounter(store.root / "merge.lock").total.bytes > before + noted


def test_a_handle_that_only_opens_a_shard_notes_nothing(store: edgeshard.Store) -> None:
    write(store, 1)
    before = LockFileCounter(lock_of(store, "a")).total
    with store.shard("a"):
        pass
    assert before == LockFileCounter(lock_of(store, "a")).total


def test_a_writer_that_goes_on_notes_it_now_and_then(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        noted = WriterMeter(lock_of(store, "a"))
        before = LockFileCounter(lock_of(store, "a")).total.bytes
        for n in range(100):
            shard.write({"n": n})
        now = time.monotonic()
        noted.record_if_due(shard._connection, now)
        after = LockFileCounter(lock_of(store, "a")).total.bytes
        shard.write({"n": 0})
        noted.record_if_due(shard._connection, now + write_stats.WRITER_S - 1)
        assert before < after == LockFileCounter(lock_of(store, "a")).total.bytes
        noted.record_if_due(shard._connection, now + write_stats.WRITER_S)
        assert after < LockFileCounter(lock_of(store, "a")).total.bytes


def test_noting_drops_no_lock(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        LockFileCounter(lock_of(store, "a")).record(WriteCount(5))
        LockFileCounter(lock_of(store, "a")).collect()
        assert is_locked(lock_of(store, "a"))
        assert "True" == python(
            "import sys; from edgeshard.files import locks; print(locks.is_locked(sys.argv[1]))", lock_of(store, "a")
        ).stdout.strip()  # fmt: skip


def test_what_a_merger_writes_is_noted_a_megabyte_at_a_time(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 1)
    store.merge()
    assert [] == sql(store.master_path, "select * from _edgeshard_write_stats")
    monkeypatch.setattr(write_stats, "NOTE_BYTES", 1)
    write(store, 2)
    store.merge()
    ((day, bytes_, rows),) = sql(store.master_path, "select * from _edgeshard_write_stats")
    assert (write_stats._today(), 1) == (day, rows)  # of the merge before
    worn = store.status().write_stats
    assert (2, 1) == (worn.rows, worn.days)
    assert worn.bytes > bytes_ > 0


@pytest.mark.parametrize("bad", [b"", b"garbage", b"9" * 200, b"\xff" * 106, b"00000000000000000001 bytes"])
def test_what_somebody_else_wrote_into_a_lock_file_is_nothing(tmp_path: Path, bad: bytes) -> None:
    lock = tmp_path / "a.lock"
    lock.write_bytes(bad)
    assert (WriteCount(), WriteCount()) == (LockFileCounter(lock).uncollected, LockFileCounter(lock).collect())
    LockFileCounter(lock).record(WriteCount(7, 1))
    assert 7 == LockFileCounter(lock).total.bytes


def test_a_claim_that_nobody_can_have_written_is_cut(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.touch()
    LockFileCounter(lock).record(WriteCount(10**20 - 1, 10**20 - 1))
    assert WriteCount(10**12, 10**12) == LockFileCounter(lock).collect()
    assert WriteCount() == LockFileCounter(lock).collect()
    LockFileCounter(lock).record(WriteCount(5))  # less than was taken
    assert WriteCount() == LockFileCounter(lock).collect()


def test_a_lock_that_is_a_link_or_a_pipe_or_missing_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.lock")
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link.lock").symlink_to(tmp_path / "target")
    for name in ("pipe.lock", "link.lock", "missing.lock"):
        LockFileCounter(tmp_path / name).record(WriteCount(5))
        assert WriteCount() == LockFileCounter(tmp_path / name).collect()
    assert "mine" == (tmp_path / "target").read_text()


def test_a_commit_that_fails_loses_and_doubles_nothing_of_the_sum(store: edgeshard.Store) -> None:
    store.init()
    connection = database.open_master(store.master_path, writable=True)
    meter = Meter()
    with meter.running():
        meter.add_rows(3)
        for fails in (True, False):
            try:
                with sqlite.immediate(connection):
                    meter.record(connection)
                    assert not fails
            except AssertionError:
                continue
            meter.committed()
        with sqlite.immediate(connection):
            meter.record(connection)
        meter.committed()
    assert [(3,)] == sqlite.fetch(connection, "SELECT rows FROM _edgeshard_write_stats")
    connection.close()


def test_a_system_that_does_not_say_what_a_thread_wrote_is_no_obstacle(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_stats, "_THREAD", "/nowhere")
    write(store, 1, 2)
    store.merge()
    worn = store.status().write_stats
    assert (2, True) == (worn.rows, worn.bytes > 0)  # what the writer knows of itself


# -- how it is told ---------------------------------------------------------------------------------------------------


def test_status_says_bytes_of_today_a_day_and_a_row(store: edgeshard.Store) -> None:
    write(store, 1)
    store.merge()
    sql(store.master_path, f"insert into _edgeshard_write_stats values ('{write_stats._today()}', 3000000, 999)")
    sql(store.master_path, "insert into _edgeshard_write_stats values (date('now', '-9 days'), 7000000, 1000)")
    worn = store.status().write_stats
    assert (10, 2_000) == (worn.days, worn.rows)
    assert 3_000_000 < worn.today_bytes < 3_600_000 < worn.bytes < 10_600_000
    assert 1_000_000 <= (worn.bytes_a_day or 0) < 1_060_000
    told = command("status", store.root).stdout
    sizes = [units.size(int(value or 0)) for value in (worn.today_bytes, worn.bytes_a_day, worn.bytes_a_row)]
    assert "written     {} today, {} a day, {} a row".format(*sizes) in told
    report = json.loads(command("status", store.root, "--json").stdout)
    assert {"today_bytes": worn.today_bytes, "bytes": worn.bytes, "days": 10, "rows": 2_000} == report["write_stats"]
    assert (worn.bytes_a_day, worn.bytes_a_row) == (report["bytes_a_day"], report["bytes_a_row"])


def test_a_store_of_which_nothing_is_known_says_nothing(store: edgeshard.Store) -> None:
    (store.root / "shards").mkdir(parents=True)
    assert (WriteStats(), None, None) == (
        store.status().write_stats, store.status().write_stats.bytes_a_day, store.status().write_stats.bytes_a_row
    )  # fmt: skip
    assert "written" not in command("status", store.root).stdout


# -- writing less -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["none", "", None, 1, "LOW"])
def test_a_level_that_is_none_is_refused(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="wear must be 'normal' or 'low', got"):
        edgeshard.Store(tmp_path / "data", wear=bad)


def test_shards_that_are_made_have_small_pages_and_others_keep_theirs(store: edgeshard.Store) -> None:
    write(store, 1, agent="old")
    write(low(store), 2, agent="old")
    write(low(store), 3, agent="new")
    write(store, 4, agent="new")
    sizes = [sql(shard_path(store, agent), "pragma page_size")[0][0] for agent in ("old", "new")]
    assert [format.SHARD_PAGE_SIZE, format.SHARD_PAGE_SIZE_LOW] == sizes
    assert 4 == store.merge().rows
    assert [1, 2, 3, 4] == numbers(store)


def test_a_writer_copies_its_log_at_the_same_size_whatever_its_pages(store: edgeshard.Store) -> None:
    limits = []
    for agent, opened, rows in (("normal", store, 1), ("low", low(store), 1), ("large", store, 2_000)):
        with opened.shard(agent) as shard:
            shard.write_many([{"n": 1}] * rows)
            pages, page_bytes = shard._connection.pragma("wal_autocheckpoint"), shard._connection.pragma("page_size")
            limits.append(pages * page_bytes)
    assert [4_096_000, 4_096_000, 4_096_000] == limits


class Heard(Listener):
    """Keeps the reports of passes that found rows."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def merged(self, report: MergeReport) -> None:
        if report.rows:
            self.found.append(report.rows)


@pytest.mark.slow
def test_the_first_row_after_a_quiet_time_waits_and_is_merged_with_others(store: edgeshard.Store) -> None:
    heard = Heard()
    merger = Watcher(store.root, interval_s=3.0, rescan_s=NEVER_S, listener=heard, profile=write_profile.LOW)
    assert merger.open()
    with watcher.in_thread(merger), low(store).shard("a") as shard:
        upto = time.monotonic() + 60
        for n in range(5):
            shard.write({"n": n})
        while not heard.found and time.monotonic() < upto:
            time.sleep(0.01)
    assert [5] == heard.found


def test_it_ends_at_once_although_rows_wait(store: edgeshard.Store) -> None:
    with low(store).watching():  # every minute
        write(low(store), 1, 2, 3)
    assert [1, 2, 3] == numbers(store)


def test_passes_that_find_nothing_write_nothing_while_shards_keep_rows(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", 0.0)
    store.init()
    store.merge()
    held = locks.merge_lock(store.root, 0.0, lambda: False)
    assert held is not None
    merger = Merger(store.root, watching=True, profile=write_profile.LOW)
    with low(store).shard("a") as shard:
        for n in range(10):
            shard.write({"n": n})
        assert (10, 0) == (merger.run().rows, merger.run().truncated)
        before = scan.find_database(str(store.master_path)), scan.find_database(shard.path)
        for thorough in (True, False, True):
            report = merger.run(thorough=thorough)
            assert (0, 0, 0) == (report.rows, report.shards, report.truncated)
        assert before == (scan.find_database(str(store.master_path)), scan.find_database(shard.path))
        assert os.path.getsize(f"{store.master_path}-wal") > 0
        shard.write({"n": 10})
        assert 1 == merger.run().rows
        shard.sync()  # a change without a row
        assert (0, 1, 0) == ((report := merger.run()).rows, report.shards, report.truncated)
    merger.close()
    held.release()
    assert 11 == store.merge().truncated
    assert list(range(11)) == numbers(store)


def test_what_a_shard_keeps_goes_after_its_time(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FRESH_S", 0.0)
    store.init()
    store.merge()
    held = locks.merge_lock(store.root, 0.0, lambda: False)
    assert held is not None
    merger = Merger(store.root, watching=True, profile=write_profile.LOW)
    with low(store).shard("a") as shard:
        shard.write({"n": 1})
        merger.run()
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + write_profile.LOW.held_s + 1)
        assert 1 == merger.run(thorough=False).truncated
    merger.close()
    held.release()


@given(
    st.integers(0, 3),
    st.integers(0, 2 * truncate.HELD_BYTES),
    st.integers(0, 2 * truncate.HELD_WAL_BYTES),
    st.floats(0, 60),
)
def test_a_large_shard_is_truncated_however_sparing_the_merger_is(
    rows: int, used: int, log: int, held_s: float
) -> None:
    is_large = used >= truncate.HELD_BYTES or log >= truncate.HELD_WAL_BYTES
    assert is_large == truncate.is_truncation_due(rows, used, log, held_s, write_profile.LOW.held_s)
    is_due = is_large or rows == 0 or held_s >= truncate.HELD_MAX_S
    assert is_due == truncate.is_truncation_due(rows, used, log, held_s, write_profile.NORMAL.held_s)


@given(st.booleans(), st.sampled_from(["", "bad"]), st.booleans(), st.booleans(), st.booleans())
def test_a_merger_that_is_not_sparing_looks_again_as_it_always_did(
    settled: bool, problem: str, lasting: bool, holds: bool, thorough: bool
) -> None:
    known = CacheEntry((1,), problem, lasting, settled, held_since=0.0 if holds else None)
    assert (holds or (thorough and not known.is_at_rest)) == known.is_due_again(thorough=thorough, schema_version=1)


def test_the_command_takes_the_level_for_watching_alone(store: edgeshard.Store) -> None:
    store.root.mkdir()
    done = merge_command(store.root, "--wear", "low")
    assert (2, True) == (done.returncode, "requires --watch" in done.stderr)
    write(low(store), 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeshard.merge", str(store.root), "--watch", "--wear", "low"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not store.master_path.exists() or numbers(store) != [1]:  # the first pass is at once
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (0, True) == (process.returncode, out.startswith("merged 1 row "))


def test_a_shard_of_small_pages_is_salvaged_without_its_header(store: edgeshard.Store) -> None:
    with low(store).shard("bad") as shard:
        shard.write_many({"n": n, "text": "x" * 60} for n in range(300))
    with open(shard_path(store, "bad"), "r+b") as file:
        file.write(b"\xff" * 100)
    assert 1 == len(store.merge().quarantined)
    report = store.salvage(shard_path(store, "bad"))
    assert (300, 300) == (report.rows, report.merged)
    assert list(range(300)) == numbers(store)
