"""A merge refuses a master that is known to be damaged, and leaves the rows in the shards."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import DamagedError
from tests.support.damaged_masters import DAMAGE, damage
from tests.support.processes import command


@pytest.fixture
def filled(store: edgeshard.Store, tmp_path: Path) -> edgeshard.Store:
    """A store whose master has 200 rows, with a snapshot, and one pending row."""
    with store.shard("a") as shard:
        shard.write_many({"n": n, "text": "x" * 300} for n in range(200))
    store.merge()
    store.snapshot(tmp_path / "good.db")
    with store.shard("a") as shard:
        shard.write({"n": 200})
    return store


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_verify_knows_to_be_damaged_gets_no_more_rows(filled: edgeshard.Store, kind: str) -> None:
    damage(filled, kind)
    assert 65 == command("verify", filled.root, "--deep").returncode
    done = command("merge", filled.root)
    assert (65, True) == (done.returncode, "restore" in done.stderr), done
    with pytest.raises(DamagedError, match="known to be damaged"):
        filled.merge()
    with pytest.raises(DamagedError, match="known to be damaged"):
        filled.prune(keep_rows=1)
    with pytest.raises(DamagedError, match="known to be damaged"), filled.watching():
        raise AssertionError("it watches")
    shard = filled.root / "shards" / "a.db"
    other = edgeshard.Store(filled.root.parent / "other")
    assert 1 == other.merge([shard]).rows, "the row is not in its shard any more"
