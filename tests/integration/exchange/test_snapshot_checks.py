"""A snapshot checks what it copies, and never replaces a good copy with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import DamagedError
from tests.support.damaged_masters import DAMAGE, damage
from tests.support.processes import command
from tests.support.stores import numbers


@pytest.fixture
def filled(store: edgeshard.Store) -> edgeshard.Store:
    """A store whose master has 200 rows."""
    with store.shard("a") as shard:
        shard.write_many({"n": n, "text": "x" * 300} for n in range(200))
    store.merge()
    return store


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_snapshot_of_a_damaged_master_is_refused_and_the_last_good_one_stays(
    filled: edgeshard.Store, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "backup.db"
    filled.snapshot(target)
    before = target.read_bytes()
    damage(filled, kind)
    with pytest.raises(DamagedError) as caught:
        filled.snapshot(target, force=True)
    assert "damaged" in str(caught.value)
    with pytest.raises(DamagedError):
        filled.snapshot(tmp_path / "another.db")
    done = command("snapshot", filled.root, target, "--force")
    assert (65, before) == (done.returncode, target.read_bytes())
    assert ["backup.db", "data"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_sound_master_is_copied_with_and_without_a_check(filled: edgeshard.Store, tmp_path: Path) -> None:
    filled.snapshot(tmp_path / "one.db")
    filled.snapshot(tmp_path / "two.db", check=False)
    assert (tmp_path / "one.db").read_bytes() == (tmp_path / "two.db").read_bytes()
    assert 0 == command("snapshot", filled.root, tmp_path / "two.db", "--force", "--no-check").returncode
    assert 200 == len(numbers(filled))


def test_without_a_check_a_damaged_master_is_copied_but_replaces_nothing(
    filled: edgeshard.Store, tmp_path: Path
) -> None:
    filled.snapshot(tmp_path / "good.db")
    before = (tmp_path / "good.db").read_bytes()
    damage(filled, "row")
    assert filled.verify().errors
    filled.snapshot(tmp_path / "bad.db", check=False)
    with pytest.raises(DamagedError, match="known to be damaged"):
        filled.snapshot(tmp_path / "good.db", force=True, check=False)
    assert before == (tmp_path / "good.db").read_bytes()
