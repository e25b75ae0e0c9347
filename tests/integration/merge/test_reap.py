"""Shards whose agent is gone, and the lock files that they leave: removed, and never under an agent's hands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.files import locks, scan
from edgeshard.merge import dry_run, reap, truncate
from edgeshard.merge.merger import Merger
from edgeshard.sqlite import connection as connection_module
from tests.support.forms import short_and_full
from tests.support.processes import python, sql
from tests.support.stores import numbers, shard_path


def write(store: edgeshard.Store, agent: str, *values: int) -> None:
    with store.shard(agent) as shard:
        shard.write_many([{"n": n} for n in values])


def names_in(store: edgeshard.Store) -> list[str]:
    return sorted(os.listdir(store.root / "shards"))


def sharing(store: edgeshard.Store, root: Path) -> edgeshard.Store:
    """Another store, with the same shards."""
    root.mkdir()
    (root / "shards").symlink_to(store.root / "shards")
    return edgeshard.Store(root)


def test_a_shard_whose_agent_is_gone_is_removed_with_all_that_belongs_to_it(store: edgeshard.Store) -> None:
    write(store, "gone", 1, 2)
    with store.shard("here") as shard:
        shard.write({"n": 3})
        report = store.merge()
        assert (3, 3, 1) == (report.rows, report.truncated, report.removed)
        assert {"here"} == {name.split(".")[0] for name in names_in(store)}
    assert [1, 2, 3] == numbers(store)
    assert 1 == store.merge().removed
    assert ([], True) == (names_in(store), store.verify().ok)


def test_the_log_of_a_removed_shard_is_durably_gone_before_its_database(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may keep the names of a folder in any combination; a log alone would keep its agent out for ever."""
    steps: list[str] = []

    def unlink(path: str | Path, folder: int | None = None, real: Any = reap._unlink) -> None:
        steps.append(Path(path).name)
        real(path, folder)

    def sync_folder(folder: int, path: str, ready: Any, real: Any = reap._sync_folder) -> None:
        steps.append(f"sync {Path(path).name}")
        real(folder, path, ready)

    write(store, "gone", 1)
    monkeypatch.setattr(reap, "_unlink", unlink)
    monkeypatch.setattr(reap, "_sync_folder", sync_folder)
    assert 1 == store.merge().removed
    assert ["gone.db-wal", "sync shards", "gone.db"] == [
        step for step in steps if step in ("gone.db-wal", "sync shards", "gone.db")
    ]


def test_keep_empty_leaves_it(store: edgeshard.Store) -> None:
    write(store, "gone", 1)
    report = store.merge(keep_empty=True)
    assert (1, 1, 0) == (report.rows, report.truncated, report.removed)
    assert ["gone.db", "gone.lock"] == names_in(store)


def test_an_agent_that_comes_back_gets_a_new_shard_and_goes_on(store: edgeshard.Store) -> None:
    for n in range(5):
        write(store, "agent", n)
        assert (1, 1) == (store.merge().rows, len({*store.query("select count(*) from agent_data")}))
    assert [*range(5)] == numbers(store)


