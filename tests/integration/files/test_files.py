"""Names, permissions and the look at a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import threading
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeshard
from edgeshard.errors import ConfigurationError, ShardPoisonedError, StorageBusyError, StorageIOError
from edgeshard.files import atomic_file, folders, locks, paths, scan
from edgeshard.files import folders as folders_module
from tests.support.processes import merge_command, python
from tests.support.stores import new_store

agent_names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)


@given(agent_names)
def test_any_name_becomes_a_plain_file_name(agent: str) -> None:
    stem = paths.shard_stem(agent)

    assert stem == os.path.basename(stem)
    assert len(stem) <= 100
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_~")
    assert stem[0] not in "-_"


@given(agent_names, agent_names)
def test_two_names_share_no_file_even_where_case_and_unicode_fold(one: str, other: str) -> None:
    def folded(stem: str) -> str:
        return unicodedata.normalize("NFKC", stem).casefold()

    assert (one == other) == (folded(paths.shard_stem(one)) == folded(paths.shard_stem(other)))


@pytest.mark.parametrize(
    "agent",
    ["boiler-room", "A", "a", "..", ".", "../../etc/passwd", "a/b", "a\\b", "file:x?mode=ro", "con", "x.db-wal", "é",
     "e\u0301", "名前", " ", "x" * 200, "🤖" * 200, "-rf", "'; drop table x; --"],
)  # fmt: skip
def test_an_agents_name_comes_back_exactly_as_given(store: edgeshard.Store, agent: str) -> None:
    with store.shard(agent) as shard:
        shard.write({"n": 1})
        assert os.path.dirname(shard.path) == str(store.root / "shards")
    store.merge()

    assert [(agent,)] == store.query("select agent_id from agent_data")
    assert [(agent,)] == store.query("select agent_id from _edgeshard_streams")


@pytest.mark.parametrize("agent", ["", "x" * 201, "\ud800", None, 5])
def test_what_cannot_be_a_name_is_refused(store: edgeshard.Store, agent: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        store.shard(agent)
    assert not store.root.exists()


def test_files_and_folders_are_their_owners_alone(store: edgeshard.Store) -> None:
    before = os.umask(0)
    try:
        with store.shard("agent") as shard:
            shard.write({"n": 1})
            store.merge()
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in store.root.rglob("*")}
    finally:
        os.umask(before)
    assert {0o600} == {mode for path, mode in modes.items() if path.is_file()}
    assert {0o700} == {mode for path, mode in modes.items() if path.is_dir()} | {
        stat.S_IMODE(store.root.stat().st_mode)
    }


def test_a_folder_that_exists_keeps_its_mode(store: edgeshard.Store) -> None:
    store.root.mkdir(mode=0o755)
    store.root.chmod(0o755)
    with store.shard("agent") as shard:
        shard.write({"n": 1})

    assert 0o755 == stat.S_IMODE(store.root.stat().st_mode)


def test_no_half_made_file_is_left_behind(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge(keep_empty=True)

    names = {path.name for path in store.root.rglob("*") if path.is_file()}
    side = {"master.db-wal", "master.db-shm"}  # the master keeps them: see database.leave_quietly
    assert {"agent.db", "agent.lock", "master.db", "merge.lock"} == names - side


_AS_A_STRANGER = """
import os, sys
import edgeshard
from edgeshard import cli
edgeshard.load_all()  # while the interpreter's own files can be read
cli.verbs.parser_of("merge").format_help()
import edgeshard.cli.once
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    edgeshard.Store(sys.argv[1]).shard("another")
except edgeshard.EdgeshardError as error:
    print(type(error).__name__, error)
