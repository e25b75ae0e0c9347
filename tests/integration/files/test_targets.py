"""No command that writes a file where the user says replaces anything of a store, whatever option it is given."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeshard
from edgeshard import cli
from edgeshard.cli import exits
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import ConfigurationError
from edgeshard.files import paths, targets
from tests.support.forms import others_slow
from tests.support.processes import command
from tests.support.stores import new_store, numbers

pytest.importorskip("prometheus_client")

#: Rows that the master has, and rows that are pending.
MERGED, PENDING = range(5), range(5, 15)


def _page(store: edgeshard.Store, target: Path) -> None:
    options = cli.parse(["status", str(store.root), "--html", str(target)])
    options.run(options)


def _metrics(store: edgeshard.Store, target: Path) -> None:
    MetricsFile(target, store.root).write()


WRITES: dict[str, Callable[[edgeshard.Store, Path], object]] = {
    "snapshot": lambda store, target: store.snapshot(target),
    "snapshot --force": lambda store, target: store.snapshot(target, force=True),
    "snapshot --force --no-check": lambda store, target: store.snapshot(target, force=True, check=False),
    "export": lambda store, target: store.export(target),
    "export --force": lambda store, target: store.export(target, force=True),
    "status --html": _page,
    "merge --metrics-file": _metrics,
}

#: The same as command lines; a watcher would not end if its file were accepted.
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "snapshot": lambda root, target: ["snapshot", str(root), str(target), "--force"],
    "export": lambda root, target: ["export", str(root), str(target), "--force"],
    "status --html": lambda root, target: ["status", str(root), "--html", str(target)],
    "status --html --every": lambda root, target: ["status", str(root), "--html", str(target), "--every", "9"],
    "merge --metrics-file": lambda root, target: ["merge", str(root), "--watch", "--metrics-file", str(target)],
}

#: Names in a store's folder: what is there, what another process may make at any time, and what a user keeps for us.
PARTS = [
    *("master.db", "master.db-wal", "master.db-shm", "master.db-journal", "master.db.edgeshard-1a2b3c4d.new"),
    *("shards/boiler.db", "shards/boiler.db-wal", "shards/boiler.db-shm", "shards/boiler.lock", "shards/new.db"),
    *("shards/folder/x.html", "shards", "merge.lock", "watch.lock", "budget.json", "quotas", "reserve", "erased.json"),
    *("removed-shards.db", "removed-shards.db-journal", "removed-shards-damaged-1a2b3c4d.db", "master-damaged.json"),
    *("restored-master.db", "restored-master.db-wal", "replaced-master-20261129-031000-1a2b3c4d.db", "refresh.sql"),
    *("replaced-master-20261129-031000-1a2b3c4d.db-wal", "salvage-0123456789abcdef/rescued.db"),
    *("MASTER.DB", "Shards/boiler.db"),
]


def filled(root: Path) -> edgeshard.Store:
    """Return a store with merged and with pending rows, and one of each of its files."""
    store = new_store(root)
    for rows in (MERGED, PENDING):
        with store.shard("boiler") as shard:
            shard.write_many({"n": n} for n in rows)
        if rows is MERGED:
            store.merge()
    for name in ("watch.lock", "refresh.sql", "master-damaged.json.edgeshard-1a2b3c4d.new", "quotas"):
        root.joinpath(name).touch()
    for name in ("salvage-0123456789abcdef", "shards/folder"):
        root.joinpath(name).mkdir()
    return store


@pytest.fixture
def data(tmp_path: Path) -> Iterator[edgeshard.Store]:
    """A store of which nothing may be replaced, and of whose rows none may be lost."""
    store = filled(tmp_path / "data")
    before = _content(store.root)
    yield store
    assert before == _content(store.root)
    store.merge()
    assert [*MERGED, *PENDING] == numbers(store)


def _content(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return inode and content of each file of a store but for SQLite's indexes of WALs."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.read_bytes())
        for path in files
        if path.stat().st_size or not path.name.endswith("-wal")
    }


def assert_refused(write: str, store: edgeshard.Store, target: Path) -> None:
    """Check that a call is refused with an error that names the path and says what to do."""
    there = os.path.lexists(target)
    with pytest.raises(
        ConfigurationError, match=r"choose a|name a file in it|name the file itself|make it|create it"
    ) as caught:
        WRITES[write](store, target)
    assert os.path.basename(target) in caught.value.path
    assert there == os.path.lexists(target)


@pytest.mark.parametrize("write", WRITES)
def test_no_part_of_the_own_store_or_of_another_is_replaced_or_made(
    data: edgeshard.Store, tmp_path: Path, write: str
) -> None:
    other = new_store(tmp_path / "other")
    (tmp_path / "link").symlink_to(data.root)
    for part in PARTS:
        assert_refused(write, data, data.root / part)
        assert_refused(write, other, data.root / part)
        assert_refused(write, other, tmp_path / "link" / part)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_command_exits_78_and_names_what_it_would_have_replaced(
    data: edgeshard.Store, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    for part in ("shards/boiler.db", "master.db", "merge.lock", "removed-shards.db"):
        assert exits.CONFIGURATION == cli.main(COMMANDS[verb](data.root, data.root / part)), part
        out, err = capsys.readouterr()
        assert ("", True, True, False) == (out, part in err, "choose a" in err, "(--force)" in err)


@pytest.mark.parametrize("write", WRITES)
def test_a_folder_of_shards_that_is_elsewhere_is_known_by_all_its_names(tmp_path: Path, write: str) -> None:
    store = filled(tmp_path / "data")
    (store.root / "shards").rename(tmp_path / "flash")
    (store.root / "shards").symlink_to(tmp_path / "flash")
    other = new_store(tmp_path / "other")
    before = _content(tmp_path / "flash")
    for name in ("boiler.db", "new.db"):
        assert_refused(write, store, store.root / "shards" / name)
        assert_refused(write, store, tmp_path / "flash" / name)
        assert_refused(write, other, store.root / "shards" / name)
    for name in ("boiler.db", "boiler.lock"):  # nothing says here whose folder this is
        assert_refused(write, other, tmp_path / "flash" / name)
    assert before == _content(tmp_path / "flash")
    store.merge()
    assert [*MERGED, *PENDING] == numbers(store)


@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing", "link to a shard", "FIFO", "socket"])
@pytest.mark.parametrize("write", others_slow(WRITES, [*WRITES][:2]))
def test_what_is_no_regular_file_is_not_replaced(data: edgeshard.Store, tmp_path: Path, write: str, kind: str) -> None:
    target, other = tmp_path / "target", tmp_path / "other.html"
    other.write_text("")
    if kind == "folder":
        target.mkdir()
    elif kind == "FIFO":
        os.mkfifo(target)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(target))
    else:
        ways = {"link": other, "link to nothing": tmp_path / "none", "link to a shard": data.root / "shards/boiler.db"}
        target.symlink_to(ways[kind])
    before = os.lstat(target)
    assert_refused(write, data, target)
    assert (before.st_ino, before.st_mode) == (os.lstat(target).st_ino, os.lstat(target).st_mode)
    assert "" == other.read_text()


@pytest.mark.parametrize(
    "content", ["precious", "<!doctype html><html><p>my page", "SQLite format 3\0", "# HELP node_load1"]
)
@pytest.mark.parametrize("write", ["snapshot", "export", "status --html", "merge --metrics-file"])
def test_a_file_of_somebody_elses_stays(data: edgeshard.Store, tmp_path: Path, write: str, content: str) -> None:
    target = tmp_path / "target"
    target.write_text(content)
    assert_refused(write, data, target)
    assert content == target.read_text()


@pytest.mark.parametrize("write", others_slow(WRITES, ["snapshot"]))
@pytest.mark.parametrize("name", ["status.html", "backup.db", "masters.db", "shards.html", "pages/status.html"])
def test_a_user_may_keep_files_in_the_folder_of_a_store(tmp_path: Path, write: str, name: str) -> None:
    store = filled(tmp_path / "data")
    target = store.root / name
    target.parent.mkdir(exist_ok=True)
    WRITES[write](store, target)
    first = target.stat()
    if write in ("snapshot", "export"):
        with pytest.raises(ConfigurationError, match="exists already"):
            WRITES[write](store, target)
    else:
        WRITES[write](store, target)
        assert first.st_ino != target.stat().st_ino
    store.merge()
    assert [*MERGED, *PENDING] == numbers(store)


@pytest.mark.parametrize("write", ["status --html", "merge --metrics-file"])
def test_an_empty_file_and_a_file_of_ours_is_replaced(data: edgeshard.Store, tmp_path: Path, write: str) -> None:
    target = tmp_path / "target"
    target.touch()
    WRITES[write](data, target)
    first = target.read_bytes()
    WRITES[write](data, target)
    assert first[:18] == target.read_bytes()[:18] != b""


def test_the_page_of_a_store_that_cannot_be_read_is_replaced_too(tmp_path: Path) -> None:
    store = filled(tmp_path / "data")
    saved = store.master_path.read_bytes()
    target = tmp_path / "status.html"
    store.master_path.write_bytes(b"\xff" * len(saved))
    with pytest.raises(edgeshard.EdgeshardError):
        _page(store, target)
    store.master_path.write_bytes(saved)
    _page(store, target)
    assert "green" in target.read_text() or "yellow" in target.read_text()


def test_what_comes_while_metrics_are_kept_stays(tmp_path: Path) -> None:
    target = tmp_path / "edgeshard.prom"
    metrics = MetricsFile(target)
    metrics.write()
    target.write_text("precious")
    with pytest.raises(ConfigurationError, match="did not write it"):
        metrics.write()
    assert "precious" == target.read_text()
    assert ["edgeshard.prom"] == os.listdir(tmp_path)


def test_a_side_file_of_any_database_is_not_replaced(data: edgeshard.Store, tmp_path: Path) -> None:
    data.snapshot(tmp_path / "copy.db")
    for name in ("copy.db-wal", "copy.db-journal", "copy.db-shm", "copy.lock"):
        with pytest.raises(ConfigurationError, match=r"the database copy\.db next to it"):
            data.export(tmp_path / name, force=True)
    assert ["copy.db", "data"] == sorted(os.listdir(tmp_path))


def test_each_name_that_edgeshard_makes_in_a_store_is_its_own(tmp_path: Path) -> None:
    root = tmp_path
    made = [
        *(paths.master(root), paths.shards(root), paths.merge_lock(root), paths.watch_lock(root), paths.budget(root)),
        *(paths.removed_shards(root), paths.damage_note(root), paths.restored(root), paths.erased(root)),
        *(paths.refresh(root), paths.quotas(root), paths.reserve(root)),
        paths.replaced_master(root, "20261129-031000", "1a2b3c4d"),
    ]
    assert [] == [path.name for path in made if not paths.is_own_name(path.name)]
    for path in made:
        if path.suffix in (".db", ".json"):
            assert paths.is_own_name(paths.unfinished(path.name, "1a2b3c4d"))
        if path.suffix == ".db":
            assert all(map(paths.is_own_name, paths.side_files(path.name)))


def test_force_is_advised_only_where_it_helps(data: edgeshard.Store, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("old")
    assert "(--force)" in command("snapshot", data.root, tmp_path / "copy.db").stderr
    for target in (data.master_path, tmp_path, data.root / "shards/boiler.db"):
        done = command("snapshot", data.root, target)
        assert (78, False) == (done.returncode, "(--force)" in done.stderr)
    done = command("export", data.root, tmp_path / "copy.db", "--since-hub", "abcdef")
    assert (78, True, False) == (done.returncode, "no receipt at all" in done.stderr, "(--force)" in done.stderr)


def test_a_path_whose_folder_is_missing_is_no_obstacle_by_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "" == targets.find_obstacle(tmp_path / "none" / "x.db", tmp_path)
    assert "" == targets.find_obstacle(tmp_path / "file" / "x.db", None)


def test_a_device_is_an_obstacle() -> None:  # and no test gives it to a command that might replace it
    assert "not a regular file" in targets.find_obstacle("/dev/null", None)
