"""The watching merger as users run it: a process or a thread, real signals, real locks, real folders."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

import edgeshard
from edgeshard.cli import services
from edgeshard.cli.metrics import MetricsFile
from edgeshard.errors import ConfigurationError, MergeInProgressError, StorageError, StorageIOError
from edgeshard.files import fingerprint, fs_events, paths, scan
from edgeshard.files.locks import is_locked, lock
from edgeshard.master import database, shard_states
from edgeshard.merge import chunk, folder_watch, locks, truncate
from edgeshard.merge.listener import Listener
from edgeshard.merge.merger import Merger
from edgeshard.merge.watcher import Watcher, in_thread
from edgeshard.reports import MergeReport
from tests.support.forms import others_slow
from tests.support.processes import merge_command, python
from tests.support.project import EXAMPLES
from tests.support.stores import new_store, numbers, shard_path

#: How long a test waits for what should come at once: the machine may be busy with other things.
PATIENCE_S = 30.0
#: Longer than any test: what comes within it did not wait for it.
NEVER_S = 3600.0


def await_that(holds: Callable[[], bool]) -> None:
    """Wait until it holds; an AssertionError where it never does."""
    upto = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < upto, "it did not come to hold"
        time.sleep(0.005)


def write(store: edgeshard.Store, agent: str, *values: int) -> None:
    with store.shard(agent) as shard:
        for n in values:
            shard.write({"n": n})


class Passes(Listener):
    """Keeps the reports of a service."""

    def __init__(self) -> None:
        self.reports: list[MergeReport] = []
        self.failures: list[edgeshard.EdgeshardError] = []
        self.recoveries = 0

    def merged(self, report: MergeReport) -> None:
        self.reports.append(report)

    def failed(self, error: edgeshard.EdgeshardError) -> None:
        self.failures.append(error)

    def recovered(self) -> None:
        self.recoveries += 1

    def found(self) -> int:
        """How many passes found rows."""
        return sum(1 for report in self.reports if report.rows)


@contextlib.contextmanager
def serving(store: edgeshard.Store, **settings: Any) -> Iterator[Passes]:
    """A service in a thread."""
    passes = Passes()
    merger = Watcher(store.root, **{"interval_s": 0.05, "rescan_s": NEVER_S, "listener": passes, **settings})
    assert merger.open()
    with in_thread(merger):
        yield passes


def make_vain_event(passes: Passes, store: edgeshard.Store) -> None:
    """Return once a pass found nothing for an event. What nobody watches for yet is no event: then it is made again."""
    before, upto = len(passes.reports), time.monotonic() + PATIENCE_S
    while len(passes.reports) == before:
        assert time.monotonic() < upto, "no pass came"
        (store.root / "shards" / "notes.txt").write_text("no shard")
        again = time.monotonic() + 1.0
        while len(passes.reports) == before and time.monotonic() < again:
            time.sleep(0.005)


def after_vain_events(passes: Passes, store: edgeshard.Store) -> None:
    """Return once five passes found nothing for events, one after another."""
    for _ in range(5):
        make_vain_event(passes, store)
        time.sleep(0.1)


def is_idle(passes: Passes) -> bool:
    """Whether no pass began within a while."""
    before = len(passes.reports)
    time.sleep(0.5)
    return before == len(passes.reports)


class Notified:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(PATIENCE_S)
        self.messages: list[str] = []

    def wait_for(self, field: str) -> None:
        while not any(field in message.splitlines() for message in self.messages):
            self.messages.append(self._socket.recv(65536).decode())

    def close(self) -> None:
        self._socket.close()
        self.path.unlink()


@contextlib.contextmanager
def watcher(store: edgeshard.Store, *options: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m edgeshard.merge ROOT --watch`` in a process, which watches by now."""
    (store.root / "shards").mkdir(parents=True, exist_ok=True)
    told = Notified(store.root.parent)
    command = [sys.executable, "-m", "edgeshard.merge", str(store.root), "--watch", *map(str, options)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NOTIFY_SOCKET": str(told.path), **environment},
    )
    try:
        told.wait_for("READY=1")
        process.told = told  # type: ignore[attr-defined]
        yield process
    finally:
        process.kill()
        process.communicate()
        told.close()


def count(store: edgeshard.Store) -> int:
    """The rows of the master, as another process sees them; 0 where there is none yet."""
    if not store.master_path.exists():
        return 0
    rows: int = store.query("select count(*) from agent_data")[0][0]
    return rows


