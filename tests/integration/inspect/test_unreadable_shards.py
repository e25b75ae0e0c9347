"""Shards that a user may not read: that says nothing about them, so nobody is told to move them away."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.cli import main
from edgeshard.reports import Activity, StatusReport
from tests.support.mounts import read_only
from tests.support.stores import new_store, shard_path
from tests.support.users import User, as_root, run_as

READER = User(65534, 65534)

PENDING = 30


def write(store: edgeshard.Store, agent: str, count: int = 10) -> None:
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in range(count))


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that all users may use, as pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path


@pytest.fixture
def shared(public: Path) -> edgeshard.Store:
    """A store that READER may only read, as the guide says: with merged rows, and 30 pending ones in three shards."""
    root = public / "data"
    root.mkdir()
    os.chown(root, 0, READER.gid)
    root.chmod(0o2750)
    store = new_store(root)
    for agent in ("a", "b"):
        write(store, agent)
    store.merge()
    for agent in ("a", "b", "c"):
        write(store, agent)
    return store


def printed(*words: object) -> tuple[int, str]:
    """Run a command, and return its exit code and what it printed."""
    with io.TextIOWrapper(io.BytesIO(), "utf-8") as out, contextlib.redirect_stdout(out):
        code = main([str(word) for word in words])
        out.flush()
        assert isinstance(out.buffer, io.BytesIO)
        return code, out.buffer.getvalue().decode()


def as_reader(*words: object) -> tuple[int, str]:
    printed(*words)  # imports what only root may read
    code, text = run_as(READER, lambda: printed(*words))
    return code, " ".join(text.split())


@as_root
def test_status_of_a_reader_advises_nothing_that_would_lose_rows(shared: edgeshard.Store) -> None:
    code, text = as_reader("status", shared.root)
    assert 0 == code
    assert "yellow: look at it soon: 1 problem" in text
    assert "3 shards cannot be read by this user, so pending rows there are not counted: permission denied" in text
    assert "Run this as that user (`sudo -u root ...`)" in text
    assert "0 rows pending besides those in 3 shards that this user may not read" in text
    for wrong in ("quarantined", "salvage", "mv "):
        assert wrong not in text
    code, text = as_reader("status", shared.root, "--json")
    report = json.loads(text)
    assert (0, 0, 3, "yellow") == (
        code,
        report["quarantined_shards"],
        report["uncounted_shards"],
        report["verdict"],
    )
    assert ["unreadable"] == [problem["kind"] for problem in report["problems"]]
    assert {"user"} == {shard["denied_to"] for shard in report["shards"]}
    assert PENDING == shared.status().pending_rows
    assert 0 == shared.status().uncounted_shards


@as_root
def test_dry_runs_of_a_reader_say_what_they_do_not_count(shared: edgeshard.Store) -> None:
    code, text = as_reader("merge", shared.root, "--dry-run")
    assert 3 == code
    assert "no permission for 3 databases, so the counts lack their rows: " in text
    assert "quarantined" not in text
    code, text = as_reader("erase", shared.root, "agent_data", "--where", "1", "--dry-run")
    assert 3 == code
    assert "would erase 20 rows; 3 shards can not be examined: " in text
    assert "permission denied: user nobody may not" in text


@as_root
def test_the_page_says_that_its_counts_are_incomplete(shared: edgeshard.Store) -> None:
    from edgeshard.cli import status_page

    def page(status: StatusReport, activity: Activity) -> str:
        return status_page.page(status, activity, shared.root)

    assert "<dd>30</dd>" in page(shared.status(), shared.activity())
    # not in the reader's process: the chart library has files that only root may read
    read = bytes.fromhex(run_as(READER, lambda: pickle.dumps((shared.status(), shared.activity())).hex()))
    text = page(*pickle.loads(read))
    assert "<dd>0 or more</dd>" in text
    assert "<dd>unknown</dd>" in text
    for wrong in ("quarantined", "salvage", "mv -v"):
        assert wrong not in text


@as_root
def test_a_read_only_medium_says_nothing_about_a_shard(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    write(store, "a")
    store.merge()
    write(store, "a")
    with read_only(store.root, tmp_path / "mounted") as mounted:
        seen = edgeshard.Store(mounted).status()
        assert ("yellow", ["unreadable"]) == (seen.verdict, [problem.kind for problem in seen.problems])
        assert "read-only medium" in seen.problems[0].text
        dry = edgeshard.Store(mounted).merge(dry_run=True)
        assert [True] == [each.is_denied for each in dry.quarantined]
    assert 10 == store.merge().rows


def merging(root: Path) -> Callable[[], Any]:
    def run() -> list[Any]:
        report = edgeshard.Store(root).merge()
        return [report.complete, report.rows, str(report), [each.as_dict() for each in report.quarantined]]

    return run


def problems(report: StatusReport) -> list[tuple[str, str, str]]:
    return [(problem.kind, problem.level, problem.shard) for problem in report.problems]


@as_root
def test_a_merger_names_a_shard_that_it_may_not_read(public: Path) -> None:
    root = public / "data"

    def write_both() -> None:
        store = new_store(root)
        write(store, "a")
        write(store, "b")

    other = edgeshard.Store(public / "other")  # imports what only root may read
    write(other, "a")
    other.merge()
    run_as(READER, write_both)
    denied = shard_path(edgeshard.Store(root), "b")
    denied.chmod(0o000)
    complete, rows, line, quarantined = run_as(READER, merging(root))
    assert (False, 10) == (complete, rows)
    assert [(str(denied), True)] == [(each["path"], each["is_denied"]) for each in quarantined]
    assert f"no permission for 1 database, so the counts lack their rows: {denied}: permission denied" in line
    code, text = as_reader_of(root, "merge", root)
    assert 3 == code
    assert str(denied) in text
    # root can read it, and shows what the merger could not
    seen = edgeshard.Store(root).status()
    assert [("unreadable", "red", "b.db")] == problems(seen)[:1]
    assert (10, 0, 0) == (seen.pending_rows, seen.quarantined_shards, seen.uncounted_shards)
    code, text = printed("status", root)
    assert 3 == code
    assert "the merger has no permission for shard b.db: permission denied: user nobody" in " ".join(text.split())
    assert "salvage" not in text
    assert "mv " not in text
    denied.chmod(0o600)
    assert [True, 10] == run_as(READER, merging(root))[:2]
    assert () == edgeshard.Store(root).status().problems


def as_reader_of(root: Path, *words: object) -> tuple[int, str]:
    edgeshard.Store(root).status()
    code, text = run_as(READER, lambda: printed(*words))
    return code, text


@as_root
def test_what_is_damaged_is_quarantined_also_for_a_reader(shared: edgeshard.Store) -> None:
    shard_path(shared, "d").write_bytes(b"no database" * 100)
    shard_path(shared, "d").chmod(0o644)
    report = json.loads(as_reader("status", shared.root, "--json")[1])
    assert {"quarantined": "d.db"} == {
        problem["kind"]: problem["shard"] for problem in report["problems"] if problem["kind"] == "quarantined"
    }
