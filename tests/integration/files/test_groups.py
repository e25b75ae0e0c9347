"""Services with different uids that share a store through the group of its folder."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.files import modes
from tests.support.forms import others_slow
from tests.support.users import User, as_root, run_as, steps_as

GROUP = 54_400
OTHER_GROUP = 54_401
ADMIN, AGENT, OTHER_AGENT, MERGER, STRANGER = 54_410, 54_411, 54_412, 54_413, 54_414

UMASKS = [0o002, 0o022, 0o077]


@pytest.mark.parametrize(
    ("folder", "in_store", "file"),
    [
        (0o700, True, 0o600),
        (0o2700, True, 0o600),
        (0o750, True, 0o640),
        (0o755, True, 0o640),
        (0o770, True, 0o660),
        (0o2750, True, 0o640),
        (0o2770, True, 0o660),
        (0o2775, True, 0o660),
        (0o3770, True, 0o660),
        (0o777, True, 0o600),  # everybody's, and so no group's
        (0o1777, True, 0o600),
        (0o700, False, 0o600),
        (0o755, False, 0o600),  # readable, but not meant to be shared
        (0o775, False, 0o660),
        (0o2750, False, 0o640),
        (0o2770, False, 0o660),
        (0o1777, False, 0o600),
    ],
)
def test_a_file_takes_the_bits_of_a_group_that_its_folder_is_shared_with(
    folder: int, in_store: bool, file: int
) -> None:
    assert oct(file) == oct(modes.file_mode(folder, in_store=in_store))
    inner = modes.folder_mode(folder, in_store=in_store)
    assert file == modes.file_mode(inner, in_store=True)  # in a folder that is made there, too
    assert bool(inner & stat.S_ISGID) == (file != 0o600)
    assert not inner & 0o007


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return a folder that its admin shares with a group."""
    with tempfile.TemporaryDirectory() as outer:  # pytest's folders are root's alone
        os.chmod(outer, 0o711)
        folder = Path(outer) / "data"
        share(folder, 0o2770)
        yield folder


def share(folder: Path, mode: int, group: int = GROUP) -> None:
    folder.mkdir()
    os.chown(folder, ADMIN, group)
    folder.chmod(mode)


def write(root: Path, agent: str, rows: int = 3) -> Callable[[], Any]:
    def run() -> None:
        with edgeshard.Store(root).shard(agent) as shard:
            for n in range(rows):
                shard.write({"n": n})

    return run


def wrong(folder: Path) -> dict[str, str]:
    """Return what the group may not use as it may use the folder, or others may."""
    found = {}
    for path in folder.rglob("*"):
        item = path.lstat()
        wanted = 0o2770 if path.is_dir() else 0o660
        if (item.st_gid, stat.S_IMODE(item.st_mode)) != (GROUP, wanted):
            found[path.name] = f"{item.st_gid} {stat.S_IMODE(item.st_mode):o}"
    return found


def use_all(root: Path, out: Path) -> list[int]:
    """Do all that a merger does with a store; return how many rows were there and were pruned."""
    store = edgeshard.Store(root, max_bytes="100M")
    with store.watching():
        pass
    merged = store.merge(keep_empty=True)
    rows = store.query("select count(*) from agent_data")[0][0]
    store.status()
    store.snapshot(out / "snapshot.db", force=True)
    store.export(out / "bundle.db", force=True)
    store.ranges()
    pruned = store.prune(keep_rows=2, shrink=True).rows
    assert store.verify(deep=True).ok
    store.merge()
    return [merged.rows + rows, pruned]


def imported(tmp_path: Path) -> None:
    """Import what the other users use."""
    scratch = tmp_path / "scratch"
    write(scratch, "a")()
    use_all(scratch, tmp_path)


@as_root
@pytest.mark.parametrize("umask", others_slow(UMASKS, always=(0o077,)), ids=oct)
def test_agents_and_mergers_of_one_group_share_a_store(shared: Path, tmp_path: Path, umask: int) -> None:
    imported(tmp_path)
    out = shared.with_name("out")
    share(out, 0o2770)

    def as_user(uid: int, function: Callable[[], Any]) -> Any:
        return run_as(User(uid, GROUP, umask=umask), function)

    for agent, uid in (("one", AGENT), ("two", OTHER_AGENT)):
        as_user(uid, write(shared, agent))
        assert {} == wrong(shared)
    for uid in (MERGER, OTHER_AGENT):
        assert 3 < as_user(uid, lambda: use_all(shared, out))[0]
        assert {} == wrong(shared)
        assert {} == wrong(out)
        as_user(AGENT, write(shared, "one"))
        as_user(OTHER_AGENT, write(shared, "two"))
        as_user(STRANGER, write(shared, "one"))  # an agent may run as another user of the group from now on
    assert edgeshard.Store(shared).verify().ok


