"""Sources that a merge is given by name: read as they are, left as they are, whoever holds them, however they are named."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format, sqlite
from edgeshard.files import locks
from edgeshard.format.ranges import Range
from edgeshard.sources import bounds, diff
from tests.support.fleet_model import Fleet, content, timestamp
from tests.support.forms import others_slow
from tests.support.hostile_shards import edit
from tests.support.processes import command
from tests.support.stores import new_store, numbers, shard_path


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        for n in ns:
            shard.write({"n": n})


@pytest.fixture
def hub(tmp_path: Path) -> edgeshard.Store:
    """A store that others are merged into."""
    return new_store(tmp_path / "hub")


@pytest.fixture
def device(store: edgeshard.Store) -> edgeshard.Store:
    """A store with three rows in its master, and two in a shard."""
    write(store, "agent", 1, 2, 3)
    store.merge()
    write(store, "agent", 4, 5)
    return store


# -- by which name ----------------------------------------------------------------------------------------------------


def test_a_source_given_twice_by_several_names_is_merged_once(
    device: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(device.master_path)
    (tmp_path / "folder").symlink_to(device.root)
    relative = os.path.relpath(device.master_path)
    report = hub.merge([device.master_path, "link.db", "folder/master.db", relative])
    assert (3, ()) == (report.rows, report.quarantined)
    assert [1, 2, 3] == numbers(hub)


def test_a_link_to_a_source_is_left_and_so_is_what_it_leads_to(
    device: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(shard_path(device, "agent"))
    before = timestamp(shard_path(device, "agent"))
    assert 2 == hub.merge([link]).rows
    assert (True, before) == (link.is_symlink(), timestamp(shard_path(device, "agent")))


@pytest.mark.parametrize("by_link", [False, True])
def test_a_hub_that_is_given_itself_has_nothing_to_do(device: edgeshard.Store, tmp_path: Path, by_link: bool) -> None:
    device.merge()
    before = content(device.master_path)
    name = tmp_path / "link.db" if by_link else device.master_path
    if by_link:
        name.symlink_to(device.master_path)
    report = device.merge([name, name])
    assert (0, ()) == (report.rows, report.quarantined)
    assert before == content(device.master_path)
    assert device.verify(deep=True).ok


def test_a_shard_of_its_own_that_a_store_is_given_as_a_source_is_merged_once(device: edgeshard.Store) -> None:
    report = device.merge([shard_path(device, "agent")])
    assert (2, 1, ()) == (report.rows, report.removed, report.quarantined)
    assert [1, 2, 3, 4, 5] == numbers(device)


def test_an_older_copy_does_not_make_a_hub_forget_where_rows_went(
    device: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    with device.shard("agent") as shard:
        for n in (6, 7):
            shard.write({"n": n})
            device.merge()
        shard.write({"n": 8})
        older = tmp_path / "older.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard_path(device, 'agent')}{suffix}", f"{older}{suffix}")
        device.merge()
        shard.write({"n": 9})
        device.merge()
        hub.merge([shard_path(device, "agent")])
    hub.merge([older])
    assert [(1, 2, "another master"), (4, 4, "another master")] == [
        (loss.gap.first, loss.gap.last, loss.cause) for loss in hub.verify().losses if loss.gap.stream == shard.stream
    ]


def test_where_rows_went_is_known_although_a_hub_has_some_rows_before_them(
    device: edgeshard.Store, hub: edgeshard.Store
) -> None:
    with device.shard("agent") as shard:
        shard.write({"n": 6})
        hub.merge([shard_path(device, "agent")])
        shard.write_many([{"n": 7}, {"n": 8}])
        device.merge()
        shard.write({"n": 9})
        hub.merge([shard_path(device, "agent")])
    assert [(2, 3, "another master")] == [
        (loss.gap.first, loss.gap.last, loss.cause) for loss in hub.verify().losses if loss.gap.stream == shard.stream
    ]


def test_rows_are_held_only_if_all_of_them_are() -> None:
    connection = sqlite.open_in_memory(format.MASTER_TABLES)
    held = {2, 3, 5, 8, 9}
    for first, last in ((2, 3), (5, 5), (8, 9)):
        connection.execute("INSERT INTO _edgeshard_ranges VALUES (1, ?, ?)", (first, last))
    for first, last in itertools.combinations_with_replacement(range(1, 11), 2):
        is_held = diff.is_held(connection, 1, Range(first, last))
        assert held.issuperset(range(first, last + 1)) == is_held, (first, last)
    connection.close()


def test_a_folder_as_a_source_is_set_aside_with_a_word_on_what_to_name(
    device: edgeshard.Store, hub: edgeshard.Store
) -> None:
    (found,) = hub.merge([device.root]).quarantined
    assert found.reason.startswith("it is a folder; ")
    assert 3 == hub.merge([found.reason.rpartition(" ")[2]]).rows


def test_the_command_takes_masters_shards_bundles_and_copies_in_any_order_and_again(
    device: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    device.export(tmp_path / "bundle.db")
    device.snapshot(tmp_path / "snapshot.db")
    copied = Path(shutil.copy(shard_path(device, "agent"), tmp_path / "copy.db"))
    sources = [
        copied,
        tmp_path / "bundle.db",
        device.master_path,
        shard_path(device, "agent"),
        tmp_path / "snapshot.db",
    ]
    before = [timestamp(path) for path in sources]
    for number in range(3):
        store = new_store(tmp_path / f"hub{number}")
        random.Random(number).shuffle(order := [*sources])
        for expected in (5, 0):
            done = command("merge", *(word for path in order for word in ("--from", path)), store.root)
            assert (0, "", f"merged {expected} rows") == (done.returncode, done.stderr, done.stdout[:13])
        assert ([1, 2, 3, 4, 5], True) == (numbers(store), store.verify(deep=True).ok)
    hub.merge([tmp_path / f"hub{number}" / "master.db" for number in range(3)])
    assert [1, 2, 3, 4, 5] == numbers(hub)
    assert before == [timestamp(path) for path in sources]


# -- in whose hands ---------------------------------------------------------------------------------------------------


def test_a_source_whose_writer_is_in_a_transaction_gives_what_is_committed(
    device: edgeshard.Store, hub: edgeshard.Store
) -> None:
    path = shard_path(device, "agent")
    with device.shard("agent") as shard, shard.transaction():
        shard.write({"n": 6})
        before = timestamp(path)
        report = hub.merge([path])
        assert (2, (), before) == (report.rows, report.quarantined, timestamp(path))
    assert 1 == hub.merge([path]).rows
    assert [4, 5, 6] == numbers(hub)


_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma locking_mode = exclusive")
connection.execute("begin exclusive")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """Another process keeps everybody out of the database."""
    command = [sys.executable, "-c", _HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "held\n" == process.stdout.readline()
        yield
    finally:
        process.communicate("")


@pytest.mark.parametrize("kind", ["shard", "snapshot"])
def test_a_source_that_somebody_keeps_locked_is_named_and_holds_up_no_other(
    device: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path, kind: str
) -> None:
    device.snapshot(tmp_path / "snapshot.db")
    locked = {"shard": shard_path(device, "agent"), "snapshot": tmp_path / "snapshot.db"}[kind]
    write(device, "other", 7)
    with held_by_another(locked):
        report = hub.merge([locked, shard_path(device, "other")])
        assert (1, 2, [str(locked)]) == (report.rows, report.shards, [item.path for item in report.quarantined])
        assert "locked" in report.quarantined[0].reason
    report = hub.merge([locked])
    assert ({"shard": 2, "snapshot": 3}[kind], ()) == (report.rows, report.quarantined)


def test_a_live_master_is_merged_beside_its_own_merger(device: edgeshard.Store, hub: edgeshard.Store) -> None:
    with device.watching(interval=0.01), device.shard("agent") as shard:
        for n in range(6, 200):
            shard.write({"n": n})
            if n % 20 == 0:
                assert () == hub.merge([device.master_path, shard_path(device, "agent")]).quarantined
    assert () == hub.merge([device.master_path]).gaps
    assert [*range(1, 200)] == numbers(hub) == numbers(device)


_AT_SEA = """
import sys, edgeshard
store = edgeshard.Store(sys.argv[1])
with store.watching(interval=0.01), store.shard("agent") as shard:
    for line in sys.stdin:
        for _ in range(50):
            last = shard.write({"n": int(line)})
        print(last, flush=True)
