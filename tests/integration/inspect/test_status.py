"""``Store.status()`` and ``edgeshard status``: what waits and what is wrong, while all work and nobody is disturbed."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import DamagedError
from edgeshard.files import locks, scan
from edgeshard.master import shard_states
from edgeshard.reports import ShardStatus, StatusReport
from tests.support.processes import command, python, sql, unwrapped
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path, write_apart

#: Another process's agent: a row for each line that it reads, and the last line ends it by a kill.
AGENT = """
import os, signal, sys, edgeshard
with edgeshard.Store(sys.argv[1]).shard(sys.argv[2]) as shard:
    for number, line in enumerate(sys.stdin):
        if line == "die\\n":
            os.kill(os.getpid(), signal.SIGKILL)
        shard.write({"n": number})
        print(number, flush=True)
"""


class Agent:
    """An agent in a process of its own."""

    def __init__(self, store: edgeshard.Store, name: str) -> None:
        arguments = [sys.executable, "-c", AGENT, str(store.root), name]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def write(self) -> None:
        self.say("")
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def die(self) -> None:
        self.say("die")
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def agent(store: edgeshard.Store) -> Iterator[Agent]:
    """A live agent that has written two rows."""
    agent = Agent(store, "boiler")
    agent.write()
    agent.write()
    yield agent
    agent.end()


def by_name(report: StatusReport) -> dict[str, ShardStatus]:
    """The shards by the names of their files."""
    return {shard.name: shard for shard in report.shards}


def waiting(report: StatusReport) -> dict[str, int | None]:
    """How many rows wait in each shard."""
    return {shard.name: shard.pending_rows for shard in report.shards}


def listing(store: edgeshard.Store) -> dict[str, tuple[int, int]]:
    """All files of a store with size and time; SQLite's shared memory, in which every reader notes itself, without."""
    return {
        str(path.relative_to(store.root)): (path.stat().st_size, 0 if shared else path.stat().st_mtime_ns)
        for path in store.root.rglob("*")
        for shared in [path.name.endswith("-shm")]
        if path.is_file()
    }


def note_merge(store: edgeshard.Store, name: str, when: datetime.datetime) -> None:
    """Have the master say that rows of a shard came then."""
    sql(
        store.master_path,
        f"insert into _edgeshard_shards(name, merged_at) values ('{name}', '{when.isoformat()}') "
        f"on conflict(name) do update set merged_at = '{when.isoformat()}'",
    )


def settle(store: edgeshard.Store) -> None:
    """Have merges take the shards' files for unchanged from now on: as if they were some seconds older."""
    for path in (store.root / "shards").glob("*.db"):
        os.utime(path, ns=(0, 0))
    state = {file.name: file.state for file in scan.shard_files(store.root / "shards")}
    for name, seen in state.items():
        text = shard_states.format_state(seen)
        sql(
            store.master_path,
            f"insert into _edgeshard_shards(name, state) values ('{name}', '{text}') "
            f"on conflict(name) do update set state = '{text}'",
        )


# -- without much -----------------------------------------------------------------------------------------------------