@as_root
def test_a_shard_is_merged_truncated_and_reaped_while_its_agent_of_another_user_writes(
    shared: Path, tmp_path: Path
) -> None:
    imported(tmp_path)

    def writes() -> Generator[int]:
        with edgeshard.Store(shared).shard("live") as shard:
            for n in range(3):
                shard.write({"n": n})
                yield n

    def merge() -> list[int]:
        report = edgeshard.Store(shared).merge()
        assert not report.quarantined
        return [report.rows, report.truncated, report.removed]

    merger = User(MERGER, GROUP, umask=0o077)
    with steps_as(User(AGENT, GROUP, umask=0o077), writes) as write_row:
        for _ in range(3):
            write_row()
            assert {} == wrong(shared)
            assert [1, 1, 0] == run_as(merger, merge)
            assert {} == wrong(shared)
    assert [0, 0, 1] == run_as(merger, merge)
    assert {} == wrong(shared)


@as_root
def test_a_folder_without_setgid_is_shared_by_those_who_are_in_its_group(shared: Path, tmp_path: Path) -> None:
    imported(tmp_path)
    folder = shared.with_name("plain")
    share(folder, 0o770)
    run_as(User(AGENT, OTHER_GROUP, groups=(GROUP,)), write(folder, "one"))
    assert {} == wrong(folder)
    assert 0o2770 == stat.S_IMODE((folder / "shards").stat().st_mode)
    run_as(User(OTHER_AGENT, GROUP), write(folder, "two"))
    assert 6 == run_as(User(MERGER, GROUP), lambda: edgeshard.Store(folder).merge().rows)


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o2770), (0o007, 0o2770), (0o077, 0o770)], ids=oct)
def test_a_service_that_may_not_set_the_setgid_bit_shares_what_it_makes(
    umask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o2770)
    fchmod = os.fchmod

    def restricted(handle: int, mode: int) -> None:
        if mode & stat.S_ISGID:  # as a systemd unit with RestrictSUIDSGID=
            raise PermissionError(1, "Operation not permitted")
        fchmod(handle, mode)

    monkeypatch.setattr(os, "fchmod", restricted)
    before = os.umask(umask)
    try:
        modes.create_folder(tmp_path / "shards", in_store=True)
    finally:
        os.umask(before)
    assert oct(mode) == oct(stat.S_IMODE((tmp_path / "shards").stat().st_mode))


@as_root
def test_no_group_gets_what_is_not_the_folders(shared: Path, tmp_path: Path) -> None:
    imported(tmp_path)
    folder = shared.with_name("strange")
    share(folder, 0o770)
    folder.chmod(0o777)  # everybody's
    run_as(User(STRANGER, OTHER_GROUP), write(folder, "one"))
    private = shared.with_name("private")
    share(private, 0o770)
    os.chown(private, STRANGER, GROUP)  # a group that its owner is not in
    run_as(User(STRANGER, OTHER_GROUP), write(private, "one"))
    for made in (folder, private):
        assert {0o600, 0o700} == {stat.S_IMODE(path.stat().st_mode) for path in made.rglob("*")}


@as_root
def test_a_store_in_a_shared_folder_is_shared_and_in_another_it_is_not(shared: Path, tmp_path: Path) -> None:
    imported(tmp_path)
    for mode, wanted in ((0o2770, 0o2770), (0o2750, 0o2750), (0o770, 0o2770), (0o755, 0o700), (0o1777, 0o700)):
        parent = shared.with_name(f"parent-{mode:o}")
        share(parent, mode)
        run_as(User(ADMIN, GROUP), write(parent / "new" / "data", "one"))
        made = {path.name: f"{stat.S_IMODE(path.stat().st_mode):o}" for path in parent.rglob("*") if path.is_dir()}
        assert dict.fromkeys(("new", "data", "shards"), f"{wanted:o}") == made
        assert {wanted & 0o660} == {
            stat.S_IMODE(path.stat().st_mode) for path in parent.rglob("*") if not path.is_dir()
        }
