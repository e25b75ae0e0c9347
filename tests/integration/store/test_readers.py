"""The master is an ordinary SQLite file: readers that no one here wrote, while writers and a merger are at work."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw.sqlite_extra
import pytest

import edgeshard
from tests.support.forms import others_slow
from tests.support.project import PROJECT
from tests.support.stores import numbers

# apsw's package ships SQLite's own shell, so that there always is one to test with
APSW_SHELL = str(apsw.sqlite_extra.path("sqlite3_shell"))

# two agents write, in turns, transactions of a dict and a record; about one a millisecond, until stdin is closed
WRITER = """
import select, sys
import edgeshard
from tests.support.records import NOON, Reading
store = edgeshard.Store(sys.argv[1])
n = 0
with store.shard("alice") as alice, store.shard("bob") as bob:
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        shard = bob if n % 2 else alice
        with shard.transaction():
            shard.write({"n": n})
            shard.write(Reading("inlet", n, NOON))
        n += 1
print(n)
"""
MERGER = """
import select, sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
n = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    n += store.merge().rows
print(n)
"""

# one look at the master: how many dicts, contents, addresses and records there are, and the agents, by the foreign key
LOOK = """
    select count(*) as dicts, count(distinct data) as contents, count(distinct _stream || '/' || _seq) as addresses,
        (select count(*) from reading) as records, min(streams.agent_id) as first_agent, max(streams.agent_id) as last_agent
    from agent_data join _edgeshard_streams as streams on stream_no = _stream
"""
# each makes a function that looks, always through the same connection
PYTHON = {
    "the standard library": """
import sqlite3
connection = sqlite3.connect(path)
connection.row_factory = sqlite3.Row
def look(): return dict(connection.execute(sql).fetchone())
""",
    "pandas": """
import pandas, sqlite3
connection = sqlite3.connect(path)
def look(): return json.loads(pandas.read_sql(sql, connection).to_json(orient="records"))[0]
""",
    "sqlite-utils": """
import sqlite_utils
db = sqlite_utils.Database(path)
def look(): return next(iter(db.query(sql)))
""",
    "DuckDB": """
import duckdb, duckdb_extension_sqlite_scanner, pathlib
package = pathlib.Path(duckdb_extension_sqlite_scanner.__file__).parent
(extension,) = package.rglob("*.duckdb_extension")
connection = duckdb.connect()
connection.load_extension(str(extension))
connection.execute(f"attach '{path}' as master (type sqlite, read_only)")
connection.execute("use master")
def look():
    found = connection.execute(sql)
    return dict(zip([column[0] for column in found.description], found.fetchone()))
""",
}
IN_PYTHON = """
import json, sys
path, sql = sys.argv[1:]
{reader}
looks = []
while len(set(row["dicts"] for row in looks)) < 20:
    looks.append(look())
