"""``Store.tables()``, ``edgeshard tables`` and ``.tables``: what is in a master, and how it is called."""

from __future__ import annotations

import json
import sqlite3

import pytest

import edgeshard
from edgeshard import cli
from edgeshard.errors import ConfigurationError
from tests.support.processes import command
from tests.support.records import NOON, Reading


@pytest.fixture
def filled(store: edgeshard.Store) -> edgeshard.Store:
    """A store with 1,200 readings of two agents, and a dict."""
    for agent in ("boiler", "pump", "boiler"):
        with store.shard(agent) as shard:
            shard.write_many(Reading("inlet", 71.5, NOON) for _ in range(400))
    with store.shard("pump") as shard:
        shard.write({"n": 1})
    store.merge()
    return store


def test_each_record_table_is_described(filled: edgeshard.Store) -> None:
    data, reading = filled.tables().tables
    assert ("agent_data", 1, 1) == (data.name, data.rows, data.agents)
    assert ("reading", 1200, 2, False) == (reading.name, reading.rows, reading.agents, reading.is_internal)
    assert {"sensor": "text", "celsius": "real", "at": "datetime"} == {
        column.name: column.type for column in reading.columns
    }
    assert reading.first_at is not None
    assert reading.first_at == reading.last_at
    assert 30_000 < (reading.size_bytes or 0) < filled.master_path.stat().st_size
    assert "reading: 1,200 rows of 2 agents" in str(filled.tables())


def test_a_table_without_rows_has_no_arrivals(filled: edgeshard.Store) -> None:
    filled.prune(keep_rows=0, table="agent_data")
    data, _ = filled.tables().tables
    assert (0, 0, None, None) == (data.rows, data.agents, data.first_at, data.last_at)


def test_the_statements_make_the_same_tables_elsewhere(
    filled: edgeshard.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == cli.main(["tables", str(filled.root), "--schema"])
    other = sqlite3.connect(":memory:")
    other.executescript(capsys.readouterr().out)
    names = {name for (name,) in other.execute("select name from sqlite_schema")}
    other.close()
    assert {"agent_data", "reading", "agent_data_with_agent", "reading_with_agent"} <= names


def test_tables_of_our_own_are_listed_only_if_wanted(
    filled: edgeshard.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ["agent_data", "reading"] == [table.name for table in filled.tables().tables]
    assert 0 == cli.main(["tables", str(filled.root), "--internal", "--json"])
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert [False, False, True] == [table["is_internal"] for table in tables[:3]]
    assert {"_edgeshard_streams", "_edgeshard_columns"} < {table["name"] for table in tables}


@pytest.mark.parametrize(("columns", "has_minutes"), [("80", True), ("60", False), ("40", False)])
def test_people_get_lines_that_fit(
    filled: edgeshard.Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: str,
    has_minutes: bool,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert 0 == cli.main(["tables", str(filled.root), "--internal"])
    lines = capsys.readouterr().out.splitlines()
    assert int(columns) >= max(map(len, lines))
    (reading,) = (line for line in lines if line.startswith("│ reading"))
    assert (True, has_minutes) == ("│ 1,200 │" in reading, ":" in reading)
    assert any(line.startswith("reading: sensor text, ") for line in lines)


def test_the_command_and_the_shell_list_them(filled: edgeshard.Store) -> None:
    done = command("tables", filled.root)
    assert (0, "") == (done.returncode, done.stderr)
    assert "agent_data: agent_id text, timestamp datetime, data json" in done.stdout.splitlines()
    done = command("shell", filled.root, ".mode json", ".tables")
    (_, reading) = json.loads(done.stdout)
    assert ("reading", 1200, 2, "sensor text, celsius real, at datetime") == (
        reading["name"], reading["rows"], reading["agents"], reading["columns"],
    )  # fmt: skip


def test_without_a_master_there_are_none(store: edgeshard.Store, capsys: pytest.CaptureFixture[str]) -> None:
    with store.shard("pump") as shard:
        shard.write({"n": 1})
    with pytest.raises(ConfigurationError, match="no master"):
        store.tables()
    assert 78 == cli.main(["tables", str(store.root)])
    assert f"`edgeshard merge {store.root}` makes it" in capsys.readouterr().err