def test_a_store_without_rows_has_nothing_and_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    done = command("status", tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.splitlines() == [
        "green: all is well, there are no rows yet",
        "",
        "shards      0, 0 with a writer; 0 rows pending",
        "master      none yet: the first merge makes it",
        "last merge  never; no merger watches",
    ]
    report = edgeshard.Store(tmp_path).status()
    assert ((), False, True) == (report.shards, report.master.exists, report.complete)
    assert ["shards"] == os.listdir(tmp_path)


def test_without_a_master_all_rows_wait_and_none_is_made(store: edgeshard.Store, agent: Agent) -> None:
    with store.shard("pump") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
    before = listing(store)
    report = store.status()
    assert {"boiler.db": 2, "pump.db": 1} == waiting(report)
    assert (3, False, True) == (report.pending_rows, report.master.exists, report.complete)
    assert {None} == {shard.merged_at for shard in report.shards}
    assert before == listing(store)
    agent.write()
    assert 3 == by_name(store.status())["boiler.db"].pending_rows


# -- shards -----------------------------------------------------------------------------------------------------------


def test_a_live_agent_in_another_process_is_alive_and_its_new_rows_wait(store: edgeshard.Store, agent: Agent) -> None:
    store.merge()
    assert {"boiler.db": 0} == waiting(store.status())
    agent.write()
    (shard,) = store.status().shards
    assert ("boiler", True, 1) == (shard.agent, shard.alive, shard.pending_rows)
    path = shard_path(store, "boiler")
    assert path.stat().st_size + Path(f"{path}-wal").stat().st_size == shard.size_bytes
    assert 1 == store.merge().rows


def test_a_dead_agent_is_gone_and_its_rows_still_wait(store: edgeshard.Store, agent: Agent) -> None:
    store.merge()
    agent.write()
    agent.die()
    (shard,) = store.status().shards
    assert (False, 1, "") == (shard.alive, shard.pending_rows, shard.reason)
    assert 1 == store.merge().rows
    assert [0, 1, 2] == numbers(store)


def test_an_agent_of_this_process_is_alive_too(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        assert [True] == [found.alive for found in store.status().shards]
        shard.write({"n": 2})
    assert [False] == [found.alive for found in store.status().shards]


def test_rows_that_are_in_the_master_and_in_the_shard_do_not_wait(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(5)])
        store.merge([shard_path(store, "agent")])
        shard.write({"n": 5})
    other = new_store(tmp_path / "other")
    other.merge([shard_path(store, "agent")])
    for path in (store.root / "shards").glob("agent.db*"):
        (other.root / "shards" / path.name).write_bytes(path.read_bytes())
    assert {"agent.db": 0} == waiting(other.status())
    assert {"agent.db": 1} == waiting(store.status())


def test_each_shard_gets_its_agents_name_also_where_it_is_not_opened(store: edgeshard.Store) -> None:
    for name in ("boiler-1", "Käthe", "BOILER"):
        with store.shard(name) as shard:
            shard.write({"n": 1})
    store.merge()
    for name in ("boiler-1", "Käthe", "BOILER"):
        with store.shard(name) as shard:
            shard.write({"n": 1})
    store.merge(keep_empty=True)
    settle(store)
    before = {"Käthe", "BOILER", "boiler-1"}
    assert before == {shard.agent for shard in store.status().shards}
    for path in (store.root / "shards").glob("*.db"):  # what is not opened may be anything
        times = path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes()[:100] + bytes(path.stat().st_size - 100))
        os.utime(path, ns=(times, times))
    settle(store)
    report = store.status()
    assert (before, True, {0}) == (
        {shard.agent for shard in report.shards},
        report.complete,
        {shard.pending_rows for shard in report.shards},
    )


def test_an_agent_that_nobody_knows_has_no_name(store: edgeshard.Store) -> None:
    (store.root / "shards").mkdir(parents=True)
    for name in ("plain", "Not Plain", "x~y", "con"):
        (store.root / "shards" / f"{name}.db").write_bytes(b"")
    assert {"plain.db": "plain", "Not Plain.db": None, "x~y.db": None, "con.db": None} == {
        shard.name: shard.agent for shard in store.status().shards
    }


