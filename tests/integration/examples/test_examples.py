"""The examples, run as a user runs them; what they print is held against what SQLite counts in the master."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import EXAMPLES

METRICS = ("machine_metrics.py", "--seconds", "1.2", "--interval", "0.05")
PATTERNS = ("pattern_library.py", "--agents", "3", "--results", "60")
TWENTY = ("twenty_workers.py",)
FLEET = ("fleet.py", "--rows", "20")
LAST = ("last_values.py", "--receivers", "3", "--sensors", "4", "--readings", "40")
CONFIG = ("shared_config.py", "--edits", "20")
SWARM = ("agent_swarm.py", "--agents", "8", "--seconds", "1.5", "--merge-every", "0.4")

on_linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the counters are read from /proc")


def command(store: Path, script: str, *options: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), str(store), *options]


def run(store: Path, *example: str) -> str:
    done = subprocess.run(command(store, *example), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert str(store) in done.stdout, "it does not say where its rows are"
    return done.stdout


def select(store: Path, sql: str) -> list[Any]:
    """The rows as SQLite itself sees them; in a process of its own, whose locks cannot drop ours."""
    script = (
        "import json, sqlite3, sys\nprint(json.dumps(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))"
    )
    arguments = [sys.executable, "-c", script, str(store / "master.db"), sql]
    rows: list[Any] = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    return rows


def figure(printed: str, label: str) -> int:
    found = re.search(rf"{label}:?\s+(\d+)", printed)
    assert found, printed
    return int(found[1])


def metrics_in(store: Path) -> dict[str, int]:
    agents = ("cpu", "memory", "disk", "network")
    return {agent: select(store, f"SELECT count(*) FROM {agent}_sample")[0][0] for agent in agents}


@on_linux
@pytest.mark.slow
def test_machine_metrics_prints_the_rows_that_sqlite_counts_for_each_agent(tmp_path: Path) -> None:
    printed = run(tmp_path, *METRICS)
    counted = metrics_in(tmp_path)
    assert {agent: figure(printed, rf"(?m)^{agent}") for agent in counted} == counted
    assert min(counted.values()) > 0


@on_linux
@pytest.mark.slow
def test_machine_metrics_acknowledges_exactly_what_is_in_the_master(tmp_path: Path) -> None:
    printed = run(tmp_path, *METRICS)
    total = sum(metrics_in(tmp_path).values())
    assert (figure(printed, "acknowledged"), figure(printed, "in the master")) == (total, total)


@on_linux
@pytest.mark.slow
def test_machine_metrics_counts_only_its_own_rows_in_a_store_that_has_some(tmp_path: Path) -> None:
    first, second = (figure(run(tmp_path, *METRICS), "in the master") for _ in range(2))
    assert sum(metrics_in(tmp_path).values()) == first + second


def test_twenty_workers_prints_the_rows_that_sqlite_counts(tmp_path: Path) -> None:
    printed = run(tmp_path, *TWENTY)
    counted = select(tmp_path, "SELECT count(*), count(DISTINCT agent_id) FROM agent_data")
    assert counted == [[2000, 20]]
    assert printed == f"2000 rows of 20 workers in {tmp_path / 'master.db'}\n"


@pytest.mark.slow
def test_agent_swarm_prints_the_rows_that_sqlite_counts(tmp_path: Path) -> None:
    printed = run(tmp_path, *SWARM)
    ((rows, agents),) = select(tmp_path, "SELECT count(*), count(DISTINCT agent_id) FROM agent_data")
    labels = ("rows acknowledged", "rows in the master", "rows duplicated")
    assert [*(figure(printed, label) for label in labels), agents] == [rows, rows, 0, 8]


@pytest.mark.slow
def test_agent_swarm_names_the_busiest_agents_as_sqlite_does(tmp_path: Path) -> None:
    printed = run(tmp_path, *SWARM)
    lines = [line.split() for line in printed.splitlines() if line.startswith("agent-")]
    sql = "SELECT agent_id, count(*), sum(json_extract(data, '$.tokens')) FROM agent_data GROUP BY agent_id"
    counted = [[str(value) for value in row] for row in select(tmp_path, sql)]
    assert len(lines) == 5
    assert [line for line in lines if line not in counted] == []


@pytest.mark.slow
def test_pattern_library_prints_the_results_of_each_pattern_as_sqlite_counts_them(tmp_path: Path) -> None:
    printed = run(tmp_path, *PATTERNS)
    found = re.findall(r"(?m)^([A-Z]+_\d{3}) .*?  (\d+) +(\d+) +([\d.]+) +1\.0 +([0-9a-f]{12})$", printed)
    sql = (
        "SELECT pattern_id, count(*), count(DISTINCT agent), round(avg(score), 2), substr(library_digest, 1, 12) "
        "FROM pattern_result GROUP BY pattern_id"
    )
    assert [[str(value) for value in row] for row in select(tmp_path, sql)] == [list(row) for row in found]
    assert [figure(printed, label) for label in ("acknowledged", "in the master", "not from this library")] == [
        180,
        select(tmp_path, "SELECT count(*) FROM pattern_result")[0][0],
        0,
    ]


@pytest.mark.slow
def test_pattern_library_ends_in_postgresql_where_it_is_told_to(tmp_path: Path, pg: str) -> None:
    import psycopg

    for runs in (1, 2):
        printed = run(tmp_path, *PATTERNS, "--postgres", pg)
        assert [180, 180] == [figure(printed, "acknowledged"), figure(printed, "in PostgreSQL")]
        with psycopg.connect(pg) as connection:
            by_agent = "SELECT agent, count(*) FROM pattern_result GROUP BY 1 ORDER BY 1"
            found = connection.execute(by_agent).fetchall()
        assert [(f"agent-{number:03}", 60 * runs) for number in range(3)] == found


@pytest.mark.slow
def test_pattern_library_reports_how_long_a_look_up_takes(tmp_path: Path) -> None:
    printed = run(tmp_path, *PATTERNS)
    found = re.search(r"look-up, p50 and p99: ([\d.]+) and ([\d.]+) microseconds", printed)
    assert found, printed
    assert 0 < float(found[1]) <= float(found[2])


@pytest.mark.slow
def test_pattern_library_tells_results_of_a_library_from_those_of_another(tmp_path: Path) -> None:
    run(tmp_path / "store", *PATTERNS)
    other = tmp_path / "other.db"
    remade(tmp_path / "store" / "patterns.db", other, "UPDATE pattern SET name = 'renamed' WHERE id = 'RECURSIVE_004'")
    printed = run(tmp_path / "store", *PATTERNS, "--library", str(other))
    names = re.findall(r"(?m)^RECURSIVE_004  (\S.*?)  ", printed)
    assert sorted(names) == ["(not in this library)", "renamed"]
    assert figure(printed, "not from this library") == 0


@pytest.mark.slow
def test_pattern_library_refuses_a_library_whose_digest_is_not_that_of_its_patterns(tmp_path: Path) -> None:
    run(tmp_path / "store", *PATTERNS)
    forged = tmp_path / "forged.db"
    remade(tmp_path / "store" / "patterns.db", forged, "UPDATE pattern SET name = 'forged'", digest=False)
    again = command(tmp_path / "store", *PATTERNS, "--library", str(forged))
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert (done.returncode, f"{forged}: its patterns do not match" in done.stderr) == (1, True), done.stderr
    assert select(tmp_path / "store", "SELECT count(*) FROM pattern_result") == [[180]]


def remade(library: Path, path: Path, change: str, *, digest: bool = True) -> None:
    """A copy of the library with other patterns, and their digest."""
    script = """