# -- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observer", ["auto", "native", "polling"])
def test_rows_reach_the_master_while_the_block_lasts_and_all_of_them_at_its_end(
    store: edgeshard.Store, observer: str
) -> None:
    with store.watching(interval=0.05, rescan=NEVER_S, observer=observer), store.shard("agent") as shard:
        for n in range(5):
            shard.write({"n": n})
            await_that(lambda: count(store) == n + 1)  # noqa: B023  # it is called before the next
        shard.write_many({"n": n} for n in range(5, 100))
    assert [*range(100)] == numbers(store)
    assert store.verify().ok


def test_a_watching_process_merges_what_other_processes_write(store: edgeshard.Store) -> None:
    with watcher(store, "--rescan", NEVER_S) as process:
        for n in range(3):
            python("import sys, edgeshard; edgeshard.Store(sys.argv[1]).shard('a').write({'n': 1})", store.root)
            await_that(lambda: count(store) == n + 1)  # noqa: B023
            time.sleep(1.2)  # it is idle again
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (0, 1) == (process.returncode, len(err.splitlines())), err
    assert f" watches {store.root}: " in err
    assert out.startswith("merged 3 rows in ")


def test_after_one_commit_at_most_two_passes_are_made(store: edgeshard.Store) -> None:
    with serving(store) as passes, store.shard("agent") as shard:
        await_that(lambda: is_idle(passes))
        shard.write({"n": 1})
        await_that(lambda: passes.found() == 1)
        await_that(lambda: is_idle(passes))
        # the first event may come before the commit is whole, and wake a pass that finds nothing yet
        first = next(n for n, report in enumerate(passes.reports) if report.rows)
        assert [(1, 0), (0, 1)] == [(report.rows, report.truncated) for report in passes.reports[first:]]