def test_a_master_may_know_agents_that_can_have_no_shard(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        store.merge()
        sql(
            store.master_path,
            "insert into _edgeshard_streams(agent_id, stream_id, began_at) values ('', randomblob(16), '')",
        )
        report = store.status()
        assert (["agent"], 2, 2) == (
            [found.agent for found in report.shards],
            report.master.agents,
            report.master.streams,
        )
    assert 0 == command("shell", store.root, ".shards").returncode


# -- how old ----------------------------------------------------------------------------------------------------------


def age_s(report: StatusReport) -> float:
    """The age of the oldest row, which there is."""
    assert report.oldest is not None
    assert report.oldest.oldest_age_s is not None
    return report.oldest.oldest_age_s


def rounded(age_s: float) -> int:
    """To what it was before the test began to take its time, which is a minute at the most."""
    return int(age_s // 100) * 100


def ago(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)


def test_the_age_of_a_dict_is_that_of_its_timestamp(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write(edgeshard.AgentData("agent", ago(3600), {"n": 1}))
        shard.write(edgeshard.AgentData("agent", ago(3600 + 9999), {"n": 2}))
        report = store.status()
        assert (False, 3600) == (report.shards[0].oldest_is_bound, rounded(age_s(report)))
        store.merge()
        assert None is store.status().oldest
        shard.write(edgeshard.AgentData("agent", ago(1800), {"n": 3}))
        report = store.status()
    assert (False, 1800) == (report.shards[0].oldest_is_bound, rounded(age_s(report)))


def test_the_oldest_row_is_of_the_first_stream_that_has_any(store: edgeshard.Store) -> None:
    for age in (500, 300, 100):
        with store.shard("agent") as shard:
            shard.write(edgeshard.AgentData("agent", ago(age), {}))
    assert 500 == rounded(age_s(store.status()))
    assert 3 == store.status().pending_rows


def test_a_record_without_a_time_is_as_old_as_its_stream_at_the_most(store: edgeshard.Store) -> None:
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    with store.shard("agent") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
        shard.write({"n": 1})
    sql(shard_path(store, "agent"), f"update _edgeshard_streams set began_at = '{began.isoformat()}'")
    report = store.status()
    assert (True, 7200) == (report.shards[0].oldest_is_bound, rounded(age_s(report)))
    assert "up to 2 h" in command("status", store.root).stdout


def test_what_is_not_merged_came_after_the_last_merge(store: edgeshard.Store) -> None:
    now = datetime.datetime.now(datetime.UTC)
    with store.shard("agent") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
        store.merge()
        shard.write(Reading("inlet", 71.5, NOON))
    began = (now - datetime.timedelta(hours=2)).isoformat()
    sql(shard_path(store, "agent"), f"update _edgeshard_streams set began_at = '{began}'")
    merged_at = now - datetime.timedelta(minutes=10)
    note_merge(store, "agent.db", merged_at)
    report = store.status()
    assert (True, 600) == (report.shards[0].oldest_is_bound, rounded(age_s(report)))
    assert merged_at == report.shards[0].merged_at
    note_merge(store, "agent.db", now - datetime.timedelta(hours=3))
    assert 7200 == rounded(age_s(store.status()))


@pytest.mark.parametrize("began_at", ["", "soon", "2026-01-01T00:00:00", "9" * 5000])
def test_a_time_that_is_none_is_not_believed(store: edgeshard.Store, began_at: str) -> None:
    with store.shard("agent") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
    sql(shard_path(store, "agent"), f"update _edgeshard_streams set began_at = '{began_at}'")
    (shard_status,) = store.status().shards
    assert (1, None, False) == (shard_status.pending_rows, shard_status.oldest_age_s, shard_status.oldest_is_bound)
    assert 0 == command("status", store.root).returncode


@pytest.mark.parametrize(
    ("timestamp", "age_s"), [("soon", None), ("2026-01-01T00:00:00", None), ("2100-01-01T00:00:00+00:00", 0.0)]
)
def test_a_timestamp_that_is_none_is_not_believed_and_one_to_come_is_now(
    store: edgeshard.Store, timestamp: str, age_s: float | None
) -> None:
    with store.shard("agent") as shard:
        shard.write({})
    sql(shard_path(store, "agent"), f"update agent_data set timestamp = '{timestamp}'")
    (found,) = store.status().shards
    assert (1, age_s is None) == (found.pending_rows, found.oldest_is_bound)
    assert age_s is None or age_s == found.oldest_age_s


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_damaged_and_foreign_shards_are_reported_and_the_others_counted(store: edgeshard.Store, agent: Agent) -> None:
    folder = store.root / "shards"
    (folder / "bad.db").write_bytes(b"garbage" * 1000)
    (folder / "empty.db").write_bytes(b"")
    (folder / "lost.db-wal").write_bytes(b"rows")
    (folder / "folder.db").mkdir()
    (folder / "link.db").symlink_to(shard_path(store, "boiler"))
    os.mkfifo(folder / "pipe.db")
    os.mkfifo(folder / "bad.lock")
    sql(folder / "foreign.db", "create table t(a)")
    done = command("status", store.root, "--json", timeout=20)
    assert (3, "") == (done.returncode, done.stderr)
    shards = {shard["name"]: shard for shard in json.loads(done.stdout)["shards"]}
    said = {
        "bad.db": "not a SQLite database", "empty.db": "zero length", "lost.db": "its database is missing",
        "folder.db": "not a regular file", "link.db": "symbolic link", "pipe.db": "not a regular file",
        "foreign.db": "not an edgeshard database",
    }  # fmt: skip
    assert set(said) == {name for name, shard in shards.items() if shard["reason"]}
    assert all(text in shards[name]["reason"] for name, text in said.items())
    assert {None} == {shards[name]["pending_rows"] for name in said}
    assert (2, "") == (shards["boiler.db"]["pending_rows"], shards["boiler.db"]["reason"])
    assert [*sorted(said), "boiler.db"] == [*sorted(list(shards)[:-1]), list(shards)[-1]]


def test_a_shard_that_the_master_remembers_as_bad_is_reported_without_a_look(store: edgeshard.Store) -> None:
    shard_path(store, "x").parent.mkdir(parents=True)
    shard_path(store, "bad").write_bytes(b"garbage" * 1000)
    store.merge()
    settle(store)
    sql(store.master_path, "update _edgeshard_shards set reason = 'as remembered' where name = 'bad.db'")
    (shard,) = store.status().shards
    assert ("as remembered", None) == (shard.reason, shard.pending_rows)
    assert 3 == command("status", store.root).returncode
    shard_path(store, "bad").unlink()
    assert (0, ()) == (command("status", store.root).returncode, store.status().shards)


def test_a_column_that_contradicts_the_master_is_a_problem_before_any_merge_says_so(store: edgeshard.Store) -> None:
    @edgeshard.table(name="reading")
    @attrs.frozen
    class Other:
        celsius: str

    with store.shard("agent") as shard:
        shard.write(Reading("inlet", 71.5, NOON))
    store.merge()
    write_apart(store, "other", Other("warm"))
    found = by_name(store.status())["other.db"]
    (problem,) = found.blocked
    assert (1, 1, "reading") == (found.pending_rows, problem.rows, problem.table)
    assert "reading.celsius is text in this shard and real" in problem.reason
    assert (problem,) == store.merge().blocked


def test_gaps_are_counted_and_exit_3(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(3)])
        store.merge()
        shard.write({"n": 3})
        hub = new_store(tmp_path / "hub")
        hub.merge([shard_path(store, "agent")])
        sql(hub.master_path, "select 1")
    report = hub.status()
    assert (1, 3, 1, False) == (
        report.master.gaps,
        report.master.missing_rows,
        report.master.rows,
        report.complete,
    )
    done = command("status", hub.root)
    assert (3, "", True) == (
        done.returncode,
        done.stderr,
        "red: 3 rows missing in 1 gap: rows 1 to 3 of stream " in unwrapped(done.stdout),
    )
    assert f" edgeshard verify {hub.root} " in unwrapped(done.stdout)
    assert 3 == command("status", hub.root, "--json").returncode


@pytest.mark.parametrize(
    "damage",
    [
        "drop table _edgeshard_ranges",
        "drop table _edgeshard_shards",
        "update _edgeshard_streams set agent_id = cast(x'ff' as text)",
    ],
)
def test_a_damaged_master_is_an_error(store: edgeshard.Store, damage: str) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    sql(store.master_path, damage)
    with pytest.raises(DamagedError, match=r"master\.db"):
        store.status()
    done = command("status", store.root)
    assert (65, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))


def test_a_master_that_is_no_database_is_an_error(store: edgeshard.Store, agent: Agent) -> None:
    for content in (b"garbage\0" * 1000, b""):
        store.master_path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"master\.db"):
            store.status()
    store.master_path.unlink()
    assert 2 == store.status().pending_rows