_KILLED_WHEN_QUIET = """
import os, signal, sys
import edgeshard
from edgeshard.files import scan
scan.FRESH_S = -1.0  # as if its last change were long ago
store = edgeshard.Store(sys.argv[1])
shard = store.shard("agent")
shard.write({"n": 1})
print([store.merge().shards for _ in range(3)], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_agent_that_died_without_a_trace_is_found(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    done = python(_KILLED_WHEN_QUIET, store.root)
    assert (-signal.SIGKILL, "[1, 0, 0]\n") == (done.returncode, done.stdout)
    assert (1, []) == (store.merge().removed, names_in(store))


def test_what_was_given_up_to_another_master_keeps_its_shard(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "agent", 1)
    store.merge(keep_empty=True)
    write(store, "agent", 2)
    report = sharing(store, tmp_path / "other").merge()
    assert (1, 0, 1) == (report.rows, report.removed, len(report.gaps))
    assert shard_path(store, "agent").exists()
    assert (0, 1, 1) == (store.merge().rows, len(store.merge().gaps), len(numbers(store)))


def test_a_row_that_comes_between_the_commit_and_the_removal_stays(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reap.remove

    def late(*arguments: Any) -> int:
        write(store, "agent", 2)
        return real(*arguments)

    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        patch.setattr(reap, "remove", late)
        report = store.merge()
    assert (1, 1, 0) == (report.rows, report.truncated, report.removed)
    assert 1 == store.merge().rows
    assert [1, 2] == numbers(store)


def test_another_shard_that_took_its_place_stays(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reap.remove
    other = sharing(store, tmp_path / "other")

    def late(*arguments: Any) -> int:
        shard_path(store, "agent").unlink()
        write(store, "agent", 2)
        other.merge(keep_empty=True)
        return real(*arguments)

    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        patch.setattr(reap, "remove", late)
        assert 0 == store.merge().removed
    # that this row went to another master is written nowhere but in the shard
    assert (0, 1) == (store.merge().removed, len(store.merge().gaps))


def test_a_shard_that_somebody_reads_without_the_lock_stays(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    reader = sqlite.connect(str(shard_path(store, "agent")), writable=False)
    try:
        sqlite.fetch(reader, "select * from agent_data")
        report = store.merge()
        assert (1, 1, 0) == (report.rows, report.truncated, report.removed)
    finally:
        reader.close()
    assert [1] == numbers(store)
    assert [[0]] == sql(shard_path(store, "agent"), "select count(*) from agent_data")


def test_a_shard_in_which_somebody_keeps_a_table_of_his_own_stays(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    sql(shard_path(store, "agent"), "create table notes(text)", "insert into notes values ('precious')")
    report = store.merge()
    assert (1, 1, 0) == (report.rows, report.truncated, report.removed)
    assert [["precious"]] == sql(shard_path(store, "agent"), "select text from notes")


_REMOVES_AND_COMES_BACK = """
import sys
import edgeshard
from edgeshard.merge.merger import Merger
store = edgeshard.Store(sys.argv[1])
merger = Merger(store.root)
merger.run()
merger.close()
shard = store.shard("agent")
for n in range(2, 32):
    shard.write({"n": n})