sys.exit(cli.main_of_merge([sys.argv[1]]))
"""


def test_a_read_only_folder_is_a_matter_of_permission() -> None:
    # not below tmp_path: pytest's folders are closed to the user that root has to become for this
    with tempfile.TemporaryDirectory() as folder:
        store = edgeshard.Store(folder)
        with store.shard("agent") as shard:
            shard.write({"n": 1})
        everything = [store.root, *store.root.rglob("*")]
        for path in everything:
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = python(_AS_A_STRANGER, store.root)
        for path in everything:
            path.chmod(0o700)

        assert "AccessError" in done.stdout, done.stderr
        assert "another" in done.stdout
        assert 77 == done.returncode
        assert "permission" in done.stderr
        assert 0 == merge_command(store.root).returncode
        assert 1 == len(store.query("select * from agent_data"))


def test_a_change_in_the_moment_of_the_look_does_not_go_unseen() -> None:
    changed_ns = 6_000_000_000
    state = (1, 4096, 5_000_000_000, 5_000_000_000, 2, 100, changed_ns)

    assert not scan.is_settled(state, changed_ns + 100)
    assert not scan.is_settled(state, changed_ns - 1_000_000_000)
    assert scan.is_settled(state, changed_ns + int(scan.FRESH_S * 1e9) + 100)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which folders were synced."""
    folders: list[Path] = []

    def sync_folder(path: Any, real: Any = folders_module.sync_folder) -> None:
        folders.append(Path(path))
        real(path)

    monkeypatch.setattr(folders_module, "sync_folder", sync_folder)
    return folders


def test_who_relies_on_a_folder_makes_its_name_durable_as_its_maker_may_have_died(
    store: edgeshard.Store, synced: list[Path]
) -> None:
    shards = store.root / "shards"
    shards.mkdir(parents=True)  # by somebody who was killed before he synced what is above
    with store.shard("agent", durability="power") as shard:
        shard.write({"n": 1})
        assert [shards, store.root] == synced
    synced.clear()
    with store.shard("agent", durability="power"):
        assert [shards, store.root] == synced
    synced.clear()
    with store.shard("agent") as shard:
        assert [] == synced
        shard.sync()
        assert [shards, store.root] == synced
    synced.clear()
    store.merge()
    assert {store.root, store.root.parent} <= set(synced)


def test_a_folder_is_made_in_folders_whose_names_are_durable(tmp_path: Path, synced: list[Path]) -> None:
    made = tmp_path / "made"
    made.mkdir()
    folders.make_folder(made / "one" / "two")
    # all there was, upwards; and then each that a name was put into
    above = [folder for folder in (made, *made.parents) if folder.stat().st_dev == made.stat().st_dev]
    assert [*above, made, made / "one"] == synced
    synced.clear()
    folders.make_folder(made / "one" / "two")
    assert [] == synced


