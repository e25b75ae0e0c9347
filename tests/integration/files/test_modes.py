"""Who may use what edgeshard makes: the store's owner alone, whatever the umask is, and even if root made it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import AccessError
from edgeshard.sources import readonly_copy
from tests.support.processes import command
from tests.support.stores import new_store, shard_path

UMASKS = [0, 0o022, 0o027, 0o077]

#: A user who owns a store, and is neither root nor known here.
OWNER = 54_321


@edgeshard.table(key="name")
@attrs.frozen
class Setting:
    name: str


def found(folder: Path) -> dict[str, os.stat_result]:
    """Return all that is in a folder, and the folder itself, by name."""
    return {str(path.relative_to(folder.parent)): path.lstat() for path in (folder, *folder.rglob("*"))}


def wrong_modes(folder: Path) -> dict[str, str]:
    """Return what others than the owner may use, or the owner may not."""
    modes = {name: (stat.S_ISDIR(item.st_mode), stat.S_IMODE(item.st_mode)) for name, item in found(folder).items()}
    return {name: oct(mode) for name, (is_folder, mode) in modes.items() if mode != (0o700 if is_folder else 0o600)}


def wrong_owners(folder: Path) -> list[str]:
    return [name for name, item in found(folder).items() if (item.st_uid, item.st_gid) != (OWNER, OWNER)]


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def write(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write(Setting("x"))
        shard.delete(Setting, "x")


def write_and_look(store: edgeshard.Store, look: Callable[[Path], object]) -> None:
    """Look while a handle, a watcher and their files (-wal, -shm, locks) are there."""
    with store.shard("agent") as shard, contextlib.closing(store.watcher()) as watcher:
        shard.write(Setting("x"))
        watcher.open()
        store.merge_now()
        shard.write(Setting("y"))
        assert not look(store.root)
        with store.shell():
            assert not look(store.root)


@pytest.mark.usefixtures("umask")
def test_all_files_of_a_store_are_its_owners_alone(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "new" / "data", max_bytes="100M")
    write_and_look(store, wrong_modes)
    store.prune(keep_rows=0, shrink=True)
    (store.root / "shards" / "bad.db").write_bytes(b"")
    (store.root / "shards" / "bad.db").chmod(0o600)
    store.merge()
    write(store)
    store.salvage(shard_path(store, "agent"))
    store.status()
    store.verify(deep=True)
    assert {} == wrong_modes(tmp_path / "new")
    assert {"budget.json", "master.db", "merge.lock", "watch.lock", "shards"} <= {
        path.name for path in store.root.iterdir()
    }


@pytest.mark.usefixtures("umask")
def test_files_outside_of_a_store_have_the_documented_modes(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data")
    write(store)
    report = store.merge()
    out = tmp_path / "out"
    out.mkdir()
    store.snapshot(out / "snapshot.db")
    store.export(out / "bundle.db")
    metrics = MetricsFile(out / "x.prom")
    metrics.count_pass(report)
    for _ in range(2):
        metrics.write()
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in out.iterdir()}
    assert {"snapshot.db": "0o600", "bundle.db": "0o600", "x.prom": "0o644"} == modes


@pytest.mark.usefixtures("umask")
def test_a_copy_of_a_database_on_a_read_only_medium_is_its_owners_alone(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data")
    write(store)
    store.merge()
    copies = tmp_path / "copies"
    copies.mkdir()
    medium = tmp_path / "medium.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{store.master_path}{suffix}", f"{medium}{suffix}")
    with readonly_copy._FOLDERS.make(copies) as copy:
        readonly_copy._copy(str(medium), copy)
        assert (4, {}) == (len(found(copies)) - 1, wrong_modes(Path(copy).parent))


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")


@pytest.fixture
def owned(tmp_path: Path) -> edgeshard.Store:
    """Return a store in an empty folder of another user."""
    folder = tmp_path / "data"
    folder.mkdir(0o700)
    os.chown(folder, OWNER, OWNER)
    return edgeshard.Store(folder)


def give_away(store: edgeshard.Store) -> None:
    for path in (store.root, *store.root.rglob("*")):
        os.chown(path, OWNER, OWNER)


VERBS: dict[str, Callable[[edgeshard.Store, Path], object]] = {
    "write": lambda store, _: write(store),
    "init": lambda store, _: store.init(),
    "budget": lambda store, _: store.note_budget("100M"),
    "merge": lambda store, _: store.merge(),
    "dry run": lambda store, _: store.merge(dry_run=True),
    "watch": lambda store, _: write_and_look(store, wrong_owners),
    "prune": lambda store, _: store.prune(keep_rows=0, shrink=True),
    "status": lambda store, _: store.status(),
    "verify": lambda store, _: store.verify(deep=True),
    "query": lambda store, _: store.query("select 1"),
    "snapshot": lambda store, out: store.snapshot(out / "snapshot.db"),
    "export": lambda store, out: store.export(out / "bundle.db"),
    "ranges": lambda store, _: store.ranges(),
    "receipt": lambda store, _: store.receipt(_inventory(store)),
    "salvage": lambda store, _: store.salvage(shard_path(store, "agent")),
}


def _inventory(store: edgeshard.Store) -> str:
    hub = new_store(f"{store.root}-hub")
    hub.merge([store.master_path])
    file = store.root.with_name("hub.json")
    file.write_text(hub.ranges().to_json())
    return str(file)


@as_root
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("is_new", [True, False])
def test_what_root_makes_in_the_store_of_another_user_is_that_users(
    owned: edgeshard.Store, tmp_path: Path, verb: str, is_new: bool
) -> None:
    if not is_new or verb not in ("write", "init", "watch"):
        write(owned)
        owned.merge()
        write(owned)
        give_away(owned)
    VERBS[verb](owned, tmp_path)
    assert [] == wrong_owners(owned.root)


@as_root
def test_the_owner_goes_on_after_root_merged_once() -> None:
    with tempfile.TemporaryDirectory() as outer:  # pytest's folders are root's alone
        os.chmod(outer, 0o711)
        folder = Path(outer) / "data"
        folder.mkdir(0o700)
        os.chown(folder, OWNER, OWNER)
        owned = edgeshard.Store(folder)
        write(owned)
        assert 0 == command("merge", owned.root).returncode
        assert 0 == as_owner(owned.root)


def as_owner(root: Path) -> int:
    """Write and merge as the owner; return an exit code."""
    pid = os.fork()
    if pid == 0:  # the owner
        code = 1
        try:
            os.chdir("/")
            os.setgid(OWNER)
            os.setuid(OWNER)
            store = edgeshard.Store(root)
            write(store)
            code = 0 if store.merge().rows else 2
        except BaseException as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@as_root
@pytest.mark.parametrize("verb", ["write", "budget", "merge", "watch"])
def test_a_root_that_cannot_give_files_away_is_refused_and_leaves_none(
    owned: edgeshard.Store, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if verb in ("budget", "merge"):  # these do not make a store
        (owned.root / "shards").mkdir()
        give_away(owned)
    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(AccessError, match=f"run the same command as that user: sudo -u '#{OWNER}'"):
        VERBS[verb](owned, tmp_path)
    assert [] == wrong_owners(owned.root)
