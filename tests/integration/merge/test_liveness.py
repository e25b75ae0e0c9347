"""Is the watcher at work? A merge next to one that is has nothing to do; one that is stalled is not taken for a merger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeshard
from edgeshard.cli import main, next_steps
from edgeshard.errors import MergeInProgressError, StorageIOError, StoreWatchedError, WatcherStalledError
from edgeshard.files import lock_holder, locks, paths
from edgeshard.files.lock_pulse import Pulse
from edgeshard.merge import locks as merge_locks
from edgeshard.merge.merger import Merger
from edgeshard.reports import WatcherStatus, service
from tests.support.processes import merge_command
from tests.support.stores import new_store, numbers, shard_path

PATIENCE_S = 30.0
NEVER_S = 3600.0


def wait_until(condition: Callable[[], object]) -> None:
    ended = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ended, "it did not happen"
        time.sleep(0.01)


def write(store: edgeshard.Store, agent: str, *values: int) -> None:
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in values)


def watcher_of(store: edgeshard.Store) -> WatcherStatus:
    found = store.status().watcher
    assert found is not None
    return found


HANGING = """
import sys, time, edgeshard
edgeshard.Store(sys.argv[1]).merge(should_stop=lambda: print("at work", flush=True) or time.sleep(600) or False)
"""


@pytest.fixture
def stuck(store: edgeshard.Store) -> Iterator[edgeshard.Store]:
    """A store whose watcher has not finished a pass for several rescans."""
    store.init()
    held = locks.lock(paths.watch_lock(store.root))
    assert held is not None
    note = lock_holder.leave_note(paths.watch_lock(store.root), "watch")
    pulse = Pulse(paths.watch_lock(store.root), 0.01)
    time.sleep(0.05)
    yield store
    pulse.end()
    lock_holder.remove_note(paths.watch_lock(store.root), note)
    held.release()


# -- at work ----------------------------------------------------------------------------------------------------------


def test_a_merge_next_to_a_watcher_has_nothing_to_do(
    store: edgeshard.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write(store, "a", 1)
    with store.watching():
        with pytest.raises(
            StoreWatchedError, match=r"a watcher \(pid \d+\) merges this store; .*fresh=True"
        ) as refused:
            store.merge(lock_wait=-1)  # it is not waited for
        assert os.getpid() == refused.value.pid
        assert 0 == main(["merge", str(store.root)])
        assert ("", f"a watcher (pid {os.getpid()}) merges this store\n") == tuple(capsys.readouterr())
        assert 0 == main(["merge", str(store.root), "-q", "--lock-wait", "3600"])
        assert ("", "") == tuple(capsys.readouterr())
        assert 0 == main(["merge", str(store.root), "--json", "-q"])
        assert '"rows": 0' in capsys.readouterr().out
    assert [1] == numbers(store)


def test_status_says_who_watches_and_when_the_last_pass_was(store: edgeshard.Store) -> None:
    store.init()
    assert (False, None) == (store.status().watching, store.status().watcher)
    with store.watching(rescan=30.0):
        found = store.status()
        assert found.watching is True
        assert found.watcher is not None
        assert (os.getpid(), 30.0, False) == (found.watcher.pid, found.watcher.rescan_s, found.watcher.is_stalled)
        assert found.watcher.since is not None
        assert abs((found.at - found.watcher.since).total_seconds()) < PATIENCE_S
        assert f"a watcher (pid {os.getpid()}) merges this store" == str(found.watcher)


def test_one_that_stands_by_and_takes_over_has_a_pulse(store: edgeshard.Store) -> None:
    with store.watching(rescan=0.05, standby=True):
        wait_until(lambda: store.status().watching)
        assert 0.05 == watcher_of(store).rescan_s
        wait_until(lambda: (watcher_of(store).pass_age_s or 0) > 0.03)
        wait_until(lambda: (watcher_of(store).pass_age_s or 0) < 0.03)  # a rescan, with nothing to merge


def test_each_commit_counts_because_a_long_pass_is_no_failure(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Pulse] = []
    monkeypatch.setattr(Pulse, "beat", lambda self: beats.append(self))
    write(store, "a", 1)
    watcher = store.watcher(rescan=NEVER_S)
    assert watcher.open()
    mergers = [beat for beat in beats if beat is not beats[0]]
    assert 1 == len(mergers), "when the merge began"
    assert 3 == len(beats) - len(mergers), "when it began to watch, after the commit, and after the pass"
    watcher.close()


def test_a_lock_that_no_watcher_holds_is_waited_for(store: edgeshard.Store) -> None:
    """A restore holds it, too."""
    write(store, "a", 1)
    held = locks.lock(paths.watch_lock(store.root))
    assert held is not None
    assert (None, None) == (store.status().watching, store.status().watcher)
    with pytest.raises(
        MergeInProgressError, match=r"another merger watches it \(process \d+\); try again later, or wait"
    ) as refused:
        store.merge()
    assert MergeInProgressError is type(refused.value)
    held.release()


# -- stalled ----------------------------------------------------------------------------------------------------------


def test_a_watcher_that_finishes_no_pass_is_stuck_if_rows_are_pending(
    stuck: edgeshard.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write(stuck, "a", 1)
    found = stuck.status()
    assert found.watching is False
    assert found.watcher is not None
    assert (True, False) == (found.watcher.is_stuck, found.watcher.is_stopped)
    with pytest.raises(WatcherStalledError, match=r"has not finished a pass for .* although rows are pending"):
        stuck.merge()
    assert 75 == main(["merge", str(stuck.root), "--quiet"])
    said = capsys.readouterr().err
    assert f"a watcher (pid {os.getpid()}) has not finished a pass" in said
    assert "--lock-wait" not in said
    assert 0 == main(["merge", str(stuck.root), "-q", "--from", str(shard_path(stuck, "a"))])
    assert [1] == numbers(stuck)


def test_without_pending_rows_it_is_not_stuck(stuck: edgeshard.Store) -> None:
    assert True is stuck.status().watching
    with pytest.raises(StoreWatchedError):
        stuck.merge()


def test_a_pass_that_fails_is_not_finished(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageIOError("merge into", store.master_path, "the disk was pulled out")

    with store.watching(interval=0.01, rescan=0.05), store.shard("a") as shard:
        with monkeypatch.context() as broken:
            broken.setattr(Merger, "run", fail)
            shard.write({"n": 1})
            wait_until(lambda: watcher_of(store).is_stuck)
        wait_until(lambda: store.status().watching)
        wait_until(lambda: [1] == numbers(store))


@pytest.mark.slow
def test_a_watcher_that_was_stopped_is_not_taken_for_a_merger_until_it_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "data"
    store = new_store(root)
    write(store, "a", 1)
    command = [sys.executable, "-m", "edgeshard", "merge", str(root), "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(store.has_master)
        wait_until(lambda: store.status().watching)
        done = merge_command(root)
        assert (0, "", f"a watcher (pid {process.pid}) merges this store\n") == (
            done.returncode,
            done.stdout,
            done.stderr,
        )
        done = merge_command(root, "-q")
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: watcher_of(store).is_stopped)
        assert False is store.status().watching
        done = merge_command(root, "-q")
        assert (75, "") == (done.returncode, done.stdout)
        assert f"a watcher (pid {process.pid}) is stopped, and merges nothing" in done.stderr
        assert f"kill -CONT {process.pid}" in done.stderr
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: store.status().watching)
        assert 0 == merge_command(root, "-q").returncode
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_merge_that_hangs_is_named_and_ended_as_status_says(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "agent", 1)
    hanging = [sys.executable, "-c", HANGING, str(store.root)]
    with subprocess.Popen(hanging, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "at work\n" == process.stdout.readline()
            begun = store.status()
            assert (True, "green") == (f"a merge (pid {process.pid}) is at work" in begun.headline, begun.verdict)
            with pytest.raises(MergeInProgressError, match=rf"\(process {process.pid}\)"):
                store.merge()
            monkeypatch.setattr(service, "IDLE_MAX_S", 0.01)
            time.sleep(0.05)
            with pytest.raises(
                WatcherStalledError, match=rf"\(pid {process.pid}\) has .*end it \(kill {process.pid}\)"
            ):
                store.merge()
            report = store.status()
            assert [("merge-stalled", "red")] == [(problem.kind, problem.level) for problem in report.problems]
            kill, _ = next_steps.next_step(report.problems[0], report, store.root).commands
            monkeypatch.undo()
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: store.status().verdict == "red")
            found = store.status().merge
            assert found is not None
            assert (process.pid, True) == (found.pid, found.is_stopped)
            process.send_signal(signal.SIGCONT)
            assert ["kill", str(process.pid)] == kill.split()
            subprocess.run(kill.split(), check=True)
            assert -signal.SIGTERM == process.wait(PATIENCE_S)
        finally:
            process.kill()
    assert 1 == store.merge().rows
    assert store.status().merge is None


# -- waiting without limit --------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(store: edgeshard.Store) -> Iterator[subprocess.Popen[str]]:
    """A merge that has ``merge.lock``, and does not end."""
    write(store, "agent", 1)
    store.init()
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, str(store.root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "at work\n" == process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: lock_holder.is_stopped(process.pid))


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    path = tmp_path / "lines.ndjson"
    path.write_text('{"n": 1}\n')
    return path


@pytest.mark.timeout(PATIENCE_S)
def test_nobody_waits_without_limit_for_a_merger_that_is_stopped(
    store: edgeshard.Store,
    hanging: subprocess.Popen[str],
    lines_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop(hanging)
    pattern = rf"a merge \(pid {hanging.pid}\) is stopped, .*let it go on \(kill -CONT {hanging.pid}\)"
    with pytest.raises(WatcherStalledError, match=pattern):
        store.query("select 1", fresh=True)
    with pytest.raises(WatcherStalledError, match=pattern):
        store.import_(lines_file)
    assert 75 == main(["query", str(store.root), "--fresh", "select 1"])
    assert f"kill -CONT {hanging.pid}" in capsys.readouterr().err
    hanging.kill()
    hanging.wait()
    assert 1 == store.query("select count(*) from agent_data", fresh=True)[0][0]


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_nobody_waits_without_limit_for_a_merger_that_commits_nothing(
    store: edgeshard.Store, hanging: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "IDLE_MAX_S", 0.5)
    with pytest.raises(WatcherStalledError, match=rf"\(pid {hanging.pid}\) has committed nothing for"):
        store.merge_now()


def test_a_merger_at_work_is_waited_for(
    store: edgeshard.Store, hanging: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_locks, "_CHECK_S", 0.01)
    began = time.monotonic()
    assert merge_locks.merge_lock(store.root, -1, lambda: time.monotonic() > began + 1.0) is None


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_watcher_outlives_a_merger_that_is_stopped(store: edgeshard.Store, hanging: subprocess.Popen[str]) -> None:
    stop(hanging)
    with pytest.raises(WatcherStalledError, match=f"kill -CONT {hanging.pid}"), store.watching():
        pass
    with store.watching(standby=True):
        wait_until(lambda: store.status().watching)
        time.sleep(2.0)
        hanging.kill()
        wait_until(lambda: [1] == numbers(store))
