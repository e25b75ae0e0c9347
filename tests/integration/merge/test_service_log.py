"""What a service logs, at night and unattended: its start, now and then what it did, and each change once."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import log_fields
from edgeshard.budget import policy
from edgeshard.cli import services
from edgeshard.errors import DiskFullError, PostgresUnavailableError, StorageIOError
from edgeshard.merge.merger import Merger
from edgeshard.merge.watcher import Watcher
from edgeshard.reports import MergeReport, PruneReport
from tests.support.clocks import DAY_S, Machine
from tests.support.keyed_schema_versions import plain
from tests.support.processes import command
from tests.support.stores import new_store, shard_path, write_apart

PACKAGE = Path(edgeshard.__file__).parent

NEVER_S = 1e6


def write(store: edgeshard.Store, agent: str, rows: int = 1) -> None:
    """Write rows as an agent that ends."""
    with store.shard(agent) as shard:
        shard.write_many({"n": number} for number in range(rows))


def messages(caplog: pytest.LogCaptureFixture, least: int = logging.INFO) -> list[str]:
    """What was logged at this level or above since the last call."""
    found = [record.getMessage() for record in caplog.records if record.levelno >= least]
    caplog.clear()
    return found


@pytest.fixture
def merger(store: edgeshard.Store) -> Iterator[Merger]:
    """Yield a watching merger; `run` makes a pass."""
    new_store(store.root)
    made = Merger(store.root, watching=True)
    yield made
    made.close()


# -- changes of state -------------------------------------------------------------------------------------------------


def test_a_shard_that_is_quarantined_and_recovers_is_logged_once_each(
    store: edgeshard.Store, merger: Merger, caplog: pytest.LogCaptureFixture
) -> None:
    path = shard_path(store, "broken")
    path.write_bytes(b"no database" * 100)
    for _ in range(3):
        merger.run()
    assert [True] == [line.startswith(f"quarantined {path}: ") for line in messages(caplog)]
    path.unlink()
    for _ in range(2):
        merger.run()
    (record,) = caplog.records
    assert (f"{path} is no longer quarantined", "broken.db", "recovered") == (
        record.getMessage(),
        vars(record)["shard"],
        vars(record)["state"],
    )


def test_what_was_logged_is_not_logged_again_after_a_failure(
    store: edgeshard.Store,
    merger: Merger,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard_path(store, "broken").write_bytes(b"no database" * 100)
    merger.run()
    assert 1 == len(messages(caplog))
    with monkeypatch.context() as patched:
        patched.setattr(Merger, "_scan", lambda _: (_ for _ in ()).throw(StorageIOError("scan", "x", "no")))
        with pytest.raises(StorageIOError):
            merger.run()
    merger.run()
    assert [] == messages(caplog)


def test_rows_that_are_blocked_and_no_longer_are_logged_once_each(
    store: edgeshard.Store, merger: Merger, caplog: pytest.LogCaptureFixture
) -> None:
    with store.shard("a") as shard:
        shard.write(plain(v=int)(v=1))
    merger.run()
    write_apart(store, "b", plain(v=str)(v="x"))
    for _ in range(2):
        merger.run()
    (line,) = messages(caplog)
    table = line.split()[3]
    assert line.startswith(f"rows of table {table} in {shard_path(store, 'b')} are blocked: ")
    shard_path(store, "b").unlink()
    for _ in range(2):
        merger.run()
    assert [f"rows of table {table} in {shard_path(store, 'b')} are no longer blocked"] == messages(caplog)[:1]


def test_missing_rows_are_logged_by_gap_and_when_the_last_one_came(
    store: edgeshard.Store, merger: Merger, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with store.shard("door") as shard:
        for number in range(3):
            shard.write_many({"n": number} for _ in range(5))
            merger.run()
            if number == 0:
                store.snapshot(tmp_path / "old.db")
        merger.run()  # an idle agent's shard is truncated
    merger.close()
    replaced = store.restore(tmp_path / "old.db").replaced
    for _ in range(2):
        merger.run()
    assert [True] == ["is missing rows 6 to 15 of stream" in line for line in messages(caplog)]
    merger.close()
    store.merge([replaced])
    caplog.clear()
    for _ in range(2):
        merger.run()
    assert [f"{store.master_path} is no longer missing any rows"] == messages(caplog)


def test_a_budget_that_is_full_and_no_longer_full_is_logged_once_each(
    store: edgeshard.Store,
    merger: Merger,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.note_budget("50M")
    merger.run()
    assert [] == messages(caplog)
    with monkeypatch.context() as patched:
        patched.setattr(policy, "is_full", lambda *_: True)
        for _ in range(2):
            merger.run()
    (line,) = messages(caplog)
    assert line.startswith(f"the disk budget of {store.root} is full, writers are refused: the store uses ")
    for _ in range(2):
        merger.run()
    assert [f"the disk budget of {store.root} is no longer full"] == messages(caplog)


def test_a_clock_in_doubt_is_logged_once_and_when_it_was_confirmed(
    store: edgeshard.Store,
    machine: Machine,
    merger: Merger,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(store, "door", 3)
    merger.run()
    assert [] == messages(caplog)
    machine.error_s = 4_000 * DAY_S
    for _ in range(3):
        write(store, "door")
        merger.run()
    (line,) = messages(caplog)
    assert line.startswith(f"{store.root}: ")
    store.confirm_clock()
    for _ in range(2):
        merger.run()
    assert [f"{store.root}: the clock no longer awaits confirmation"] == messages(caplog)


def test_a_single_merge_says_nothing_of_budgets_and_clocks(
    store: edgeshard.Store, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, "door", 3)
    store.merge()
    machine.error_s = 4_000 * DAY_S
    write(store, "door")
    store.merge()
    assert not store.status().clock.complete  # type: ignore[union-attr]
    assert [] == messages(caplog)


def test_a_failure_is_logged_once_and_another_one_again(
    store: edgeshard.Store, caplog: pytest.LogCaptureFixture
) -> None:
    new_store(store.root)
    watcher = Watcher(store.root)
    full = DiskFullError("merge into", store.master_path, "the disk is full (1)")
    for error in (full, DiskFullError("merge into", store.master_path, "the disk is full (2)"), full):
        watcher._fail(error)
    assert [f"{full}; trying again in 1 s"] == messages(caplog)
    watcher._fail(StorageIOError("merge into", store.master_path, "input/output error"))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ("StorageIOError", str(store.root)) == (vars(record)["error"], vars(record)["store"])
    caplog.clear()
    watcher._recover()
    watcher._fail(full)
    assert 2 == len(messages(caplog))


def test_a_push_that_fails_is_logged_once_and_when_it_works_again(
    store: edgeshard.Store, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = services._PushReporter(store, "pushes", as_json=False)
    error = PostgresUnavailableError("push", "edge@db", "connection refused")
    for _ in range(3):
        reporter.failed(error, 2.0)
    reporter.recovered()
    reporter.failed(error, 2.0)
    assert [f"{error}; trying again in 2 s", "pushing works again", f"{error}; trying again in 2 s"] == messages(caplog)


# -- the summary ------------------------------------------------------------------------------------------------------


def test_a_summary_says_what_was_done_since_the_last_one(
    store: edgeshard.Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "edgeshard.merge")
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    write(store, "door", 7)
    reporter = services._MergeReporter(store, "watches", None, status_every_s=NEVER_S, as_json=False)
    reporter.merged(MergeReport(rows=1_200, seconds=0.25))
    now[0] += services.SUMMARY_EVERY_S - 1
    reporter.merged(MergeReport(rows=0, seconds=2.5, pruned=PruneReport(rows=3)))
    assert [] == messages(caplog)
    now[0] += 1
    reporter.failed(StorageIOError("merge into", "master.db", "no"))
    (record,) = caplog.records
    text = "merged 1,200 rows in 2 passes in 10 min, the slowest took 2.500 s; 1 failure; pruned 3 rows; 7 rows pending"
    assert text == record.getMessage()
    assert (1_200, 2, 7, 2.5, 600.0) == tuple(
        vars(record)[name] for name in ("rows", "passes", "pending", "slowest", "seconds")
    )
    caplog.clear()
    now[0] += services.SUMMARY_EVERY_S
    reporter.merged(MergeReport(rows=1, seconds=0.125))
    assert ["merged 1 row in 1 pass in 10 min, the slowest took 0.125 s; 7 rows pending"] == messages(caplog)


def test_a_store_that_cannot_be_read_has_a_summary_without_pending_rows(
    store: edgeshard.Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "edgeshard.merge")
    monkeypatch.setattr(services, "SUMMARY_EVERY_S", 0.0)
    store.root.touch()
    reporter = services._MergeReporter(store, "watches", None, status_every_s=NEVER_S, as_json=False)
    reporter.merged(MergeReport())
    assert ["merged 0 rows in 1 pass in 0 s, the slowest took 0.000 s"] == messages(caplog)[-1:]


# -- a real service ---------------------------------------------------------------------------------------------------

_OFTEN = """
import sys
from edgeshard import cli
from edgeshard.cli import services
services.SUMMARY_EVERY_S = 0.5
sys.exit(cli.main(["merge", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_service_logs_its_start_summaries_and_changes_to_the_journal_and_no_passes(store: edgeshard.Store) -> None:
    log = store.root.parent / "journal"
    with log.open("w") as file:
        found = os.fstat(file.fileno())
        arguments = [sys.executable, "-c", _OFTEN, str(store.root), "--watch", "--init", "--rescan", "0.2"]
        environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        process = subprocess.Popen(
            [*arguments, "--max-bytes", "50M"], stderr=file, stdout=subprocess.PIPE, env=environment
        )
    try:
        until(lambda: " watches " in log.read_text())
        write(store, "door", 3)
        until(lambda: "merged 3 rows in " in log.read_text())
        shard_path(store, "broken").write_bytes(b"no database" * 100)
        until(lambda: "quarantined" in log.read_text())
        shard_path(store, "broken").unlink()
        until(lambda: "no longer quarantined" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(60)
    finally:
        process.kill()
        process.communicate()
    first, *others = log.read_text().splitlines()
    assert first == (
        f"<6>edgeshard.merge: edgeshard {edgeshard.__version__} (pid {process.pid}) watches {store.root}: interval 1 s, "
        "rescan 0.2 s, observer auto, wear normal, disk budget 50.0 MB (error)"
    )
    summaries = [line for line in others if line.startswith("<6>edgeshard.merge: merged ")]
    changes = [line for line in others if line not in summaries]
    assert all("pending" in line for line in summaries)
    assert ["<4>", "<4>"] == [line[:3] for line in changes], changes


@pytest.mark.slow
def test_a_service_logs_fields_as_json(store: edgeshard.Store) -> None:
    new_store(store.root)
    shard_path(store, "broken").write_bytes(b"no database" * 100)
    arguments = [sys.executable, "-c", _OFTEN, str(store.root), "--watch", "--log-format", "json", "--rescan", "0.2"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found: list[dict[str, Any]] = []
    try:
        assert process.stderr is not None
        while not found or "passes" not in found[-1]:
            found.append(json.loads(process.stderr.readline()))
    finally:
        process.kill()
        process.communicate()
    root = str(store.root)
    assert [root] * len(found) == [record["store"] for record in found]
    assert ("started", "quarantined", "broken.db") == (found[0]["state"], found[1]["state"], found[1]["shard"])
    assert (0, 0) == (found[-1]["rows"], found[-1]["pending"])


def test_a_single_merge_is_as_silent_as_ever(store: edgeshard.Store) -> None:
    write(store, "door", 3)
    done = command("merge", store.root, "--quiet")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


# -- fields -----------------------------------------------------------------------------------------------------------


def calls_of_loggers(path: Path) -> Iterator[ast.Call]:
    """The calls in a module that log at a level that people see."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="info" | "warning" | "error" | "exception" | "log")):
                if getattr(owner, "id", getattr(owner, "attr", "")) in ("logger", "_log"):
                    yield node


#: Records about nothing that has a field: the module, and how many.
WITHOUT_FIELDS = {"cli/shell.py": 1, "files/fs_events.py": 1}


def test_each_record_carries_fields() -> None:
    lacking: dict[str, int] = {}
    calls = 0
    for path in PACKAGE.rglob("*.py"):
        for call in calls_of_loggers(path) if "bench" not in path.parts else ():
            calls += 1
            if "extra" not in {keyword.arg for keyword in call.keywords}:
                name = path.relative_to(PACKAGE).as_posix()
                lacking[name] = lacking.get(name, 0) + 1
    assert calls > 40
    assert WITHOUT_FIELDS == lacking


def test_the_guide_lists_each_field() -> None:
    text = (PACKAGE / "docs" / "monitoring.md").read_text()
    names = inspect.signature(log_fields.fields).parameters
    assert [] == [name for name in names if f"| `{name}` |" not in text]


def test_fields_have_the_names_of_files_and_classes(tmp_path: Path) -> None:
    error = StorageIOError("merge", "x", "no")
    found = log_fields.fields(store=tmp_path, shard=tmp_path / "a.db", rows=0, error=error)
    assert {"store": str(tmp_path), "shard": "a.db", "rows": 0, "error": "StorageIOError"} == found


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():
        time.sleep(0.02)