print("written", flush=True)
sys.stdin.read()
shard.close()
"""


def test_a_truncation_through_a_file_that_was_removed_does_not_touch_its_successor(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = connection_module.connect
    others: list[subprocess.Popen[str]] = []

    def late(path: str, **options: Any) -> Any:
        connection = real(path, **options)
        if not others and path == str(shard_path(store, "agent")):  # opened, and nothing read yet
            command = [sys.executable, "-c", _REMOVES_AND_COMES_BACK, str(store.root)]
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert others[0].stdout is not None
            assert "written\n" == others[0].stdout.readline()
        return connection

    write(store, "agent", 1)
    merger = Merger(store.root, keep_empty=True)  # the protocol holds without merge.lock
    with monkeypatch.context() as patch:
        patch.setattr(connection_module, "connect", late)
        report = merger.run()
    merger.close()
    assert (1, 0, 1) == (report.rows, report.truncated, len(others))
    others[0].communicate(timeout=60)
    store.merge()
    assert [*range(1, 32)] == numbers(store)


def test_locks_that_are_none_stop_nobody(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    folder = store.root / "shards"
    (folder / "folder.lock").mkdir()
    (folder / "link.lock").symlink_to("nowhere")
    (folder / "agent.lock").unlink()
    (folder / "agent.lock").symlink_to("nowhere")
    for _ in range(3):
        report = store.merge()
        assert () == report.quarantined
    assert ([1], True) == (numbers(store), shard_path(store, "agent").exists())


def test_a_shard_that_another_merger_removes_before_it_is_read_is_no_problem(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite.attach

    def late(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "attach", real)
            other = Merger(store.root)
            other.run()
            other.close()
        real(*arguments)

    write(store, "agent", 1)
    merger = Merger(store.root)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "attach", late)
        assert () == merger.run().quarantined
    merger.close()
    assert [1] == numbers(store)


class Killed(BaseException):
    """Stands for the end of a process that is killed."""


def merge_and_be_killed(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Merge, and be killed when a file of the folder of shards is removed: the first, the second, ..."""
    real, calls = os.unlink, []

    def kill(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None and os.path.samestat(os.fstat(dir_fd), os.stat(store.root / "shards")):
            calls.append(path)
            if len(calls) == number:
                raise Killed
        real(path, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(reap.os, "unlink", kill)  # type: ignore[attr-defined]
        with pytest.raises(Killed):
            store.merge()


def test_a_removal_killed_on_the_way_leaves_a_whole_shard(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kills in range(1, 4):  # its WAL, its database and its lock file
        write(store, "agent", kills)
        merge_and_be_killed(store, monkeypatch, kills)
        assert (0, ()) == (store.merge().rows, store.merge().quarantined)
        assert [] == names_in(store)
    assert [1, 2, 3] == numbers(store)


AGENTS = ("a", "b", "c")


@pytest.fixture
def without_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine closes a group early."""
    monkeypatch.setattr(reap, "_GROUP_S", 60.0)


def write_group(store: edgeshard.Store, first: int = 0) -> None:
    """Three shards of agents that have ended, which are removed together."""
    for n, agent in enumerate(AGENTS, first):
        write(store, agent, n)


@pytest.mark.usefixtures("without_haste")
def test_a_group_syncs_its_folder_once_and_holds_all_locks_until_its_files_are_gone(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_unlink, real_sync = reap._unlink, reap._sync_folder

    def unlink(path: str | Path, folder: int | None = None) -> None:
        name = Path(path).name
        if not name.endswith(".lock"):
            assert locks.is_locked(store.root / "shards" / f"{name.split('.')[0]}.lock"), name
        steps.append(name)
        real_unlink(path, folder)

    def sync_folder(folder: int, path: str, ready: Any) -> None:
        steps.append(f"sync {Path(path).name}")
        assert all(locks.is_locked(store.root / "shards" / f"{agent}.lock") for agent in AGENTS)
        real_sync(folder, path, ready)

    write_group(store)
    monkeypatch.setattr(reap, "_unlink", unlink)
    monkeypatch.setattr(reap, "_sync_folder", sync_folder)
    assert (3, 3, 3) == ((report := store.merge()).rows, report.truncated, report.removed)
    order = [step for step in steps if step.endswith(("-wal", ".db", "shards", ".lock"))]
    wals = [f"{agent}.db-wal" for agent in AGENTS]
    assert [*wals, "sync shards", *(f"{agent}.{end}" for agent in AGENTS for end in ("db", "lock"))] == order
    assert [] == names_in(store)


@pytest.mark.usefixtures("without_haste")
@pytest.mark.parametrize("suffix", ["-wal", ""])
@pytest.mark.parametrize("agent", AGENTS)
def test_a_shard_that_cannot_be_removed_stops_no_other(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, agent: str, suffix: str
) -> None:
    real = reap._unlink

    def unlink(path: str | Path, folder: int | None = None) -> None:
        if Path(path).name == f"{agent}.db{suffix}":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, folder)

    write_group(store)
    with monkeypatch.context() as patch:
        patch.setattr(reap, "_unlink", unlink)
        report = store.merge()
    assert (3, 2) == (report.rows, report.removed)
    assert [shard_path(store, agent)] == [Path(item.path) for item in report.quarantined]
    assert "its rows are merged, but cannot be deleted from it" in report.quarantined[0].reason
    assert f"{agent}.db" in names_in(store)
    assert not locks.is_locked(store.root / "shards" / f"{agent}.lock")
    assert (0, 1, ()) == ((report := store.merge()).rows, report.removed, report.quarantined)
    assert ([0, 1, 2], []) == (numbers(store), names_in(store))


@pytest.mark.usefixtures("without_haste")
def test_a_shard_of_a_group_that_got_a_row_stays(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = reap.remove

    def late(*arguments: Any) -> int:
        write(store, "b", 7)
        return real(*arguments)

    write_group(store)
    with monkeypatch.context() as patch:
        patch.setattr(reap, "remove", late)
        assert (3, 2) == ((report := store.merge()).rows, report.removed)
    assert [[7]] == sql(shard_path(store, "b"), "select data ->> 'n' from agent_data")
    assert (1, 1) == ((report := store.merge()).rows, report.removed)
    assert [0, 1, 2, 7] == numbers(store)


@pytest.mark.usefixtures("without_haste")
def test_nothing_is_removed_if_the_master_is_replaced_meanwhile(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reap._sync_folder

    def sync_folder(*arguments: Any) -> None:
        real(*arguments)
        os.rename(store.master_path, store.root / "elsewhere.db")

    write_group(store)
    with monkeypatch.context() as patch:
        patch.setattr(reap, "_sync_folder", sync_folder)
        with pytest.raises(edgeshard.StorageIOError, match="replaced during the merge"):
            store.merge()
    assert {f"{agent}.db" for agent in AGENTS} <= set(names_in(store))
    assert not any(locks.is_locked(store.root / "shards" / f"{agent}.lock") for agent in AGENTS)
    os.rename(store.root / "elsewhere.db", store.master_path)
    assert (0, 3) == ((report := store.merge()).rows, report.removed)
    assert [0, 1, 2] == numbers(store)


@pytest.mark.usefixtures("without_haste")
@pytest.mark.parametrize("kills", range(1, 10))  # the WAL of each of three, their databases and locks
def test_a_removal_of_a_group_killed_on_the_way_leaves_whole_shards(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    write_group(store)
    merge_and_be_killed(store, monkeypatch, kills)
    for path in (store.root / "shards").glob("*.db"):
        assert [["ok"]] == sql(path, "pragma integrity_check")
    write_group(store, 3)  # all of them come back
    assert (3, ()) == ((report := store.merge()).rows, report.quarantined)
    assert ([*range(6)], []) == (numbers(store), names_in(store))
    assert store.verify().ok


_MERGES_WITH_FEW_DESCRIPTORS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
import edgeshard
from edgeshard.merge import reap
reap._GROUP_S = 60.0
report = edgeshard.Store(sys.argv[1]).merge()
print(report.rows, report.removed, len(report.quarantined), len(os.listdir("/dev/fd")) < 40)
"""


@pytest.mark.parametrize("descriptors", [40, 256])
def test_a_group_is_as_large_as_there_are_descriptors(store: edgeshard.Store, descriptors: int) -> None:
    for n in range(70):
        write(store, f"process-{n}", n)
    done = python(_MERGES_WITH_FEW_DESCRIPTORS, store.root, descriptors)
    assert (0, "70 70 0 True\n") == (done.returncode, done.stdout), done.stderr
    assert [] == names_in(store)


@pytest.mark.usefixtures("without_haste")
def test_a_group_has_no_more_shards_than_descriptors_are_free(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = reap.remove

    def remove(*arguments: Any) -> int:
        sizes.append(real(*arguments))
        return sizes[-1]

    monkeypatch.setattr(reap, "remove", remove)
    write_group(store)
    store.merge()
    monkeypatch.setattr(reap, "_DESCRIPTORS", 1 << 40)  # as if none were free
    write_group(store, 3)
    store.merge()
    assert ([3, 1, 1, 1], []) == (sizes, names_in(store))


def test_lock_files_beside_no_shard_are_removed_unless_somebody_holds_them(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    for name in ("old", "held"):
        (store.root / "shards" / f"{name}.lock").touch()
    held = locks.lock(store.root / "shards" / "held.lock")
    assert held is not None
    store.merge()
    assert ["held.lock"] == names_in(store)
    held.release()
    with store.shard("agent") as shard:
        store.merge()
        assert 2 == len(names_in(store))  # its lock, and the draft of its shard
        shard.write({"n": 2})
    store.merge()
    assert ([], [1, 2]) == (names_in(store), numbers(store))


_KILLED_IN_THE_MAKING = """
import os, signal, sys
import edgeshard
from edgeshard.files import atomic_file
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
atomic_file.publish = kill
edgeshard.Store(sys.argv[1]).shard("agent").write({"n": 1})
"""


def test_what_a_killed_making_of_a_shard_left_is_removed_and_what_one_at_work_has_is_not(
    store: edgeshard.Store,
) -> None:
    assert -signal.SIGKILL == python(_KILLED_IN_THE_MAKING, store.root).returncode
    assert 2 == len(names_in(store))
    held = locks.lock(store.root / "shards" / "agent.lock")
    assert held is not None
    store.merge()
    assert 2 == len(names_in(store))
    held.release()
    store.merge()
    assert [] == names_in(store)


def test_a_shard_removed_by_another_merger_is_forgotten(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    merger = Merger(store.root)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(truncate, "_has_news", lambda *_: True)
            assert 1 == merger.run().truncated
    assert 1 == store.merge().removed
    assert (0, ()) == (merger.run().shards, merger.run().quarantined)
    merger.close()


def test_a_dry_run_does_not_complain_of_what_a_merger_removes_meanwhile(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dry_run._is_due

    def late(*arguments: Any) -> bool:
        store.merge()
        return real(*arguments)

    write(store, "agent", 1)
    monkeypatch.setattr(dry_run, "_is_due", late)
    assert () == store.merge(dry_run=True).quarantined


# more than can be attached at once
@pytest.mark.parametrize("shards", short_and_full(101, 250))
def test_many_dead_shards_are_gone_after_one_merge(store: edgeshard.Store, shards: int) -> None:
    for n in range(shards):
        write(store, f"process-{n}", n)
    report = store.merge()
    assert (shards, shards, shards) == (report.rows, report.shards, report.removed)
    assert (0, []) == (store.merge().shards, names_in(store))
    assert [*range(shards)] == numbers(store)
    assert [] == store.query("select * from _edgeshard_shards")


_REOPENS = """
import os, random, sys, time
import edgeshard
store = edgeshard.Store(sys.argv[1])
agent, enough = sys.argv[2:]
n = 0
while not os.path.exists(enough):
    with store.shard(agent) as shard:
        for _ in range(random.randint(1, 3)):
            shard.write({"n": n})
            n += 1
    time.sleep(random.choice([0.001, 0.01, 0.1, 0.5]))
print(n)
"""

_MERGES = """
import os, sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
removed = 0
while removed < int(sys.argv[2]):
    removed += store.merge(lock_wait=-1).removed
"""


@pytest.mark.slow
def test_agents_that_open_at_that_moment_lose_nothing(store: edgeshard.Store, tmp_path: Path) -> None:
    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(store.root), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    store.init()  # the mergers may begin before the agents
    agents = {f"agent-{n}": start(_REOPENS, f"agent-{n}", tmp_path / "enough") for n in range(3)}
    for merger in [start(_MERGES, 8) for _ in range(2)]:
        assert ("", "") == merger.communicate(timeout=60)
    (tmp_path / "enough").touch()
    written = {}
    for agent, process in agents.items():
        out, err = process.communicate(timeout=60)
        assert (0, "") == (process.returncode, err)
        written[agent] = int(out)
    store.merge()
    rows = store.query("select agent_id, count(*), count(distinct data), max(data ->> 'n') from agent_data group by 1")
    assert sorted((agent, n, n, n - 1) for agent, n in written.items()) == sorted(map(tuple, rows))
    assert store.verify().ok
