"""Kill a merge within a disk budget at each step that touches the reserve or the quotas, and let the disk be full.

A power cut leaves of these two files what a kill leaves, or less of it: so files that are missing, cut or overwritten
are tried as well. Neither has content that a row depends on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.budget import policy, usage
from edgeshard.errors import DiskBudgetError
from edgeshard.files import paths
from tests.support.forks import Count, begin
from tests.support.forms import short_and_full

MB = 1_000_000

#: What a merge does with the two files.
_CALLS = ("ftruncate", "posix_fallocate", "pwrite", "close")


def full_store(root: Path, on_full: policy.OnFull = "drop-oldest") -> int:
    """Make a store whose agents have filled it; return how many rows they wrote."""
    store, written = edgeshard.Store(root, max_bytes="1M", on_full=on_full), 0
    with suppress(DiskBudgetError):
        while True:
            with store.shard("agent") as shard:
                shard.write_many({"n": written + n, "x": "x" * 500} for n in range(20))
            written += 20
    return written


def size_of(root: Path) -> int:
    """Return the size of all files."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(root) for name in names)


def merge_and_die(root: Path, number: int) -> bool:
    """Merge in another process, which ends before the call with this number; return whether there was such a call."""

    def work(count: Count) -> None:
        calls = 0

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def instead(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == number:
                    count(1)
                    os._exit(0)
                return call(*arguments)

            return instead

        for name in _CALLS:
            setattr(os, name, dying(getattr(os, name)))
        edgeshard.Store(root).merge()
        os._exit(0)

    life = begin(work)
    life.wait()
    return life.count == 1


def check(root: Path, written: int) -> None:
    """Nothing is lost, the budget holds, and the next merge makes the reserve whole."""
    assert size_of(root) <= MB
    store = edgeshard.Store(root)
    dropped = store.merge().dropped
    assert size_of(root) <= MB
    report = store.verify()
    assert report.ok
    assert written == report.rows + sum(report.pruned.values())
    assert dropped <= sum(report.pruned.values())
    budget = usage.load_budget(root)
    assert budget is not None
    assert paths.reserve(root).stat().st_size == policy.reserve_bytes(budget)
    with store.shard("another") as shard:
        shard.write({"n": -1})


@pytest.mark.parametrize(("every", "least"), short_and_full((9, 3), (1, 20)))
def test_a_merge_that_is_killed_at_any_step_leaves_a_store_that_goes_on(tmp_path: Path, every: int, least: int) -> None:
    written = full_store(tmp_path / "whole")
    number = kills = 0
    while True:
        number += every
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", root)
        if not merge_and_die(root, number):
            break
        kills += 1
        check(root, written)
        shutil.rmtree(root)
    assert kills >= least


@pytest.mark.parametrize("name", ["reserve", "quotas"])
@pytest.mark.parametrize("content", [None, b"", b"\xff" * 1_000], ids=["missing", "empty", "overwritten"])
def test_whatever_is_left_of_the_reserve_and_the_quotas_the_store_goes_on(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    root = tmp_path / "data"
    written = full_store(root)
    root.joinpath(name).unlink()
    if content is not None:
        root.joinpath(name).write_bytes(content)
    check(root, written)


def test_a_merge_uses_the_reserve_if_other_programs_have_filled_the_disk(small_disk: Path) -> None:
    root = small_disk / "data"
    store = edgeshard.Store(root, max_bytes="1M")
    with store.shard("agent") as shard:
        shard.write_many({"n": n, "x": "x" * 500} for n in range(60))
    assert paths.reserve(root).stat().st_size >= policy.MIN_RESERVE_BYTES + policy.EMPTY_MASTER_BYTES
    with suppress(OSError), small_disk.joinpath("others").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1_000))
    assert 60 == store.merge().rows
    assert store.verify().ok
    small_disk.joinpath("others").unlink()
    store.merge()
    assert paths.reserve(root).stat().st_size == policy.MIN_RESERVE_BYTES


@pytest.mark.parametrize("second_name", [True, False])
def test_the_next_merge_removes_what_a_killed_making_of_the_master_left(tmp_path: Path, second_name: bool) -> None:
    root = tmp_path / "data"
    store = edgeshard.Store(root, max_bytes="1M")
    with store.shard("agent") as shard:
        shard.write({"n": 0})
    store.merge()
    left = Path(paths.unfinished(str(store.master_path), "0123abcd"))
    if second_name:
        os.link(store.master_path, left)
    else:
        shutil.copy(store.master_path, left)
    copies = 1 if second_name else 2
    assert usage.measure(root).master == store.master_path.stat().st_size * copies + policy.SHM_BYTES
    assert store.merge().complete
    assert not left.exists()
    assert store.verify().ok