def test_a_folder_above_that_cannot_be_read_is_none_that_we_made(
    tmp_path: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync_folder(path: Any) -> None:
        if Path(path) == tmp_path:
            raise PermissionError
        synced.append(Path(path))

    monkeypatch.setattr(folders, "sync_folder", sync_folder)
    (tmp_path / "one").mkdir()
    folders.sync_path(tmp_path / "one", None)
    assert [tmp_path / "one"] == synced


# -- file systems without hard links ----------------------------------------------------------------------------------


def fails_with(number: int) -> Any:
    """Return a system call that always fails with this error."""

    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", ["EPERM", "EACCES", "ENOSYS", "EOPNOTSUPP", "EXDEV", "EMLINK"])
def test_a_store_needs_no_hard_links(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setattr(os, "link", fails_with(getattr(errno, number)))
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        assert 1 == store.merge(keep_empty=True).rows
    store.export(tmp_path / "bundle.db")
    store.snapshot(tmp_path / "copy.db")
    for operation in (store.export, store.snapshot):
        (tmp_path / "mine.db").write_text("precious")
        with pytest.raises(ConfigurationError, match="exists already"):
            operation(tmp_path / "mine.db", progress=None)
        (tmp_path / "mine.db").unlink()

        def appear(_done: int, _to_do: int) -> None:
            (tmp_path / "mine.db").write_text("precious")

        with pytest.raises(ConfigurationError, match="exists already"):
            operation(tmp_path / "mine.db", progress=appear)
        assert "precious" == (tmp_path / "mine.db").read_text()
    assert {"data", "bundle.db", "copy.db", "mine.db"} == set(os.listdir(tmp_path))
    hub = new_store(tmp_path / "hub")
    assert 1 == hub.merge([tmp_path / "bundle.db", tmp_path / "copy.db"]).rows


def test_without_hard_links_only_one_of_many_publishes_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", fails_with(errno.EPERM))
    lexists = os.path.lexists

    def slow_lexists(path: Any) -> bool:
        found = lexists(path)
        threading.Event().wait(0.005)  # the others come meanwhile
        return found

    monkeypatch.setattr(os.path, "lexists", slow_lexists)
    published = []

    def publish(number: int) -> None:
        unfinished = tmp_path / f"{number}.new"
        unfinished.write_text(str(number))
        if atomic_file.publish(str(unfinished), str(tmp_path / "name")):
            published.append(str(number))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(tmp_path / "name").read_text()] == published


def test_a_folder_that_another_program_keeps_locked_is_named(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fails_with(errno.EPERM))
    monkeypatch.setattr(atomic_file, "_LOCK_WAIT_S", 0.05)
    shards = store.root / "shards"
    shards.mkdir(parents=True)
    handle = os.open(shards, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with (
            store.shard("agent") as shard,
            pytest.raises(StorageBusyError, match=f"keeps the folder {shards} locked"),
        ):
            shard.write({"n": 1})
    finally:
        os.close(handle)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    assert 1 == store.merge().rows


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_flock_is_blamed_for_its_own_errors_alone(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    handle = os.open(tmp_path, os.O_RDONLY)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fails_with(number))
        for call in (
            lambda: locks.lock(tmp_path / "lock"),
            lambda: locks.is_locked(tmp_path / "lock"),
            lambda: locks.lock_open_file(handle, tmp_path),
            lambda: store.snapshot(tmp_path / "copy.db"),
        ):
            with pytest.raises(StorageIOError, match="needs a file system with flock"):
                call()
    os.close(handle)
    monkeypatch.setattr(os, "rename", fails_with(number))
    with pytest.raises(StorageIOError) as caught:
        store.snapshot(tmp_path / "copy.db", force=True)
    assert "flock" not in caught.value.cause


def test_an_error_of_link_that_says_something_else_is_reported(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fails_with(errno.EIO))
    with store.shard("agent") as shard:
        with pytest.raises(StorageIOError, match=os.strerror(errno.EIO)):
            shard.write({"n": 1})
        with pytest.raises(ShardPoisonedError, match="could not be made"):
            shard.write({"n": 1})
    assert ["agent.lock"] == os.listdir(store.root / "shards")


def test_a_users_file_in_the_folder_of_shards_stays(store: edgeshard.Store) -> None:
    shards = store.root / "shards"
    shards.mkdir(parents=True)
    names = {"agent.db.old.new", "agent.db.new", "agent.db.01234567.new"}
    left = {"agent.db.edgeshard-01234567.new", "agent.db.edgeshard-01234567.new-wal"}
    for name in names | left | {"agent.lock"}:  # whoever left something had taken the lock
        (shards / name).touch()
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        assert names <= set(os.listdir(shards))
        assert not left & set(os.listdir(shards))


@pytest.mark.parametrize("calls_before", [1, 2, 3, 4])
def test_a_database_that_is_made_while_it_is_looked_for_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    path, real, looks = str(tmp_path / "a.db"), scan._stat, 0

    def looked(name: str) -> os.stat_result | None:
        nonlocal looks
        looks += 1
        found = real(name)
        if looks == calls_before:
            for suffix in ("", *paths.SIDE_FILES):
                Path(path + suffix).write_bytes(b"content")
        return found

    monkeypatch.setattr(scan, "_stat", looked)
    found = scan.find_database(path)
    is_found = calls_before <= len(paths.SIDE_FILES)  # otherwise it was made after the last call
    assert found == (scan.find_database(path) if is_found else None)
    assert found is None or found.defect == ""


def test_a_log_without_its_database_is_found_by_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.db-wal").write_bytes(b"content")
    found = scan.find_database(str(tmp_path / "a.db"))
    assert found is not None
    assert "its database is missing" in found.defect
    real = scan._stat

    def removed(name: str) -> os.stat_result | None:
        found = real(name)
        (tmp_path / "a.db-wal").unlink(missing_ok=True)
        return found

    (tmp_path / "a.db-wal").write_bytes(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(scan, "_stat", lambda name: removed(name) if name.endswith("-wal") else real(name))
        assert scan.find_database(str(tmp_path / "a.db")) is None