import hashlib, json, shutil, sqlite3, sys
sys.path.insert(0, sys.argv[1])
import pattern_library
shutil.copyfile(sys.argv[2], sys.argv[3])
connection = sqlite3.connect(sys.argv[3])
connection.execute(sys.argv[4])
if sys.argv[5] == "True":
    rows = connection.execute(pattern_library.ALL.replace("patterns.", ""))
    connection.execute("UPDATE library SET digest = ?", (pattern_library.digest_of(rows),))
connection.commit()
"""
    arguments = [str(value) for value in (EXAMPLES, library, path, change, digest)]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)


WITHOUT_PSYCOPG = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.startswith("psycopg") else find(name, *rest)
"""


def accounted(printed: str) -> dict[str, list[int]]:
    """The table at the end of the fleet's example, by its first column."""
    lines = [line.split() for line in printed.partition("\nrows of ")[2].splitlines()]
    return {line[0]: [int(text) for text in line[1:]] for line in lines[1:]}


@pytest.mark.slow
def test_fleet_without_psycopg_says_what_it_leaves_out_and_accounts_for_the_rest(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_PSYCOPG)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command(tmp_path, *FLEET), capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "PostgreSQL is left out: psycopg" in done.stdout
    assert accounted(done.stdout) == {
        "boat": [120, 120, 0, 120],
        "buoy": [120, 120, 120, 120],
        "van": [120, 120, 120, 120],
        "all": [360, 360, 240, 360],
        "missing": [0, 0, 0, 0],
        "duplicated": [0, 0, 0, 0],
    }
    sql = "SELECT count(*), count(DISTINCT device || agent || number) FROM sounding"
    assert select(tmp_path / "hub", sql) == [[360, 360]]