def test_damage_in_the_masters_pages_is_not_blamed_on_the_shards(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        store.merge()
        shard.write({"n": 2})
        name = "sqlite_autoindex__edgeshard_streams_1"  # by which a shard's streams are found in the master
        ((page,),) = sql(store.master_path, f"select rootpage from sqlite_schema where name = '{name}'")
        with open(store.master_path, "r+b") as file:
            file.seek((page - 1) * format.MASTER_PAGE_SIZE)
            file.write(b"\xff" * format.MASTER_PAGE_SIZE)
        with pytest.raises(DamagedError, match=r"master\.db"):
            store.status()


# -- the master -------------------------------------------------------------------------------------------------------


def test_the_totals_of_the_master(store: edgeshard.Store, agent: Agent) -> None:
    store.merge()
    with store.shard("Käthe") as shard:
        shard.write_many({"n": n} for n in range(100, 110))
        store.merge()
        report = store.status()
    found = report.master
    assert (str(store.master_path), True, 12, 2, 2, 0, 0) == (
        found.path,
        found.exists,
        found.rows,
        found.agents,
        found.streams,
        found.gaps,
        found.missing_rows,
    )
    assert [[found.generation]] == sql(store.master_path, "select generation from _edgeshard_database")
    assert store.master_path.stat().st_size == found.size_bytes


def test_a_watching_merger_is_seen_by_its_lock_and_a_merge_by_none(store: edgeshard.Store, agent: Agent) -> None:
    merging = locks.lock(store.root / "merge.lock")
    assert merging is not None
    report = store.status()
    assert (False, 2) == (report.watching, report.pending_rows)
    merging.release()
    with store.watching():
        assert True is store.status().watching
        assert "a merger watches" in command("status", store.root).stdout
    assert False is store.status().watching


# -- nobody is disturbed ----------------------------------------------------------------------------------------------


def test_a_look_leaves_every_file_as_it_was(store: edgeshard.Store, agent: Agent) -> None:
    with store.shard("closed") as shard:
        shard.write({"n": 1})
    store.merge()
    with store.shard("later") as shard:
        shard.write({"n": 2})
    killed = Agent(store, "killed")
    killed.write()
    killed.end()
    (store.root / "shards" / "bad.db").write_bytes(b"garbage" * 1000)
    before = listing(store)
    for _ in range(3):
        store.status()
        command("status", store.root)
    assert before == listing(store)


def test_a_look_makes_no_merge_look_again(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        store.merge()
        before = scan.shard_files(store.root / "shards")
        assert {"agent.db": 0} == waiting(store.status())  # it is opened, for no merge has found it without news yet
        assert before == scan.shard_files(store.root / "shards")
        settle(store)
        store.status()
        assert 0 == store.merge().shards


WRITER = """
import sys, edgeshard
with edgeshard.Store(sys.argv[1]).shard(sys.argv[2]) as shard:
    for n in range(int(sys.argv[3]), int(sys.argv[4])):
        shard.write({"n": n})
"""
MERGER = """
import sys, edgeshard
store = edgeshard.Store(sys.argv[1])
while True:
    store.merge()
    print(flush=True)
    if sys.stdin.readline() == "":
        break
"""


@pytest.mark.slow
def test_beside_two_writers_and_a_merger_all_goes_on_and_every_row_comes_once(store: edgeshard.Store) -> None:
    rows = 20_000
    writers: list[subprocess.Popen[Any]] = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.root), name, first, str(int(first) + rows)])
        for name, first in (("one", "0"), ("two", str(rows)))
    ]
    store.init()
    merger = subprocess.Popen(
        [sys.executable, "-c", MERGER, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert merger.stdin is not None
    assert merger.stdout is not None
    looks = 0
    try:
        while any(writer.poll() is None for writer in writers):
            merger.stdin.write("\n")  # the next merge begins while we look
            merger.stdin.flush()
            for _ in range(3):
                report = store.status()
                assert [""] * len(report.shards) == [shard.reason for shard in report.shards]
                assert report.master.rows + report.pending_rows <= 2 * rows
                looks += 1
            assert merger.stdout.readline()
        merger.communicate()
    finally:
        for process in [*writers, merger]:
            process.kill()
            process.wait()
    assert [0, 0, 0] == [process.returncode for process in [*writers, merger]]
    assert looks > 3
    store.merge()
    assert list(range(2 * rows)) == numbers(store)
    assert 0 == store.status().pending_rows


def test_a_shard_that_goes_while_we_look_is_not_there(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        with store.shard(name) as shard:
            shard.write({"n": 1})
    listed = scan.shard_files(store.root / "shards")
    monkeypatch.setattr(scan, "shard_files", lambda _path: listed)
    shard_path(store, "one").unlink()
    report = store.status()
    assert ({"two.db": 1}, True) == (waiting(report), report.complete)


@pytest.mark.slow
def test_agents_open_and_close_their_shards_beside_a_look(store: edgeshard.Store) -> None:
    code = (
        "import sys, edgeshard\n"
        "store = edgeshard.Store(sys.argv[1])\n"
        "for n in range(150):\n"
        "    with store.shard('agent') as shard: shard.write({'n': n})\n"
    )
    store.init()
    agent = subprocess.Popen([sys.executable, "-c", code, store.root])
    while agent.poll() is None:
        assert [] == [shard.reason for shard in store.status().shards if shard.reason]
    assert 0 == agent.returncode
    store.merge()
    assert list(range(150)) == numbers(store)


# -- the command ------------------------------------------------------------------------------------------------------


def on_terminal(
    *arguments: object, environment: dict[str, str] | None = None, lines: int = 24, columns: int = 200
) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``edgeshard status`` on a terminal of its own; the process, and our end of it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeshard", "status", *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**settings, "TERM": "xterm", **(environment or {})},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def read_all(terminal: int) -> str:
    """What comes from a terminal until the last process has left it."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 10_000)
        except OSError:  # EIO: nobody is there any more
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode(errors="ignore")
        parts.append(part)


def read_until(terminal: int, text: str, count: int) -> str:
    """What comes from a terminal until a text has come so often."""
    shown = b""
    while shown.count(text.encode()) < count:
        shown += os.read(terminal, 10_000)
    return shown.decode(errors="ignore")  # the next screen may have begun


def test_the_json_has_units_in_its_names_and_raw_numbers(store: edgeshard.Store, agent: Agent) -> None:
    store.merge()
    agent.write()
    note_merge(store, "boiler.db", NOON)
    done = command("status", store.root, "--json")
    assert (0, "", 1) == (done.returncode, done.stderr, done.stdout.count("\n"))
    report: dict[str, Any] = json.loads(done.stdout)
    kinds = {key: type(value).__name__ for key, value in report.items()}
    assert {
        "complete": "bool", "pending_rows": "int", "oldest_age_s": "float", "oldest_is_bound": "bool",
        "quarantined_shards": "int", "uncounted_shards": "int", "blocked_rows": "int", "rejected_rows": "int", "at": "str", "watching": "bool", "watcher": "NoneType", "merge": "NoneType", "master": "dict", "shards": "list", "gaps": "list",
        "budget": "NoneType", "states": "dict", "peers": "list", "unnamed": "str", "clock": "dict", "space": "dict",
        "problems": "list", "verdict": "str", "headline": "str",
        "bytes_a_day": "float", "bytes_a_row": "float", "write_stats": "dict",
    } == kinds  # fmt: skip
    assert {
        "path": "str", "exists": "bool", "size_bytes": "int", "wal_bytes": "int", "rows": "int", "agents": "int",
        "streams": "int", "gaps": "int", "missing_rows": "int", "generation": "int",
        "database": "str", "pruned_rows": "int", "collected_rows": "int", "superseded_rows": "int", "clocks_ahead": "list",
        "triggers": "list", "damage": "str", "retired_streams": "int", "merged_at": "str", "tables": "list",
    } == {key: type(value).__name__ for key, value in report["master"].items()}  # fmt: skip
    (shard,) = report["shards"]
    assert {
        "name": "boiler.db", "agent": "boiler", "alive": True, "pending_rows": 1, "oldest_is_bound": False,
        "merged_at": NOON.isoformat(), "reason": "", "blocked": [], "pid": agent.process.pid, "denied_to": "",
    } == {key: value for key, value in shard.items() if key not in ("size_bytes", "oldest_age_s")}  # fmt: skip
    assert 0 <= shard["oldest_age_s"] == report["oldest_age_s"] < 60
    assert datetime.datetime.fromisoformat(report["at"]).tzinfo is not None
    assert json.loads(json.dumps(store.status().as_dict())).keys() == report.keys()


def test_the_json_says_what_to_do_about_each_problem(store: edgeshard.Store) -> None:
    shard_path(store, "bad").parent.mkdir(parents=True)
    shard_path(store, "bad").write_bytes(b"garbage" * 1000)
    done = command("status", store.root, "--json")
    (problem,) = json.loads(done.stdout)["problems"]
    assert (3, "quarantined", "red", "bad.db") == (done.returncode, problem["kind"], problem["level"], problem["shard"])
    assert f"edgeshard salvage {store.root} {shard_path(store, 'bad')}" == problem["next"][0]


def test_what_needs_attention_comes_first(store: edgeshard.Store) -> None:
    for name, age, rows in (
        ("c", 0, 0),
        ("b", 0, 0),
        ("few", 9000, 1),
        ("a-young", 10, 2),
        ("many", 5, 3),
        ("old", 99, 2),
    ):
        with store.shard(name) as shard:
            shard.write_many(edgeshard.AgentData(name, ago(age), {}) for _ in range(rows or 1))
        if not rows:
            store.merge(keep_empty=True)
    shard_path(store, "z-bad").write_bytes(b"garbage" * 1000)
    report = store.status()
    assert ["z-bad", "many", "old", "a-young", "few", "b", "c"] == [shard.agent for shard in report.shards]
    assert (8, 9000, 1) == (report.pending_rows, rounded(age_s(report)), report.quarantined_shards)


def test_the_table_has_units_and_the_totals_come_below(store: edgeshard.Store, agent: Agent) -> None:
    note = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5, seconds=20)
    store.merge()
    note_merge(store, "boiler.db", note)
    agent.write()
    done = command("status", store.root)
    assert (0, "") == (done.returncode, done.stderr)
    head, row = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if line[0:1] == "│"
    ]
    assert ["agent", "writer", "pending", "oldest", "size", "merged"] == head
    assert ["boiler", str(agent.process.pid), "1"] == row[:3]
    assert (True, True, "5 min ago") == (row[3].endswith(" s"), row[4].endswith(" kB"), *row[5:])
    facts = {line[:12].rstrip(): line[12:] for line in done.stdout.splitlines()}
    assert facts["shards"].startswith("1, 1 with a writer; 1 row pending, the oldest for ")
    assert facts["master"].startswith("2 rows of 1 agent in 1 stream; ")
    assert {"tables", "last merge", "disk space", "written", "id"} < facts.keys()


@pytest.mark.slow
def test_colours_are_for_terminals_that_want_them(store: edgeshard.Store, agent: Agent) -> None:
    def shown(**environment: str) -> str:
        process, ours = on_terminal(store.root, environment=environment)
        text = read_all(ours)
        assert 0 == process.wait(60)
        assert "boiler" in text
        return text

    assert "\x1b[" in shown()
    assert "\x1b" not in shown(NO_COLOR="1")
    assert "\x1b" not in shown(TERM="dumb")
    assert "\x1b" not in command("status", store.root).stdout


def test_a_name_with_control_characters_does_not_reach_the_terminal(store: edgeshard.Store) -> None:
    with store.shard("evil\x1b[2J\nname") as shard:
        shard.write({"n": 1})
    done = command("status", store.root)
    assert (0, "", False, True) == (
        done.returncode,
        done.stderr,
        "\x1b" in done.stdout,
        r"evil\u00" in done.stdout and "nname " in done.stdout,
    )


def test_watch_draws_on_a_cleared_screen_until_interrupted(store: edgeshard.Store, agent: Agent) -> None:
    process, ours = on_terminal(store.root, "--watch", "0.05", environment={"NO_COLOR": "1"})
    shown = read_until(ours, "none yet", 2)
    agent.write()
    shown += read_until(ours, "3 rows pending", 1)
    process.send_signal(signal.SIGINT)
    shown += read_all(ours)
    assert 0 == process.wait(60)
    assert shown.startswith("\x1b[H\x1b[2J")
    assert shown.count("\x1b[H\x1b[2J") >= 3
    assert "Traceback" not in shown


def test_problems_stand_on_lines_of_their_own_and_do_nothing_to_the_terminal(store: edgeshard.Store) -> None:
    (store.root / "shards").mkdir(parents=True)
    (store.root / "shards" / "bad\x1b[2J\n.db").write_bytes(b"")
    done = command("status", store.root)
    assert (3, "", False) == (done.returncode, done.stderr, "\x1b" in done.stdout)
    assert r"red: shard bad\u001b[2J\n.db is quarantined: it is empty (zero length)" in done.stdout.splitlines()
    for number in range(30):
        (store.root / "shards" / f"bad-{number}.db").write_bytes(b"")
    process, ours = on_terminal(store.root, "--watch", "0.05", lines=20)
    first = read_until(ours, "none yet", 1)
    process.send_signal(signal.SIGINT)
    read_all(ours)
    assert 0 == process.wait(60)
    assert (True, True, True) == (
        first.count("\n") < 20,
        "more shards" in first,
        " more problems; --json has all" in first,
    )


def test_a_narrow_terminal_gets_short_names_and_a_line_a_shard(store: edgeshard.Store) -> None:
    name = "The boiler in the room below the stairs, on the left"
    for agent in (name, "pump"):
        with store.shard(agent) as shard:
            shard.write({"n": 1})
    shown = command("status", store.root).stdout
    assert ("The boi" in shown, "he left " in shown, name in shown) == (True, True, False)
    for columns in (40, 60, 80, 120):
        process, ours = on_terminal(store.root, environment={"NO_COLOR": "1"}, columns=columns)
        lines = read_all(ours).splitlines()
        assert 0 == process.wait(60)
        assert columns >= max(len(line) for line in lines if str(store.root) not in line)
        assert 2 == sum("│" in line for line in lines) - 1


@pytest.mark.slow
def test_watch_keeps_to_the_height_of_the_terminal(store: edgeshard.Store) -> None:
    for number in range(30):
        with store.shard(f"agent-{number}") as shard:
            shard.write_many({"n": n} for n in range(number + 1))
    process, ours = on_terminal(store.root, "--watch", "0.05", lines=20)
    shown = read_until(ours, "none yet", 2)
    process.send_signal(signal.SIGINT)
    read_all(ours)
    assert 0 == process.wait(60)
    first = shown.split("\x1b[H\x1b[2J")[1]
    assert (True, True, True) == (first.count("\n") < 20, "agent-29" in first, " more shards; --json has all" in first)
    assert 30 == sum(line.startswith("│ agent-") for line in command("status", store.root).stdout.splitlines())


@pytest.mark.slow
def test_watch_in_a_pipe_prints_one_after_another(store: edgeshard.Store, agent: Agent) -> None:
    arguments = [sys.executable, "-m", "edgeshard", "status", str(store.root), "--watch=0.05"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("written "):
        pass
    assert process.stdout.readline().startswith("yellow: ")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    assert (0, "", False) == (process.returncode, errors, "\x1b" in rest)


def test_watch_with_json_prints_an_object_a_line(store: edgeshard.Store, agent: Agent) -> None:
    arguments = [sys.executable, "-m", "edgeshard", "status", str(store.root), "--json", "--watch", "0.05"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    agent.write()
    while json.loads(lines[-1])["pending_rows"] < 3:
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (0, "", True) == (process.returncode, errors, len(lines) >= 2)
    assert [2, 3] == [json.loads(line)["pending_rows"] for line in (lines[0], lines[-1])]


def test_what_watch_prints_arrives_at_once(
    store: edgeshard.Store, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    arguments = [sys.executable, "-m", "edgeshard", "status", str(store.root), "--json", "--watch=1000"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert 2 == json.loads(process.stdout.readline())["pending_rows"]
    process.send_signal(signal.SIGINT)
    assert ("", "") == process.communicate()
    assert 0 == process.returncode


@pytest.mark.slow
def test_watch_wants_a_time_above_0(store: edgeshard.Store) -> None:
    store.init()
    for text in ("0", "-1", "nan", "inf", "soon", "1e9"):
        assert 2 == command("status", store.root, f"--watch={text}").returncode


def test_the_report_reads_as_one_line(store: edgeshard.Store, agent: Agent) -> None:
    assert str(store.status()).startswith("yellow: look at it soon: 1 problem: 2 rows pending, the oldest for ")
    store.merge()
    assert str(store.status()).startswith("green: all is well, all rows are merged; no merger watches, and the last")


def test_a_look_imports_neither_the_shell_nor_the_watcher(tmp_path: Path) -> None:
    code = "import sys, edgeshard; edgeshard.Store(sys.argv[1]).status(); print([m for m in sys.modules if m in ('apsw.ext', 'apsw.shell', 'watchdog')])"
    new_store(tmp_path)
    assert "[]\n" == python(code, tmp_path).stdout