print(json.dumps(looks))
"""
# each takes a path and SQL, and prints its looks as JSON
COMMANDS = {
    "the system's shell": ["sqlite3", "-cmd", ".timeout 5000", "-json"],
    "apsw's shell": [APSW_SHELL, "-cmd", ".timeout 5000", "-json"],
    "the command sqlite-utils": [sys.executable, "-m", "sqlite_utils", "query"],
    **{name: [sys.executable, "-c", IN_PYTHON.format(reader=reader)] for name, reader in PYTHON.items()},
}
# of itself Datasette calls a row by a column "name" or "title"
METADATA = {"databases": {"master": {"tables": {"_edgeshard_streams": {"label_column": "agent_id"}}}}}


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, as soon as that is true."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def at_work(store: edgeshard.Store) -> Iterator[None]:
    """Writers and a merger, in processes of their own; in the end both are well, and every row is there once."""
    store.init()  # the merger may begin before the writers
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, store.root],
            cwd=PROJECT, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        )
        for code in (WRITER, MERGER)
    ]  # fmt: skip
    try:
        until(lambda: [(2,)] == store.query("select count(*) from _edgeshard_streams"))
        yield
    finally:
        ended = [(process.communicate(timeout=60), process.returncode) for process in processes]
        assert [("", 0)] * 2 == [(errors, code) for (_, errors), code in ended]
    written, merged = (int(printed) for (printed, _), _ in ended)
    assert 2 * written == merged + store.merge().rows
    assert list(range(written)) == numbers(store)
    assert store.verify().ok


def watch(reader: Callable[[], str]) -> None:
    """Look until five different states of the master were seen, each of them whole, and none after a newer one."""
    looks: list[dict[str, Any]] = []

    def five_states() -> bool:
        looks.extend(json.loads(reader()))
        return len({look["dicts"] for look in looks}) >= 5

    until(five_states)
    for look in looks:
        assert [look["dicts"]] * 3 == [look["contents"], look["addresses"], look["records"]]
        assert ("alice", "bob") == (look["first_agent"], look["last_agent"])
    counts = [look["dicts"] for look in looks]
    assert sorted(counts) == counts


@pytest.mark.parametrize("reader", others_slow(COMMANDS, ["the standard library"]))
def test_the_live_master_is_read_by(store: edgeshard.Store, reader: str) -> None:
    if shutil.which(COMMANDS[reader][0]) is None:
        pytest.skip(f"{reader} is not on this machine")
    if reader == "DuckDB" and importlib.util.find_spec("duckdb_extension_sqlite_scanner") is None:
        pytest.skip("DuckDB's extension for SQLite is not installed: there is no wheel of it for this machine")

    def read() -> str:
        command = [*COMMANDS[reader], str(store.master_path), LOOK]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert 0 == done.returncode, done.stderr
        assert "locked" not in done.stderr
        return done.stdout

    with at_work(store):
        watch(read)


@contextlib.contextmanager
def datasette(store: edgeshard.Store, folder: Path) -> Iterator[Callable[[str], str]]:
    """Datasette's server for the master; a function that gets a page of it."""
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps(METADATA))
    log = folder / "datasette.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "datasette", "serve", str(store.master_path), "-m", str(metadata)),
                *("--host", "127.0.0.1", "--port", "0"),
            ],
            stdout=file,
            stderr=file,
        )
    try:
        until(lambda: server.poll() is not None or "running on http" in log.read_text())
        address = re.findall(r"http://127.0.0.1:\d+", log.read_text())
        assert address, log.read_text()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a machine's proxy is not for us

        def get(page: str) -> str:
            with opener.open(address[0] + page, timeout=60) as answer:
                return str(answer.read(), "utf-8")

        yield get
    finally:
        server.terminate()
        ended = server.wait(60)
    assert ended in (0, -signal.SIGTERM), log.read_text()  # uvicorn ends in order, then by the signal it was sent
    assert not re.findall("(?i).*(?:locked|error|traceback).*", log.read_text())


@pytest.mark.slow
def test_datasette_serves_the_live_master(store: edgeshard.Store, tmp_path: Path) -> None:
    with at_work(store), datasette(store, tmp_path) as get:
        watch(lambda: get(f"/master.json?_shape=array&sql={urllib.parse.quote(LOOK)}"))


@pytest.mark.slow
def test_datasette_shows_new_rows_when_they_come(store: edgeshard.Store, tmp_path: Path) -> None:
    def newest() -> int:
        (row,) = json.loads(get("/master/agent_data.json?_shape=array&_sort_desc=_id&_size=1"))
        assert row["agent_id"] in ("alice", "bob")
        return int(row["_id"])

    with at_work(store), datasette(store, tmp_path) as get:
        first = newest()
        until(lambda: newest() > first)


@pytest.mark.slow
def test_datasette_names_the_agent_of_each_row(store: edgeshard.Store, tmp_path: Path) -> None:
    with at_work(store), datasette(store, tmp_path) as get:
        pages = [get(f"/master/reading?_stream__exact={stream}") for stream in (1, 2)]
    labels = [set(re.findall(r'<a href="/master/_edgeshard_streams/\d+">(.*?)</a>', page)) for page in pages]
    assert [{"alice"}, {"bob"}] == sorted(labels, key=sorted)


def test_the_dump_of_a_master_is_loaded_by_the_shell(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    dump = subprocess.run([APSW_SHELL, store.master_path, ".dump"], capture_output=True, check=True).stdout
    subprocess.run([APSW_SHELL, tmp_path / "again.db"], input=dump, check=True)
    count = subprocess.run(
        [APSW_SHELL, tmp_path / "again.db", "select count(*) from agent_data"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1" == count.stdout.strip()
