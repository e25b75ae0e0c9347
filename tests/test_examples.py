"""The examples, run as a user runs them; what they print is held against what SQLite counts in the master."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
METRICS = ("machine_metrics.py", "--seconds", "1.2", "--interval", "0.05")
SWARM = ("agent_swarm.py", "--agents", "8", "--seconds", "1.5", "--merge-every", "0.4")

on_linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the counters are read from /proc")


def command(store: Path, script: str, *options: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), str(store), *options]


def run(store: Path, *example: str) -> str:
    done = subprocess.run(command(store, *example), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
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
def test_machine_metrics_prints_the_rows_that_sqlite_counts_for_each_agent(tmp_path: Path) -> None:
    printed = run(tmp_path, *METRICS)
    counted = metrics_in(tmp_path)
    assert {agent: figure(printed, rf"(?m)^{agent}") for agent in counted} == counted
    assert min(counted.values()) > 0


@on_linux
def test_machine_metrics_acknowledges_exactly_what_is_in_the_master(tmp_path: Path) -> None:
    printed = run(tmp_path, *METRICS)
    total = sum(metrics_in(tmp_path).values())
    assert (figure(printed, "acknowledged"), figure(printed, "in the master")) == (total, total)


@on_linux
def test_machine_metrics_counts_only_its_own_rows_in_a_store_that_has_some(tmp_path: Path) -> None:
    first, second = (figure(run(tmp_path, *METRICS), "in the master") for _ in range(2))
    assert sum(metrics_in(tmp_path).values()) == first + second


def test_agent_swarm_prints_the_rows_that_sqlite_counts(tmp_path: Path) -> None:
    printed = run(tmp_path, *SWARM)
    ((rows, agents),) = select(tmp_path, "SELECT count(*), count(DISTINCT agent_id) FROM agent_data")
    labels = ("rows acknowledged", "rows in the master", "rows doubled")
    assert [*(figure(printed, label) for label in labels), agents] == [rows, rows, 0, 8]


def test_agent_swarm_names_the_busiest_agents_as_sqlite_does(tmp_path: Path) -> None:
    printed = run(tmp_path, *SWARM)
    lines = [line.split() for line in printed.splitlines() if line.startswith("agent-")]
    sql = "SELECT agent_id, count(*), sum(json_extract(data, '$.tokens')) FROM agent_data GROUP BY agent_id"
    counted = [[str(value) for value in row] for row in select(tmp_path, sql)]
    assert len(lines) == 5
    assert [line for line in lines if line not in counted] == []


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