def test_an_idle_service_makes_no_pass(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    with serving(store, keep_empty=True) as passes:
        await_that(lambda: is_idle(passes))
        before = len(passes.reports)
        time.sleep(1.0)
        assert before == len(passes.reports)


@pytest.mark.slow
def test_under_load_a_pass_begins_each_interval_and_the_busy_shard_is_not_truncated_in_each(
    store: edgeshard.Store,
) -> None:
    with serving(store, interval_s=0.2) as passes, store.shard("agent") as shard:
        upto = time.monotonic() + 2.0
        written = 0
        while time.monotonic() < upto:
            written = shard.write({"n": written})
            time.sleep(0.001)  # else its log passes the mark within each interval
        busy = [report for report in passes.reports if report.rows]
        assert 3 <= len(busy) <= 11
        assert len([report for report in busy if report.truncated]) < len(busy) / 2
        await_that(lambda: is_idle(passes))
        assert written == sum(report.rows for report in passes.reports)
        assert written == sum(report.truncated for report in passes.reports)


def test_a_shard_that_is_moved_in_is_found(store: edgeshard.Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    write(other, "agent", 1, 2)
    with serving(store) as passes:
        await_that(lambda: is_idle(passes))
        shard_path(other, "agent").rename(shard_path(store, "brought"))
        await_that(lambda: sum(report.rows for report in passes.reports) == 2)


SHELL = EXAMPLES / "sqlite_shell.sh"


@pytest.mark.skipif(not shutil.which("flock"), reason="util-linux's flock is not installed")
@pytest.mark.skipif(not shutil.which("sqlite3"), reason="the sqlite3 program is not installed")
@pytest.mark.slow
def test_rows_of_a_shell_script_are_found(store: edgeshard.Store) -> None:
    with store.shard("door") as shard:
        shard.write({"n": 0, "text": "it's"})
    command = ["sh", str(SHELL), str(store.root), "door"]
    with watcher(store, "--keep-empty", "--rescan", NEVER_S):
        for n in range(1, 3):
            subprocess.run([*command, json.dumps({"n": n, "text": "it's"})], check=True)
            await_that(lambda: count(store) == n + 1)  # noqa: B023
    assert [(n, "it's", "door") for n in range(3)] == [
        (row.data["n"], row.data["text"], row.agent_id) for row in store.read(edgeshard.AgentData)
    ]
    assert store.verify().ok
    with store.shard("door"):
        started = subprocess.Popen([*command, "{}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.5)
        assert None is started.poll()  # it waits for the lock
    assert (b"", b"") == started.communicate(timeout=PATIENCE_S)
    assert 1 == store.merge().rows


class HeldAfterPasses(Passes):
    """Counts the process's descriptors and threads after each pass that found rows, when the watcher holds the least.

    Its own thread counts them: nothing is watched then, and no shard is open. Seen from another thread, it would be
    anywhere between that and a watch that is being made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []
        self.threads: list[int] = []

    def merged(self, report: MergeReport) -> None:
        if report.rows:
            self.descriptors.append(len(os.listdir("/proc/self/fd")))
            self.threads.append(threading.active_count())
        super().merged(report)


@pytest.mark.slow
def test_descriptors_and_threads_do_not_grow(store: edgeshard.Store) -> None:
    passes = HeldAfterPasses()
    # a row becomes visible a moment after its event: a pass in between finds nothing, and a rescan finds the row
    settings = {"interval_s": 0.001, "rescan_s": 1.0, "listener": passes}
    with serving(store, **settings), store.shard("agent") as shard:
        for n in range(120):
            shard.write({"n": n})
            await_that(lambda: bool(passes.failures) or passes.found() == n + 1)  # noqa: B023
            assert [] == passes.failures
    for held in (passes.descriptors, passes.threads):
        # the least of many: watchdog's threads may take a while to end. The first passes open what stays open
        assert min(held[-20:]) <= min(held[20:40]), held


# -- the locks --------------------------------------------------------------------------------------------------------


def test_a_second_watcher_is_refused_at_once_or_waits(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    with store.watching():
        done = merge_command(store.root, "--watch")
        assert (75, "") == (done.returncode, done.stdout)
        assert "--lock-wait" in done.stderr
        done = merge_command(store.root, "--watch", "--lock-wait", "0.2")
        assert 75 == done.returncode
        assert "lock" not in done.stderr.replace(str(store.root), ""), "it was given"
        late = edgeshard.Store(store.root).watcher()
        waiting = threading.Thread(target=late.open, args=[PATIENCE_S])
        waiting.start()
    waiting.join()
    late.close()
    assert [1] == numbers(store)


def test_other_databases_and_fresh_queries_are_merged_beside_a_watcher(store: edgeshard.Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    write(other, "other", 1)
    with store.watching(interval=NEVER_S, rescan=NEVER_S, observer="polling"), store.shard("agent") as shard:
        shard.write({"n": 2})
        assert [(1,)] == store.query("select count(*) from agent_data", fresh=True)
        assert 1 == store.merge([shard_path(other, "other")]).rows
        assert 0 == merge_command(store.root, "--from", shard_path(other, "other")).returncode
        assert [1, 2] == numbers(store)


def test_two_watchers_of_one_store_are_one_too_many(store: edgeshard.Store) -> None:
    with store.watching(), pytest.raises(MergeInProgressError, match="watches"), store.watching():
        pass
    with store.watching():
        pass


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"interval": 0}, "interval"), ({"rescan": -1}, "rescan"), ({"interval": float("nan")}, "interval"),
     ({"rescan": float("inf")}, "rescan"), ({"interval": "1"}, "interval"), ({"observer": "magic"}, "observer")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(store: edgeshard.Store, settings: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name), store.watching(**settings):
        pass
    assert not store.root.exists()


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_watcher_that_is_asked_to_stop_exits_0(store: edgeshard.Store, number: int) -> None:
    with watcher(store, "--quiet") as process:
        write(store, "agent", 1)
        await_that(lambda: count(store) == 1)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        process.told.wait_for("STOPPING=1")  # type: ignore[attr-defined]
    assert (0, "", "") == (process.returncode, err, out)
    assert not is_locked(store.root / "watch.lock")


def test_a_hangup_rescans(store: edgeshard.Store) -> None:
    with watcher(store, "--observer", "polling", "--interval", NEVER_S, "--rescan", NEVER_S) as process:
        await_that(lambda: store.master_path.exists())
        time.sleep(0.5)
        write(store, "agent", 1)
        time.sleep(0.5)
        assert 0 == count(store)
        process.send_signal(signal.SIGHUP)
        await_that(lambda: count(store) == 1)


_WRITES_AND_STAYS = """
import sys, time, edgeshard
shard = edgeshard.Store(sys.argv[1]).shard("agent")
shard.write({"n": 1})
time.sleep(3600)
"""


@pytest.mark.slow
def test_a_hangup_looks_also_for_agents_that_died_without_a_trace(store: edgeshard.Store) -> None:
    with watcher(store, "--rescan", NEVER_S) as process:
        agent = subprocess.Popen([sys.executable, "-c", _WRITES_AND_STAYS, str(store.root)])
        await_that(lambda: count(store) == 1)
        time.sleep(1.5)  # the shard is truncated, and the merger idle
        agent.kill()
        agent.wait()
        time.sleep(1.5)
        assert shard_path(store, "agent").exists()
        process.send_signal(signal.SIGHUP)
        await_that(lambda: not shard_path(store, "agent").exists())


_SLOW = """
import sys, time
from edgeshard import cli
from edgeshard.merge import apply
real = apply.copy
def slow(*arguments):
    print("copying", flush=True)
    time.sleep(1.0)
    return real(*arguments)
apply.copy = slow
sys.exit(cli.main_of_merge(sys.argv[1:]))
"""


def stopped_in_the_first_copy(store: edgeshard.Store, *signals: int, watch: bool) -> subprocess.Popen[str]:
    """A merge of three shards that gets signals while it copies the first; it has ended."""
    for n in range(3):
        write(store, f"agent-{n}", n)
    command = [sys.executable, "-c", _SLOW, str(store.root), *(["--watch"] if watch else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "copying\n" == process.stdout.readline()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    process.wait(PATIENCE_S)
    return process


@pytest.mark.parametrize(
    ("number", "watch", "code"),
    others_slow(
        [(signal.SIGTERM, True, 0), (signal.SIGINT, True, 0), (signal.SIGTERM, False, 0), (signal.SIGINT, False, 130)],
        always=[(signal.SIGTERM, True, 0), (signal.SIGINT, False, 130)],
    ),
)
def test_the_shard_at_hand_is_finished_and_the_rest_is_left_for_next_time(
    store: edgeshard.Store, number: int, watch: bool, code: int
) -> None:
    process = stopped_in_the_first_copy(store, number, watch=watch)
    out, err = process.communicate()
    assert (code, "merged 1 row") == (process.returncode, out.splitlines()[-1][:12]), err
    assert ("interrupted" in err) == (code == 130)
    assert watch or "stopped early" in out
    assert [0] == numbers(store)
    assert 2 == store.merge().rows


@pytest.mark.parametrize("watch", [True, False])
def test_a_second_signal_interrupts(store: edgeshard.Store, watch: bool) -> None:
    process = stopped_in_the_first_copy(store, signal.SIGTERM, signal.SIGINT, watch=watch)
    out, err = process.communicate()
    assert (130, "") == (process.returncode, out), err
    assert "interrupted" in err
    assert [] == numbers(store)
    assert 3 == store.merge().rows


def test_a_merge_that_waits_for_another_is_stopped_at_once(store: edgeshard.Store) -> None:
    write(store, "agent", 1)
    with store.watching():
        code = "import sys; from edgeshard import cli; print(flush=True); sys.exit(cli.main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "merge", str(store.root), "--lock-wait", str(NEVER_S)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # importing may take long on a busy machine
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(PATIENCE_S)
        process.communicate()


def test_a_service_manager_is_told_that_the_merger_lives(store: edgeshard.Store) -> None:
    with watcher(store, WATCHDOG_USEC="200000") as process:
        process.told.wait_for("WATCHDOG=1")  # type: ignore[attr-defined]


def test_with_json_each_pass_that_did_something_is_a_line(store: edgeshard.Store) -> None:
    with watcher(store, "--json") as process:
        write(store, "agent", 1, 2)
        await_that(lambda: count(store) == 2)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert 2 == sum(json.loads(line)["rows"] for line in out.splitlines())


def test_metrics_are_kept_in_a_file(store: edgeshard.Store, tmp_path: Path) -> None:
    path = tmp_path / "edgeshard.prom"

    def figure(name: str) -> float | None:
        families = text_string_to_metric_families(path.read_text())
        return next((sample.value for family in families for sample in family.samples if sample.name == name), None)

    with watcher(store, "--metrics-file", path, "--interval", "0.1", "--rescan", "0.5") as process:
        write(store, "agent", 1, 2)
        await_that(lambda: path.exists() and figure("edgeshard_rows_merged_total") == 2)
        shard_path(store, "bad").write_bytes(b"garbage" * 1000)
        await_that(lambda: figure("edgeshard_quarantined_shards") == 1)
        await_that(lambda: figure("edgeshard_pending_rows") == 0)
        store.master_path.rename(store.root / "kept")
        store.master_path.touch()
        await_that(lambda: (figure("edgeshard_failed_passes_total") or 0) > 0)
        (store.root / "kept").rename(store.master_path)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(PATIENCE_S)
    done = merge_command(store.root, "--watch", "--metrics-file", tmp_path / "no" / "x.prom")
    assert (78, True) == (done.returncode, "there is no folder" in done.stderr)


@pytest.mark.parametrize(
    "options",
    [["--from", "x.db"], ["--dry-run"], ["--interval", "0"], ["--rescan", "0"], ["--interval", "soon"],
     ["--interval", "nan"], ["--rescan", "1e300"], ["--observer", "magic"]],
)  # fmt: skip
def test_what_makes_no_sense_while_watching_is_wrong_usage(store: edgeshard.Store, options: list[str]) -> None:
    store.root.mkdir()
    done = merge_command(store.root, "--watch", *options)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"argument {options[0]}: " in done.stderr


@pytest.mark.parametrize(
    "options", [["--interval", "1"], ["--rescan", "1"], ["--observer", "auto"], ["--metrics-file", "x.prom"]]
)
def test_what_is_for_watching_is_wrong_usage_without_it(store: edgeshard.Store, options: list[str]) -> None:
    store.root.mkdir()
    done = merge_command(store.root, *options)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"argument {options[0]}: requires --watch" in done.stderr


def test_a_quiet_watcher_still_says_what_it_sets_aside(store: edgeshard.Store) -> None:
    (store.root / "shards").mkdir(parents=True)
    shard_path(store, "bad").write_bytes(b"garbage" * 1000)
    with watcher(store, "--quiet") as process:
        write(store, "good", 1)
        await_that(lambda: count(store) == 1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (0, "") == (process.returncode, out)
    assert "bad.db" in err


@pytest.mark.slow
def test_a_fresh_query_on_the_command_line_is_answered_beside_a_watcher(store: edgeshard.Store) -> None:
    with watcher(store, "--observer", "polling", "--interval", NEVER_S, "--rescan", NEVER_S):
        await_that(lambda: store.master_path.exists())
        time.sleep(0.5)
        write(store, "agent", 1)
        statement = "select _seq from agent_data"
        command = [sys.executable, "-m", "edgeshard", "query", str(store.root), "--fresh", "--csv", statement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (0, ["_seq", "1"], "") == (done.returncode, done.stdout.splitlines(), done.stderr)


@pytest.mark.slow
def test_a_full_disk_under_stdout_does_not_keep_rows_from_being_merged(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (store.root / "shards").mkdir(parents=True)
    command = [sys.executable, "-m", "edgeshard.merge", str(store.root), "--watch", "--json"]
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True)
    try:
        for n in range(2):
            write(store, "agent", n)
            await_that(lambda: count(store) == n + 1)  # noqa: B023
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert "cannot write to stdout" in err
    assert 74 == process.returncode  # what was to be printed never was


def test_metrics_are_kept_also_where_the_store_cannot_be_looked_at(store: edgeshard.Store, tmp_path: Path) -> None:
    path = tmp_path / "edgeshard.prom"
    reporter = services._MergeReporter(store, "watches", MetricsFile(path), status_every_s=NEVER_S, as_json=False)
    store.root.touch()  # no folder
    reporter.merged(MergeReport(rows=7))
    assert "edgeshard_rows_merged_total 7.0" in path.read_text()
    reporter.failed(StorageIOError("merge into", store.master_path, "no"))
    assert "edgeshard_failed_passes_total 1.0" in path.read_text()


def test_who_waits_long_for_another_merger_says_so(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (store.root / "shards").mkdir(parents=True)
    monkeypatch.setattr(locks, "_LOG_AFTER_S", 0.3)
    held = lock(store.root / "merge.lock")
    assert held is not None
    with pytest.raises(MergeInProgressError):
        store.merge(lock_wait=1.0)
    assert 1 == caplog.text.count("waiting for another merger")
    held.release()


# -- what becomes of the watch ----------------------------------------------------------------------------------------


def only_watch(monkeypatch: pytest.MonkeyPatch) -> list[fs_events.Watch]:
    """The watches that a service arms from now on."""
    made: list[fs_events.Watch] = []

    class Kept(fs_events.Watch):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(folder_watch, "Watch", Kept)
    return made


def kill_emitters(watch: fs_events.Watch) -> None:
    for thread in watch._threads[1:]:
        thread.stop()  # type: ignore[attr-defined]
    for thread in watch._threads[1:]:
        thread.join()


def replace_folder(store: edgeshard.Store) -> None:
    """Another folder takes the name of ``shards``, with what was in it."""
    made = store.root / "made"
    made.mkdir()
    (store.root / "shards").rename(store.root / "old")
    made.rename(store.root / "shards")
    for path in (store.root / "old").iterdir():
        path.rename(store.root / "shards" / path.name)


@pytest.mark.parametrize("how", ["an emitter dies", "the folder is replaced", "the folder is deleted"])
def test_a_watch_that_died_is_found_dead_at_the_next_rescan(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    watches = only_watch(monkeypatch)
    with serving(store, rescan_s=1.0) as passes:
        await_that(lambda: bool(watches))
        await_that(lambda: is_idle(passes))
        if how == "an emitter dies":
            kill_emitters(watches[-1])
        elif how == "the folder is replaced":
            replace_folder(store)
        else:
            shutil.rmtree(store.root / "shards")
        await_that(lambda: "had died" in caplog.text)
        await_that(lambda: watches[-1].is_alive())
        write(store, "agent", 1)
        await_that(lambda: passes.found() == 1)
        armed = len(watches)
        await_that(lambda: len(watches) > armed and watches[-1].is_alive())
    assert [1] == numbers(store)


def test_where_no_events_come_the_rescan_finds_all_and_the_service_looks_each_interval(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(fs_events.Watch):
        def __init__(self, folder: Path, notify: Callable[[], None]) -> None:
            del notify
            super().__init__(folder, lambda: None)

    monkeypatch.setattr(folder_watch, "Watch", Deaf)
    with serving(store, rescan_s=0.5, interval_s=0.05) as passes, store.shard("agent") as shard:
        for n in range(2):
            time.sleep(0.2)
            shard.write({"n": n})
            await_that(lambda: passes.found() == n + 1)  # noqa: B023
        await_that(lambda: "no events come" in caplog.text)
    with serving(store, rescan_s=NEVER_S, observer="polling") as passes, store.shard("agent") as shard:
        shard.write({"n": 2})
        await_that(lambda: passes.found() == 1)
    assert [0, 1, 2] == numbers(store)


@pytest.mark.slow
def test_where_nothing_can_be_watched_the_service_looks_each_interval(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise StorageIOError("watch folder", store.root, "too many inotify instances")

    monkeypatch.setattr(folder_watch, "Watch", refuse)
    with serving(store, rescan_s=0.5) as passes:
        for n in range(3):
            write(store, "agent", n)
            await_that(lambda: passes.found() == n + 1)  # noqa: B023
            time.sleep(0.6)  # a rescan tries again to watch
        assert 1 == caplog.text.count("too many inotify instances")
        watches = only_watch(monkeypatch)
        await_that(lambda: bool(watches))
    assert [0, 1, 2] == numbers(store)


def test_where_nothing_can_be_watched_a_native_service_tries_ever_more_rarely_and_says_when_it_works_again(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = fs_events.Watch
    attempts: list[float] = []

    def refuse(*arguments: Any) -> Any:
        attempts.append(time.monotonic())
        if len(attempts) < 6:
            raise StorageIOError("watch folder", store.root, "too many inotify instances")
        return real(*arguments)

    monkeypatch.setattr(folder_watch, "Watch", refuse)
    with serving(store, observer="native", interval_s=0.05) as passes:
        await_that(lambda: "works again, after 5 failures" in caplog.text)
        waits = [after - before for before, after in itertools.pairwise(attempts)]
        assert [True] * 5 == [wait >= 0.05 * 2**n for n, wait in enumerate(waits)]
        write(store, "agent", 1)
        await_that(lambda: passes.found() == 1)
    assert (5, 1) == (len(passes.failures), passes.recoveries)


@pytest.mark.slow
def test_events_that_bring_no_rows_wake_at_most_one_pass_an_interval(store: edgeshard.Store) -> None:
    with serving(store, interval_s=1.0) as passes:
        await_that(lambda: is_idle(passes))
        before = len(passes.reports)
        upto = time.monotonic() + 3.0
        while time.monotonic() < upto:
            (store.root / "shards" / "notes.txt").write_text("no shard")
            time.sleep(0.01)
        assert 1 <= len(passes.reports) - before <= 10
        write(store, "agent", 1)
        await_that(lambda: passes.found() == 1)


def test_a_commit_between_the_last_look_and_the_watch_is_found(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("agent") as shard:

        class Late(fs_events.Watch):
            def __init__(self, *arguments: Any) -> None:
                if not late:
                    late.append(shard.write({"n": 1}))
                super().__init__(*arguments)

        late: list[int] = []
        monkeypatch.setattr(folder_watch, "Watch", Late)
        with serving(store) as passes:
            await_that(lambda: passes.found() == 1)


# -- what becomes of the store ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_after_a_quiet_time_an_event_in_vain_does_not_make_a_row_wait_for_the_interval(store: edgeshard.Store) -> None:
    # the shard is open all the time: an agent that opens it for a row makes several files, and on a busy machine the
    # passes between these are enough of them in vain
    with store.shard("agent") as shard, serving(store, interval_s=2.0) as passes:
        await_that(lambda: is_idle(passes))
        # a busy machine may keep one row waiting for as long; each time it would be the interval's doing
        for number in range(1, 4):
            after_vain_events(passes, store)  # again: a row makes them be forgotten as well
            time.sleep(4.5)
            make_vain_event(passes, store)
            in_vain = time.monotonic()
            shard.write({"n": number})
            await_that(lambda number=number: passes.found() == number)  # type: ignore[misc]
            if time.monotonic() < in_vain + 1.9:
                return
    raise AssertionError("each row waited for the interval")


def test_a_folder_that_cannot_be_looked_at_for_a_while_does_not_end_the_service(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **options: Any) -> Any:
        if os.path.basename(path) == "agent.lock":  # its writer looks at it
            return identity(path, **options)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    identity = fingerprint.identity
    with serving(store) as passes:
        await_that(lambda: is_idle(passes))
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "identity", refuse)
            write(store, "agent", 1)
            await_that(lambda: bool(passes.failures))
        await_that(lambda: passes.found() == 1)
    assert isinstance(passes.failures[0], StorageIOError)


def test_a_store_that_is_gone_at_the_end_is_not_made_anew(store: edgeshard.Store, tmp_path: Path) -> None:
    with serving(store) as passes:
        write(store, "agent", 1)
        await_that(lambda: passes.found() == 1)
        await_that(lambda: is_idle(passes))
        store.root.rename(tmp_path / "old")
    assert not store.root.exists()


def test_a_store_that_is_replaced_as_a_whole_is_watched_further(
    store: edgeshard.Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(store, rescan_s=0.5) as passes:
        write(store, "agent", 1)
        await_that(lambda: passes.found() == 1)
        store.root.rename(tmp_path / "old")
        await_that(lambda: "its folder is missing" in caplog.text)
        assert not store.root.exists()
        write(store, "agent", 2)
        await_that(lambda: passes.found() == 2)
        with pytest.raises(MergeInProgressError):
            store.merge()
    assert ([1], [2]) == (numbers(edgeshard.Store(tmp_path / "old")), numbers(store))


def test_a_master_that_is_replaced_by_an_older_copy_gets_what_the_shards_still_have(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    write(store, "first", 1)
    store.merge()
    store.snapshot(tmp_path / "copy.db")
    with serving(store, rescan_s=0.5, keep_empty=True) as passes, store.shard("agent") as shard:
        shard.write({"n": 2})
        await_that(lambda: passes.found() == 1)
        await_that(lambda: sum(report.truncated for report in passes.reports) == 1)
        for suffix in ("-wal", "-shm", ""):
            (store.root / f"master.db{suffix}").unlink()
        (tmp_path / "copy.db").rename(store.master_path)
        shard.write({"n": 3})
        await_that(lambda: numbers(store) == [1, 3])
        await_that(lambda: len(passes.reports[-1].gaps) == 1)  # row 2 was in the master that is gone


def test_no_shard_is_truncated_once_the_master_has_lost_its_name(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chunk.commit_chunk

    def late(*arguments: Any) -> None:
        real(*arguments)
        store.master_path.rename(tmp_path / "stolen.db")

    for agent in ("a", "b"):
        write(store, agent, 1)
    with monkeypatch.context() as patch:
        patch.setattr(chunk, "commit_chunk", late)
        with pytest.raises(StorageIOError, match="replaced"):
            store.merge()
    (store.root / "master.db-wal").unlink()
    (store.root / "master.db-shm").unlink(missing_ok=True)
    assert 2 == store.merge().rows


def test_no_shard_is_truncated_once_the_master_has_lost_its_log(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chunk.commit_chunk

    def late(*arguments: Any) -> None:
        real(*arguments)
        (store.root / "master.db-wal").unlink()

    write(store, "a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(chunk, "commit_chunk", late)
        with pytest.raises(StorageIOError, match="replaced"):
            store.merge()
    (store.root / "master.db-shm").unlink(missing_ok=True)
    assert 1 == store.merge().rows
    assert [1] == numbers(store)


def test_a_folder_whose_time_is_set_back_is_read_anew(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    folder = scan.Folder(store.root / "shards")
    write(store, "a", 1)
    before = os.stat(folder.path)
    assert {"a.db"} == folder.scan().names
    write(store, "b", 1)
    os.utime(folder.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {"a.db", "b.db"} == folder.scan().names


def test_gaps_that_another_merger_brings_are_reported(store: edgeshard.Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    write(other, "agent", 1, 2)
    other.merge(keep_empty=True)
    with serving(store, rescan_s=0.2) as passes:
        await_that(lambda: bool(passes.reports))
        store.merge([shard_path(other, "agent")])
        await_that(lambda: len(passes.reports[-1].gaps) == 1)


def test_a_failure_is_said_and_tried_again(store: edgeshard.Store, caplog: pytest.LogCaptureFixture) -> None:
    with serving(store, rescan_s=0.5) as passes, store.shard("agent") as shard:
        store.master_path.rename(store.root / "kept")
        store.master_path.touch()
        shard.write({"n": 1})
        await_that(lambda: len(passes.failures) >= 2)
        assert "trying again in" in caplog.text
        (store.root / "kept").rename(store.master_path)
        await_that(lambda: passes.found() == 1)
    assert [1] == numbers(store)


def test_a_failure_at_the_start_ends_it(store: edgeshard.Store) -> None:
    store.root.mkdir()
    store.master_path.touch()
    done = merge_command(store.root, "--watch")
    assert (65, True) == (done.returncode, "master.db" in done.stderr)
    with pytest.raises(StorageError), store.watching():
        pytest.fail("it began")
    assert not is_locked(store.root / "watch.lock")


def test_a_bad_shard_is_told_once_and_wakes_nobody(store: edgeshard.Store, caplog: pytest.LogCaptureFixture) -> None:
    (store.root / "shards").mkdir(parents=True)
    shard_path(store, "bad").write_bytes(b"garbage" * 1000)
    os.mkfifo(shard_path(store, "pipe"))
    (store.root / "shards" / os.fsdecode(b"\xff.db")).touch()
    with serving(store, rescan_s=0.2) as passes:
        await_that(lambda: len(passes.reports) > 4)
        assert {3} == {len(report.quarantined) for report in passes.reports}
    assert 3 == caplog.text.count("quarantined")
    with serving(store) as passes:
        await_that(lambda: is_idle(passes))
        shard_path(store, "bad").unlink()
        write(store, "bad", 1)
        await_that(lambda: passes.found() == 1)


@attrs.frozen
class Reading:
    celsius: float


@pytest.fixture
def merged_once(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[edgeshard.Shard, Merger]]:
    """An open shard, and a merger that has merged its row; the file counts as settled at once."""
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    merger = Merger(store.root)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        merger.run()
        yield shard, merger
    merger.close()


@pytest.mark.parametrize("is_new_table", [False, True])
def test_rows_that_come_between_a_truncation_and_the_last_look_at_the_shard_are_news(
    merged_once: tuple[edgeshard.Shard, Merger], monkeypatch: pytest.MonkeyPatch, is_new_table: bool
) -> None:
    shard, merger = merged_once
    shard.write({"n": 2})
    real = truncate._shrink

    def late(*arguments: Any) -> fingerprint.State:
        shard.write(Reading(3.0) if is_new_table else {"n": 3})
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(truncate, "_shrink", late)
        merger.run()
    assert merger.has_news()
    assert (1, False) == (merger.run(thorough=False).rows, merger.has_news())


def test_what_a_pass_left_because_it_was_stopped_is_found_by_the_next(
    store: edgeshard.Store,
) -> None:
    for n in range(5):
        write(store, f"agent-{n}", n)
    asked = iter([False] * 4)
    merger = Merger(store.root, should_stop=lambda: next(asked, True))
    report = merger.run()
    merger.close()
    assert report.stopped
    assert 0 < report.rows < 5
    again = Merger(store.root)
    assert (5 - report.rows, False) == (again.run().rows, again.run().stopped)
    again.close()
    assert [*range(5)] == numbers(store)


def test_a_truncation_is_no_news_and_rows_that_come_during_it_are(
    merged_once: tuple[edgeshard.Shard, Merger], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, merger = merged_once
    assert not merger.has_news()
    shard.write({"n": 2})
    assert merger.has_news()
    real = truncate._data_version
    versions: list[int] = []

    def late(*arguments: Any) -> int:
        versions.append(real(*arguments))
        if len(versions) == 2:  # just after the last look at the shard
            shard.write({"n": 3})
        return versions[-1]

    with monkeypatch.context() as patch:
        patch.setattr(truncate, "_data_version", late)
        merger.run()
    assert len(versions) == 2
    assert versions[0] == versions[1]
    assert merger.has_news()
    assert (1, False) == (merger.run(thorough=False).rows, merger.has_news())


def test_what_another_merger_did_meanwhile_is_seen(store: edgeshard.Store) -> None:
    merger = Merger(store.root)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        assert 1 == merger.run().rows
        shard.write({"n": 2})
        assert 1 == store.merge().rows
        assert 0 == merger.run().rows
    merger.close()
    connection = database.open_master(store.master_path, writable=False)
    looked = shard_states.load_states(connection)
    connection.close()
    assert ["agent.db"] == list(looked)
    assert paths.lock_path(str(shard_path(store, "agent"))) == str(store.root / "shards" / "agent.lock")