@pytest.mark.slow
def test_last_values_keeps_one_row_for_each_sensor_in_service_beside_the_log_of_all(tmp_path: Path) -> None:
    for runs in (1, 2):
        printed = run(tmp_path, *LAST)
        assert [120, 120] == [figure(printed, label) for label in ("acknowledged", "in the log")]
        assert select(tmp_path, "SELECT count(*) FROM reading") == [[120 * runs]]
        last = "SELECT sensor FROM last_value ORDER BY 1"
        assert [f"sensor-{number:03}" for number in (1, 2, 3)] == [sensor for (sensor,) in select(tmp_path, last)]
        newest = """
            SELECT count(*) FROM last_value JOIN (
                SELECT receiver, sensor, max(_id) AS id FROM reading GROUP BY 1, 2
            ) USING (receiver, sensor) JOIN reading r ON r._id = id AND r.number = last_value.number
        """
        assert select(tmp_path, newest) == [[3]]


@pytest.mark.slow
def test_shared_config_is_the_same_on_both_devices_and_forgets_no_value(tmp_path: Path) -> None:
    for runs in (1, 2):
        printed = run(tmp_path, *CONFIG)
        assert "both show the same" in printed
        shown = "SELECT name, value, set_by, change, _timestamp FROM setting ORDER BY name"
        bridge, engine_room = (select(tmp_path / place, shown) for place in ("bridge", "engine-room"))
        assert bridge == engine_room
        in_use, overruled = figure(printed, "in use"), figure(printed, "overruled")
        assert in_use == len(bridge)
        both = "SELECT count(*), count(DISTINCT change) FROM (SELECT change FROM setting UNION ALL SELECT change FROM "
        assert select(tmp_path / "bridge", f"{both}setting_history)") == [[in_use + overruled] * 2]
        if runs == 1:
            assert f"{in_use + overruled} values acknowledged" in printed


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 2])
def test_fleet_accounts_for_every_row_as_far_as_postgresql_and_for_each_run_by_itself(
    tmp_path: Path, runs: int
) -> None:
    for number in range(1, runs + 1):
        printed = run(tmp_path, *FLEET)
        if "PostgreSQL is left out" in printed:
            pytest.skip(printed)
        assert accounted(printed)["all"] == [360, 360, 240, 360, 360]
        assert accounted(printed)["missing"] == accounted(printed)["duplicated"] == [0, 0, 0, 0, 0]
        assert select(tmp_path / "hub", "SELECT count(*) FROM sounding") == [[360 * number]]


@pytest.mark.slow
def test_fleet_brings_the_rows_of_the_bundle_that_was_lost_with_the_next_one(tmp_path: Path) -> None:
    printed = run(tmp_path, *FLEET)
    exported = [figure(line, "exported") for line in printed.splitlines() if line.startswith("van:   exported")]
    assert exported == [60, 120]
    assert len([*(tmp_path / "stick").glob("*-van-*.db")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_the_hub", "counted"), [([1, 2], [0, 0]), ([1], [1, 0]), ([1, 2, 2], [0, 1]), ([1, 3], [1, 1])]
)
def test_fleet_counts_what_is_missing_and_what_is_there_too_often(at_the_hub: list[int], counted: list[int]) -> None:
    code = """
import sys, fleet
rows = lambda numbers: fleet.Counter(("boat", "depth", int(number)) for number in numbers)
print(fleet.account({"written": rows("12"), "hub": rows(sys.argv[1])}))
"""
    numbers = "".join(map(str, at_the_hub))
    done = subprocess.run(
        [sys.executable, "-c", code, numbers], capture_output=True, text=True, cwd=EXAMPLES, check=True
    )
    *table, verdict = done.stdout.splitlines()
    found = accounted("\n".join(table))
    assert ([found["missing"][1], found["duplicated"][1]], verdict) == (counted, str(counted == [0, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("example", [pytest.param(METRICS, marks=on_linux), SWARM], ids=["metrics", "swarm"])
def test_an_interrupted_example_still_accounts_for_every_row(tmp_path: Path, example: tuple[str, ...]) -> None:
    script, *options = example
    endless = command(tmp_path, script, *options, "--seconds", "600")
    process = subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not re.match(r"merged [1-9]", line := process.stdout.readline()):
        assert line, "it ended before a merge"
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert figure(printed, "acknowledged") == figure(printed, "in the master")
