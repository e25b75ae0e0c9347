"""A store with a budget goes on, whatever filled it; and it says so if it cannot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import units
from edgeshard.budget import policy, usage
from edgeshard.errors import DiskBudgetError
from edgeshard.files import paths
from edgeshard.merge import chunk
from edgeshard.merge.quota import MergeQuota
from tests.support import budget_histories
from tests.support.forms import others_slow, short_and_full
from tests.support.processes import command, unwrapped
from tests.support.stores import new_store, shard_path

MB = 1_000_000


def write_until_refused(store: edgeshard.Store, agents: int, size: int, most: int = 100_000) -> int:
    """Have agents open, write some rows and close, one after the other, until all are refused; return how many rows."""
    written = 0
    while written < most:
        before = written
        for agent in range(agents):
            with suppress(DiskBudgetError), store.shard(f"a{agent}") as shard:
                for _ in range(max(1, 10_000 // size)):
                    shard.write({"n": written, "x": "x" * size})
                    written += 1
        if written == before:
            return written
    raise AssertionError("nothing was refused")


def check_that_two_merges_make_space(store: edgeshard.Store, written: int) -> None:
    """No row is pending after two merges, and an agent writes."""
    dropped = 0
    for _ in range(2):
        dropped += store.merge().dropped
    assert store.status().pending_rows == 0
    with store.shard("another") as shard:
        shard.write({"n": written, "x": "x"})
    report = store.verify()
    assert report.ok
    assert written == report.rows + dropped
    assert dropped == sum(report.pruned.values())


@pytest.mark.parametrize("on_full", policy.ON_FULL)
@pytest.mark.parametrize("max_bytes", others_slow([1.0, 1.5, 2.2, 3.0], [1.0, 2.2]))
def test_a_store_that_was_filled_before_there_was_a_master_is_merged(
    tmp_path: Path, max_bytes: float, on_full: policy.OnFull
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes=int(max_bytes * MB), on_full=on_full)
    written = 0
    with store.shard("agent") as shard, suppress(DiskBudgetError):
        while True:
            shard.write({"n": written, "x": "x" * 500})
            written += 1
    check_that_two_merges_make_space(store, written)


@pytest.mark.parametrize("size", others_slow([40, 400, 4_000, 40_000], [400, 40_000]))
@pytest.mark.parametrize("max_bytes", others_slow([1.0, 1.5, 3.0, 6.0, 20.0], [1.5]))
def test_the_largest_transaction_is_merged_however_full_the_store_becomes_after_it(
    tmp_path: Path, max_bytes: float, size: int
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes=int(max_bytes * MB))
    with store.shard("agent") as shard:
        rows, written = int(max_bytes * MB / size), 0
        while not written:
            with suppress(DiskBudgetError):
                written = shard.write_many({"n": n, "x": "x" * size} for n in range(rows))
            rows = rows * 9 // 10
        assert written * size > max_bytes * MB / 30
        with suppress(DiskBudgetError):
            while True:
                shard.write({"n": written, "x": "x" * 100})
                written += 1
        assert written == store.merge().rows
    assert store.verify().ok


@edgeshard.table(index=["text"])
@attrs.frozen
class Indexed:
    """In the master, its text is in an index as well."""

    n: int
    text: str


@edgeshard.table(key="name", history=True)
@attrs.frozen
class Remembered:
    """In the master, its versions are moved to a history."""

    name: str
    text: str


#: Rows that grow in the master: of a little more than half a page, or a third of one, of small ones with an index, and of
#: versions with a history. One row of each, given its number.
GROWING: dict[str, Callable[[int], Any]] = {
    "2,050 bytes": lambda n: {"n": n, "x": "x" * 2_050},
    "1,400 bytes": lambda n: {"n": n, "x": "x" * 1_400},
    "indexed": lambda n: Indexed(n, f"{n * 7_919 % 100_003:060}"),
    "remembered": lambda n: Remembered(str(n % 10), "x" * 2_050),
}


@pytest.mark.timeout(900)  # with 6 MB up to 78,000 fsyncs, which take minutes on a busy machine
@pytest.mark.parametrize("kind", others_slow(GROWING, ["2,050 bytes"]))
@pytest.mark.parametrize("max_bytes", others_slow([1.5, 6.0], [1.5]))
@pytest.mark.parametrize("is_iterable", others_slow([True, False], [True]))
def test_the_largest_transaction_of_rows_that_grow_in_the_master_is_merged(
    tmp_path: Path, max_bytes: float, kind: str, is_iterable: bool
) -> None:
    store, make = edgeshard.Store(tmp_path, max_bytes=int(max_bytes * MB)), GROWING[kind]
    with store.shard("agent") as shard:
        rows, written = int(max_bytes * MB / 100), 0
        while not written:
            with suppress(DiskBudgetError):
                records = [make(n) for n in range(rows)]
                written = shard.write_many(iter(records) if is_iterable else records)
            rows = rows * 9 // 10
        with suppress(DiskBudgetError):
            while True:
                shard.write({"n": written, "x": "x" * 100})
                written += 1
        assert written == store.merge().rows
    assert store.verify().ok


@pytest.mark.slow
def test_a_transaction_that_does_not_fit_keeps_no_other_shard_from_being_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="2M")
    # its size in the master is not known in advance
    monkeypatch.setattr(policy, "weight", lambda *_: 1.0)
    with ExitStack() as opened:
        shards = [opened.enter_context(store.shard(agent)) for agent in "abyz"]
        for other in shards:
            other.write_many({"n": n} for n in range(10))
        with store.shard("m") as shard:
            for rows in range(300, 0, -5):
                with suppress(DiskBudgetError):
                    shard.write_many({"n": n, "x": "x" * 2_050} for n in range(rows))
                    break
            with suppress(DiskBudgetError):
                while True:
                    shard.write({"n": 1, "x": "x" * 100})
        monkeypatch.setattr(MergeQuota, "await_quotas", lambda _: False)  # after that it would try all of them again
        pending = store.status().pending_rows
        with pytest.raises(DiskBudgetError, match=r"\(40 were merged\)"):
            store.merge()
        assert pending - 40 == store.status().pending_rows


@pytest.mark.parametrize("part", others_slow([0.03, 0.07, 0.11], [0.07]))
@pytest.mark.parametrize("max_bytes", others_slow([3, 10, 40], [10]))
def test_a_full_store_accepts_a_large_transaction_after_at_most_two_merges(
    tmp_path: Path, max_bytes: int, part: float
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes=max_bytes * MB, on_full="drop-oldest")
    with store.shard("agent") as shard:
        dropped = written = 0
        while not dropped:
            with suppress(DiskBudgetError):
                written += shard.write_many({"n": n, "x": "x" * 400} for n in range(20))
                continue
            dropped += store.merge().dropped
        rows = [{"n": n, "x": "x" * 400} for n in range(int(part * max_bytes * MB / 520))]
        for _ in range(3):
            with suppress(DiskBudgetError):
                assert len(rows) == shard.write_many(iter(rows))
                break
            dropped += store.merge().dropped
        else:
            pytest.fail("it was refused after two merges")
        dropped += store.merge().dropped
        left = policy.left_for_writers(policy.Budget(max_bytes * MB, "drop-oldest"), usage.measure(tmp_path))
    report = store.verify()
    assert report.ok
    assert written + len(rows) == report.rows + dropped
    assert left < max_bytes * MB  # the wish was for once


@pytest.mark.parametrize(
    ("agents", "max_bytes"), others_slow([(2, 2), (8, 3), (20, 4), (100, 30), (60, 200)], [(8, 3)])
)
def test_a_store_that_was_filled_by_closed_agents_is_merged(tmp_path: Path, agents: int, max_bytes: int) -> None:
    store = edgeshard.Store(tmp_path, max_bytes=max_bytes * MB, on_full="drop-oldest")
    written = write_until_refused(store, agents, max_bytes * 200)
    check_that_two_merges_make_space(store, written)


@pytest.mark.parametrize(("agents", "max_bytes", "rounds"), short_and_full((2, 1.5, 26), (100, 30, 24)))
def test_agents_that_open_write_and_close_with_a_merge_after_each_round_are_not_refused(
    tmp_path: Path, agents: int, max_bytes: float, rounds: int
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes=int(max_bytes * MB), on_full="drop-oldest")
    dropped, rows = 0, 12 if agents > 2 else 20
    for turn in range(rounds):
        for agent in range(agents):
            with store.shard(f"a{agent}") as shard:
                shard.write_many({"n": turn, "x": "x" * 900} for _ in range(rows))
        dropped += store.merge().dropped
    report = store.verify()
    assert report.ok
    assert rounds * agents * rows == report.rows + dropped
    assert 0 < dropped
    # the reserve, what is left for writers, and the tables of the master take the rest
    assert report.rows * 1_000 > 0.3 * max_bytes * MB


@pytest.mark.slow
def test_no_row_is_dropped_for_shards_that_are_open_and_idle(tmp_path: Path) -> None:
    agents = 25
    store = edgeshard.Store(tmp_path, max_bytes=2 * policy.least_budget(agents), on_full="drop-oldest")
    with ExitStack() as opened:
        shards = [opened.enter_context(store.shard(f"a{n}")) for n in range(agents)]
        for shard in shards:
            shard.write({"n": 1, "x": "x" * 10_000})
        assert agents == store.merge().rows
        for shard in shards:
            shard.write({"n": 2, "x": "x" * 10_000})
        report = store.merge()
        assert (agents, 0) == (report.rows, report.dropped)


def test_a_shard_beyond_the_least_budget_is_refused_with_the_figure_and_what_is_open_goes_on(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="1M")
    with ExitStack() as opened:
        shards: list[edgeshard.Shard] = []
        with pytest.raises(DiskBudgetError, match=r"a budget for \d open shards is at least") as caught:
            while True:
                shards.append(opened.enter_context(store.shard(f"a{len(shards)}")))
        assert policy.least_budget(len(shards)) <= MB < policy.least_budget(len(shards) + 1)
        assert units.size_at_least(policy.least_budget(len(shards) + 1)) in str(caught.value)
        for shard in shards:
            shard.write({"n": 1})
        assert not shard_path(store, f"a{len(shards)}").exists()
    assert len(shards) == store.merge().rows


def test_status_says_what_to_do_about_a_full_budget_and_exits_with_3(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data", max_bytes="1M")
    store.merge()
    assert 0 == command("status", store.root).returncode
    with store.shard("agent") as shard:
        with suppress(DiskBudgetError):
            while True:
                shard.write({"n": 1, "x": "x" * 500})
        found = store.status()
        assert found.budget is not None
        assert (True, False) == (found.budget.is_full, found.complete)
        done = command("status", store.root)
    assert 3 == done.returncode
    for step in ("the disk budget is full", "edgeshard merge", "edgeshard prune", "--max-bytes SIZE"):
        assert step in unwrapped(done.stdout)
    store.merge()
    store.note_budget("8M")
    assert 0 == command("status", store.root).returncode


def test_a_merge_makes_side_files_for_a_few_closed_shards_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="3M")
    for n in range(30):
        with store.shard(f"a{n}") as shard:
            shard.write({"n": n})
    most, commit = 0, chunk.commit_chunk

    def counted(*arguments: Any) -> None:
        nonlocal most
        commit(*arguments)
        most = max(most, len([name for name in os.listdir(paths.shards(store.root)) if name.endswith(paths.SHM)]))

    monkeypatch.setattr(chunk, "commit_chunk", counted)
    assert 30 == store.merge().rows
    assert 0 < most * policy.SHM_BYTES <= MB


def test_a_transaction_keeps_its_quota_for_longer_than_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="2M")
    with store.shard("agent") as shard, shard.transaction():
        shard.write_many({"n": n, "x": "x" * 500} for n in range(200))
        # as long as it lasts, it counts: its lease does not expire
        held = usage.measure(store.root)
        assert shard._quota is not None
        assert held.shards + held.promised >= shard._quota._limits.total_bytes > 200 * 500
        later = time.monotonic_ns() + 60 * 10**9
        monkeypatch.setattr(time, "monotonic_ns", lambda: later)
        assert held.promised == usage.measure(store.root).promised
        monkeypatch.undo()
    assert 200 == store.merge().rows


def test_a_large_transaction_is_not_refused_if_there_is_space_and_its_quota_is_returned(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="10M")
    with store.shard("agent") as shard:
        shard.write_many([{"n": n, "x": "x" * 400} for n in range(2_000)])
        store.merge()
        shard.write_many({"n": n, "x": "x" * 40_000} for n in range(20))
        store.merge()
        with shard.transaction():
            for n in range(20):
                shard.write({"n": n, "x": "x" * 40_000})
        quota = shard._quota
        assert quota is not None
        quota.renew_at = shard._upkeep_at = shard._check_at = 0.0
        shard.write({"n": 1})
        assert quota._limits.growth_bytes < MB
    store.merge()
    assert 2_041 == store.verify().rows


@attrs.frozen
class Small:
    """A row of few bytes."""

    n: int


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [lambda shard, n: shard.write(Small(n)), lambda shard, n: shard.write_many([Small(n)])]
)
def test_small_rows_are_written_until_the_store_is_full_and_then_merged(
    tmp_path: Path, write: Callable[[edgeshard.Shard, int], object]
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="1M", on_full="drop-oldest")
    written = 0
    with store.shard("agent") as shard, suppress(DiskBudgetError):
        while True:
            write(shard, written)
            written += 1
    assert written > 1_000
    check_that_two_merges_make_space(store, written)


@pytest.mark.parametrize(("first", "count"), short_and_full((0, 1), (1, 40)))
def test_random_histories_stay_within_the_budget_and_go_on(first: int, count: int) -> None:
    for number in range(first, first + count):
        trial = budget_histories.play(20, number)
        assert (budget_histories.OK, "") == (trial.outcome, trial.what)
