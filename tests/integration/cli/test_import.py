"""``edgeshard import``: what it prints, its exit codes, and imports by real processes at once, live and killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import cli
from tests.support import ordinary
from tests.support.processes import command
from tests.support.stores import contradictions, new_store, numbers


def append(path: Path, *ns: int) -> Path:
    with path.open("a") as file:
        file.write("".join(f'{{"n": {n}}}\n' for n in ns))
    return path


def readings(path: Path, *ns: int) -> Path:
    made = "create table if not exists readings(id integer primary key, n int)"
    ordinary.run(
        path,
        made,
        "create view if not exists v as select 1",
        "insert into readings(n) values (?)",
        rows=[(n,) for n in ns],
    )
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], list[str]]:
    """The exit code, and the lines on stdout and stderr, in this process."""
    code = cli.main(["import", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_it_says_what_was_imported_and_what_had_been(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, log, plant = tmp_path / "data", append(tmp_path / "app.ndjson", 1), readings(tmp_path / "plant.db", 1, 2)
    code, out, err = run(capsys, data, log, plant)
    assert (0, []) == (code, err)
    assert out[:4] == [
        f"made the store {data}",
        f"{log}: agent app, table agent_data: 1 row imported",
        f"{plant}: agent plant, table readings: 2 rows imported",
        f"{plant}: left out: view v",
    ]
    assert out[4].startswith("imported 3 rows from 2 files, in ")
    append(log, 2, 3)
    code, out, _ = run(capsys, data, log, plant, "--dry-run")
    assert (0, f"{log}: agent app, table agent_data: 2 rows to import, 1 before") == (code, out[0])
    assert (0, [], []) == run(capsys, data, log, plant, "-q")
    code, out, _ = run(capsys, data, log, plant)
    assert out[:2] == [
        f"{log}: agent app, table agent_data: 0 rows imported, 3 before",
        f"{plant}: agent plant, table readings: 0 rows imported, 2 before",
    ]
    assert out[3].endswith("; 5 rows had been imported before")


def test_it_names_what_was_refused_on_stderr_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, missing = append(tmp_path / "app.ndjson", 1), tmp_path / "missing"
    append(log, 2).write_text(log.read_text() + "3\n")
    code, out, err = run(capsys, tmp_path / "data", log, missing, "-q")
    assert (3, []) == (code, out)
    assert err == [
        f"edgeshard import: import {log}: line 3: it is a number, and a row is an object",
        f"edgeshard import: import {missing}: there is no such file; check the path",
    ]
    code, out, err = run(capsys, tmp_path / "data", log)
    assert (3, f"{log}: agent app, table agent_data: 0 rows imported, 2 before, refused") == (code, out[0])


def test_its_json_has_each_file_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant = readings(tmp_path / "plant.db", 1, 2)
    code, (line,), err = run(
        capsys, tmp_path / "data", plant, tmp_path / "none", "--agent", "x", "--table", "t", "--json"
    )
    found = json.loads(line)
    assert (3, 2, False, 1) == (code, found["rows"], found["complete"], len(err))
    assert {
        "path": str(plant),
        "agent": "x",
        "tables": [
            {
                "table": "t",
                "form": "sqlite",
                "rows": 2,
                "known": 0,
                "continues": "",
                "notes": [],
                "unfinished_line": 0,
                "error": "",
            }
        ],
        "left_out": ["view v"],
        "error": "",
    } == found["files"][0]
    assert "there is no such file" in found["files"][1]["error"]


def test_the_name_of_a_file_is_printed_as_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(tmp_path / "a\nb\x1b[31m.ndjson", 1)
    code, out, err = run(capsys, tmp_path / "data", tmp_path / "a\nb\x1b[31m.ndjson", tmp_path / "no\nfile")
    assert (3, 3, 1) == (code, len(out), len(err))
    assert "\x1b" not in "".join(out + err)


def test_keys_that_may_have_been_used_again_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant = readings(tmp_path / "plant.db", 1, 2)
    run(capsys, tmp_path / "data", plant)
    ordinary.run(plant, "update readings set n = 7 where id = 2")
    code, _, (line,) = run(capsys, tmp_path / "data", plant, "-q")
    assert (3, True) == (code, f"import {plant}: table readings: the rows with the keys 2 were imported" in line)
    assert (0, [], []) == run(capsys, tmp_path / "data", plant, "-q")


def test_a_path_that_can_be_no_store_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = append(tmp_path / "app.ndjson", 1)
    code, out, err = run(capsys, log, log)
    assert (78, [], 1) == (code, out, len(err))


def test_a_process_of_its_own_imports_and_again_only_what_is_new(tmp_path: Path) -> None:
    data, log, plant = tmp_path / "data", append(tmp_path / "app.ndjson", 1), readings(tmp_path / "plant.db", 1)
    settings = {"env": {"COLUMNS": "60", "LANG": "C", "NO_COLOR": "1"}, "cwd": tmp_path}
    assert 0 == command("import", data, log, plant, **settings).returncode
    append(log, 2)
    readings(plant, 2)
    done = command("import", "data", "app.ndjson", "plant.db", **settings)
    assert (0, "") == (done.returncode, done.stderr)
    assert "app.ndjson: agent app, table agent_data: 1 row imported, 1 before" in done.stdout
    assert "plant.db: agent plant, table readings: 1 row imported, 1 before" in done.stdout
    assert [1, 2] == numbers(edgeshard.Store(data))


_KILLED = """
import os, signal, sys
import edgeshard
from edgeshard.exchange import imports
real, left = imports._FileRun._write, [int(sys.argv[3])]

def write(*given):
    done = real(*given)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

imports._FileRun._write = write
edgeshard.Store(sys.argv[1]).import_(sys.argv[2])
"""


def start(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


@pytest.mark.slow
def test_an_import_that_is_killed_between_its_batches_is_continued(tmp_path: Path) -> None:
    store, plant = new_store(tmp_path / "data"), readings(tmp_path / "plant.db", *range(20_000))
    for batches in (1, 2):
        process = start(_KILLED, store.root, plant, batches)
        assert -signal.SIGKILL == process.wait()
    assert (5_000, 15_000) == (store.import_(plant).rows, store.import_(plant).files[0].tables[0].known - 5_000)
    assert list(range(20_000)) == [row.n for row in store.query("select n from readings order by id")]


@pytest.mark.slow
def test_imports_at_once_next_to_a_watcher_and_a_live_writer_bring_each_row_once(tmp_path: Path) -> None:
    store, plant = new_store(tmp_path / "data"), readings(tmp_path / "plant.db", *range(1_000))
    importing = (
        "import sys, edgeshard\nfor _ in range(5): print(edgeshard.Store(sys.argv[1]).import_(sys.argv[2]).rows)"
    )
    with store.watching(interval=0.01), contextlib.ExitStack() as stack:
        processes = [stack.enter_context(start(importing, store.root, plant, stdout=subprocess.PIPE)) for _ in range(3)]
        for n in range(1_000, 1_400):
            readings(plant, n)
        counts = [int(line) for process in processes for line in process.communicate()[0].split()]
    counts.append(store.import_(plant).rows)
    assert 1_400 == sum(counts)
    assert list(range(1_400)) == [row.n for row in store.query("select n from readings order by id")]
    assert () == contradictions(store.verify(deep=True))