"""


@contextlib.contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The same folder where it can only be read, as a container or another machine is given it."""
    at.mkdir()
    done = subprocess.run(["mount", "--bind", folder, at], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a folder cannot be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", at], check=True)
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


@pytest.mark.slow
def test_a_live_store_that_can_only_be_read_is_merged_and_nothing_that_was_acknowledged_is_missed(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    store.root.mkdir()
    started = [sys.executable, "-c", _AT_SEA, str(store.root)]
    with (
        read_only(store.root, tmp_path / "mounted") as mounted,
        subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent,
    ):
        assert agent.stdin is not None
        assert agent.stdout is not None
        # the shard first: what leaves it meanwhile is in the master
        sources = [mounted / "shards" / "agent.db", mounted / "master.db"]
        for number in range(40):
            agent.stdin.write(f"{number}\n")
            agent.stdin.flush()
            if number:  # it has done what it was asked before, and is at work now
                acknowledged = int(agent.stdout.readline())
                assert () == hub.merge([path for path in sources if path.exists()]).quarantined
                assert acknowledged <= len(numbers(hub))
        agent.communicate()
        hub.merge([sources[1]])
    assert [number for number in range(40) for _ in range(50)] == numbers(hub)
    assert hub.verify(deep=True).ok


# -- of a large hub ---------------------------------------------------------------------------------------------------


def test_a_small_source_is_read_in_as_few_steps_however_many_streams_the_hub_knows(
    device: edgeshard.Store, hub: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.merge()
    edit(
        hub.master_path,
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) insert into _edgeshard_streams("
        "agent_id, stream_id, began_at, last_seq) select 'x', randomblob(16), '2026-01-01T00:00:00+00:00', 5 from n",
        "insert into _edgeshard_ranges select stream_no, 1, 5 from _edgeshard_streams",
    )
    monkeypatch.setattr(bounds, "_STEPS", 10_000)
    monkeypatch.setattr(bounds, "_STEPS_A_BYTE", 0)
    monkeypatch.setattr(bounds, "ensure_sound", pytest.fail)
    assert [(3, ()), (0, ())] == [
        (report.rows, report.quarantined) for report in (hub.merge([device.master_path]) for _ in range(2))
    ]


def test_word_of_where_rows_went_comes_from_a_source_that_brings_nothing_else(
    device: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    with device.shard("agent") as shard:
        shard.write({"n": 6})
        device.merge()  # this master has all of the stream so far
        middle = new_store(tmp_path / "middle")
        middle.merge([shard_path(device, "agent")])  # and this one knows so, and has none of it
    silent = Path(shutil.copytree(middle.root, tmp_path / "silent")) / "master.db"
    edit(silent, "delete from _edgeshard_truncations")
    for source, cause in ((silent, "unknown"), (middle.master_path, "another master")):
        assert 0 == hub.merge([source]).rows
        assert {cause} == {loss.cause for loss in hub.verify().losses}


@pytest.mark.parametrize(
    "table", ["_edgeshard_superseded", "_edgeshard_pruned_ranges", "_edgeshard_keys", "_edgeshard_peers"]
)
def test_a_master_that_lacks_a_table_is_no_source(device: edgeshard.Store, hub: edgeshard.Store, table: str) -> None:
    with device.shard("agent") as shard:
        shard.write({"n": 1})
    device.merge()
    edit(device.master_path, f"drop table {table}")
    ((aside, reason),) = [(item.path, item.reason) for item in hub.merge([device.master_path]).quarantined]
    assert (str(device.master_path), True) == (aside, table in reason)


# -- several mergers --------------------------------------------------------------------------------------------------


def devices(folder: Path, count: int, rows: int) -> list[Path]:
    """The masters of several devices, and one that holds what two of them hold."""
    stores = [edgeshard.Store(folder / f"device{number}") for number in range(count)]
    for number, store in enumerate(stores):
        with store.shard("agent") as shard:
            shard.write_many({"n": number * rows + n} for n in range(rows))
        store.merge()
    both = new_store(folder / "both")
    both.merge([store.master_path for store in stores[:2]])
    return [*(store.master_path for store in stores), both.master_path]


@pytest.mark.slow
def test_two_mergers_bring_different_sources_into_one_hub_at_once(hub: edgeshard.Store, tmp_path: Path) -> None:
    paths = devices(tmp_path, 4, 2_000)
    command = [sys.executable, "-m", "edgeshard.merge", str(hub.root), "--lock-wait", "60"]
    mergers = [
        subprocess.Popen([*command, *(f"--from={path}" for path in part)]) for part in (paths[:3], paths[2:], paths)
    ]
    assert [0, 0, 0] == [merger.wait() for merger in mergers]
    assert [*range(8_000)] == numbers(hub)
    assert hub.verify(deep=True).ok


def test_two_mergers_from_different_sources_double_nothing_without_the_lock(
    hub: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoLock:
        def release(self) -> None:
            pass

    paths = devices(tmp_path, 4, 500)
    failures: list[object] = []

    def merge(number: int) -> None:
        chance = random.Random(number)
        for _ in range(10):
            failures.extend(hub.merge([chance.choice(paths), chance.choice(paths)]).quarantined)

    monkeypatch.setattr(locks, "lock", lambda path, wait_s=0.0: NoLock())
    threads = [threading.Thread(target=merge, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hub.merge(paths)
    assert [] == failures
    assert [*range(2_000)] == numbers(hub)
    assert hub.verify(deep=True).ok


# -- a database without its log ---------------------------------------------------------------------------------------


class Readers:
    """Transactions that are held open, so that a checkpoint copies a part of a log."""

    def __init__(self) -> None:
        self.open: list[sqlite.Connection] = []

    def begin(self, path: Path) -> None:
        connection = sqlite.connect(str(path), writable=False)
        connection.execute("begin")
        connection.execute("select count(*) from _edgeshard_streams").fetchall()
        self.open.append(connection)

    def end(self, _: Path | None = None) -> None:
        while self.open:
            self.open.pop().close()


def checkpoint(path: Path) -> None:
    connection = sqlite.connect(str(path), writable=True)
    sqlite.disable_checkpoint_on_close(connection)
    sqlite.checkpoint(connection)
    connection.close()


PLAIN_STEPS = (*[Fleet.write] * 12, Fleet.close, Fleet.drain, Fleet.merge)


@pytest.mark.parametrize("seed", others_slow(range(6), [0]))
def test_a_copy_that_lacks_its_log_brings_only_rows_that_were_written_or_is_set_aside(seed: int) -> None:
    chance = random.Random(seed)

    def pick(choices: Sequence[Any]) -> Any:  # mostly the same agent and file, so that it comes to something
        return choices[0] if chance.random() < 0.6 else chance.choice(choices)

    fleet, readers = Fleet(), Readers()
    hub = new_store(fleet.folder / "torn")
    fleet.write(pick)
    try:
        for number in range(30):
            for _ in range(3):
                chance.choice(PLAIN_STEPS)(fleet, pick)
            path = pick([*fleet.shards(), *fleet.masters()])
            chance.choice((readers.begin, checkpoint, checkpoint, readers.end))(path)
            torn = Path(shutil.copy(path, fleet.folder / f"torn{number}.db"))  # without what its log holds
            hub.merge([torn])
            check_nothing_false(fleet, hub)
        readers.end()
        assert () == hub.merge(fleet.databases()).quarantined
        fleet.settle()
        assert () == hub.merge([fleet.stores["root"].master_path]).quarantined
        # which rows are one transaction is told by what the log held, too
        whole, found = content(fleet.stores["root"].master_path), content(hub.master_path)
        assert attrs.evolve(whole, transactions=set()) == attrs.evolve(found, transactions=set())
        assert () == hub.verify(deep=True).errors
    finally:
        readers.end()
        fleet.remove()


def check_nothing_false(fleet: Fleet, hub: edgeshard.Store) -> None:
    """A hub holds rows only as they were written, and knows of no others."""
    found = content(hub.master_path)
    for address, row in found.rows.items():
        fleet.check_row(address, row)
    known = {(stream, last_seq) for stream, (_, _, last_seq) in found.streams.items()}
    assert set() == known - fleet.written.keys()
