"""A merge refuses a master that is known to be damaged, and leaves the rows in the shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import AccessError, DamagedError, StorageIOError
from edgeshard.files import fingerprint
from edgeshard.inspect import verify
from edgeshard.master import damage as master_damage
from tests.support.damaged_masters import DAMAGE, damage, overwrite_root
from tests.support.forms import others_slow
from tests.support.hostile_shards import edit
from tests.support.processes import command
from tests.support.stores import new_store, numbers


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
    other = new_store(filled.root.parent / "other")
    assert 1 == other.merge([shard]).rows, "the row is not in its shard any more"


def test_a_shallow_check_does_not_clear_what_only_a_deep_one_finds(filled: edgeshard.Store) -> None:
    damage(filled, "index")
    assert filled.verify(deep=True).errors
    assert filled.verify().ok
    with pytest.raises(DamagedError, match=r"Store.verify\(deep=True\)"):
        filled.merge()
    edit(filled.master_path, "reindex")
    assert filled.verify(deep=True).ok
    assert 1 == filled.merge().rows


def test_the_note_is_about_one_file(filled: edgeshard.Store, tmp_path: Path) -> None:
    damage(filled, "row")
    assert filled.verify().errors
    for path in filled.root.glob("master.db*"):
        path.rename(tmp_path / path.name)
    shutil.copyfile(tmp_path / "good.db", filled.master_path)
    assert 1 == filled.merge().rows
    assert (True, 201) == (filled.verify().ok, len(numbers(filled)))
    assert not (filled.root / "master-damaged.json").exists()


def test_a_merge_that_meets_damage_notes_it(filled: edgeshard.Store) -> None:
    filled.master_path.write_bytes(b"garbage\0" * 10_000)
    for _ in range(2):
        with pytest.raises(DamagedError):
            filled.merge()
    assert (filled.root / "master-damaged.json").exists()
    assert 65 == command("merge", filled.root).returncode


@pytest.mark.parametrize("finding", ["error", "report"])
@pytest.mark.parametrize("deep", [False, True])
def test_one_failure_to_read_is_told_and_not_recorded(
    filled: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, finding: str, deep: bool
) -> None:
    """A failing read may look like damage to SQLite."""

    def fail_once(path: Path, *given: Path, deep: bool) -> edgeshard.VerifyReport:
        looks.append(deep)
        if len(looks) > 1:
            return check(path, *given, deep=deep)
        if finding == "error":
            raise DamagedError("verify", path, "the database is damaged")
        return attrs.evolve(check(path, *given, deep=deep), errors=("SQLite finds: something",))

    check, looks = verify.check, list[bool]()
    monkeypatch.setattr(verify, "check", fail_once)
    if finding == "error":
        with pytest.raises(DamagedError):
            filled.verify(deep=deep)
    else:
        assert not filled.verify(deep=deep).ok
    assert [deep, False, deep][: 2 + deep] == looks
    assert 1 == filled.merge().rows


def test_a_master_that_cannot_be_looked_at_is_told_by_an_error_of_ours(
    filled: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, **_: object) -> None:
        raise OSError(5, "Input/output error")

    damage(filled, "row")
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "identity", refuse)
        with pytest.raises(StorageIOError, match="record damage"):
            master_damage.record(filled.master_path, ["something"])
    assert filled.verify().errors
    monkeypatch.setattr(fingerprint, "identity", refuse)
    with pytest.raises(StorageIOError, match="read note"):
        master_damage.find(filled.master_path)


def test_half_a_note_counts_as_one(filled: edgeshard.Store) -> None:
    (filled.root / "master-damaged.json").write_text('{"inode": ')
    with pytest.raises(DamagedError, match="known to be damaged"):
        filled.merge()
    assert filled.verify(deep=True).ok
    assert 1 == filled.merge().rows


def test_who_may_not_write_the_note_is_told_all_the_same(
    filled: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise AccessError("record damage in", path, "permission denied")

    damage(filled, "row")
    monkeypatch.setattr("edgeshard.master.damage.record", refuse)
    assert filled.verify().errors
    assert "mergers are not told" in caplog.text


def test_status_says_that_the_master_is_damaged(filled: edgeshard.Store) -> None:
    damage(filled, "row")
    assert ("", True) == (filled.status().master.damage, filled.status().complete)
    assert filled.verify().errors
    status = filled.status()
    assert (False, True) == (status.complete, "outside the stream" in status.master.damage)
    done = command("status", filled.root)
    assert (3, True) == (done.returncode, "edgeshard restore" in done.stdout)


MASTER_TABLES = sorted(format.REQUIRED_TABLES[format.MASTER])


@pytest.mark.parametrize("name", others_slow(MASTER_TABLES, ["_edgeshard_missing", "_edgeshard_ranges"]))
def test_a_merge_that_finds_the_master_damaged_has_deleted_nothing_from_a_shard(
    filled: edgeshard.Store, name: str
) -> None:
    """Whichever of its own tables is damaged, and whenever the merge reads that."""
    overwrite_root(filled.master_path, name)
    with filled.shard("ended") as shard:
        shard.write({"n": 201})
    try:
        merged = filled.merge().rows
    except DamagedError:
        merged = 0
    other = new_store(filled.root.parent / "other")
    left = other.merge(sorted((filled.root / "shards").glob("*.db"))).rows
    assert left == 2 or merged == 2, (left, merged)
