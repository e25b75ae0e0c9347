"""Names that control a terminal or forge lines of a log reach neither, whichever verb shows them."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from tests.support.hostile_shards import edit
from tests.support.processes import command
from tests.support.stores import shard_path

#: Clears the screen, sets its title, forges a line, reverses what follows, is no UTF-8, is a control character of C1.
EVIL = "x\x1b[2J\x1b]0;owned\x07\r\nERROR forged \u202edrow\x7f\x9b31m"

EVIL_FILE = os.fsdecode(EVIL.encode() + b"\xff")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[edgeshard.Store]:
    """Yield a store in which all that can have such a name has one."""
    folder = tmp_path_factory.mktemp("terminals") / EVIL
    store = edgeshard.Store(folder)
    for agent in (EVIL, "schema", "gap"):
        with store.shard(agent) as shard:
            shard.write({EVIL: EVIL})
            shard.write({"n": 1})
    edit(shard_path(store, "schema"), f"update _edgeshard_columns set column_name = '{EVIL}' where type = 'json'")
    (store.root / "shards" / (EVIL_FILE + ".db")).write_bytes(b"no database")
    (store.root / (EVIL_FILE + ".csv")).write_text(f'"{EVIL}",b\n"{EVIL}"\n')
    shutil.copy(shard_path(store, "gap"), store.root / "shards" / (EVIL + ".db"))
    store.merge()
    with store.shard(EVIL) as shard:
        shard.write({"n": 2})
    with_view = apsw.Connection(str(store.master_path))
    with_view.execute(f'create view "v{EVIL}" as select 1 as "{EVIL}"')
    with_view.close()
    yield store
    shutil.rmtree(folder)


VERBS: list[list[str]] = [
    *(["status", "ROOT"], ["status", "ROOT", "--json"], ["verify", "ROOT"], ["verify", "ROOT", "--deep", "--json"]),
    *(["merge", "ROOT", "-v"], ["merge", "ROOT", "--json"], ["merge", "ROOT", "-v", "--log-format", "json"]),
    *(
        ["merge", "ROOT", "--from", "EVIL"],
        ["merge", "ROOT", "--dry-run"],
        ["merge", "EVIL"],
        ["merge", "ROOT", "EVIL"],
    ),
    *(["status", "ROOT", "--html", "ROOT/EVIL.html"], ["status", "EVIL", "--html", "ROOT/EVIL.html"]),
    *(["query", "ROOT", "select * from agent_data"], ["query", "ROOT", "select * from agent_data", "--json"]),
    *(
        ["query", "ROOT", 'select * from "vEVIL"'],
        ["query", "ROOT", "EVIL"],
        ["query", "ROOT", "select 1", "-p", "EVIL"],
    ),
    *(["shell", "ROOT", ".shards"], ["shell", "ROOT", "select EVIL"], ["shell", "ROOT", ".EVIL"]),
    *(["salvage", "ROOT", "EVIL"], ["salvage", "ROOT", "SHARD"], ["salvage", "ROOT", "SHARD", "--json"]),
    *(["snapshot", "ROOT", "ROOT/EVIL.copy", "--force"], ["snapshot", "ROOT", "ROOT/none/EVIL"]),
    *(["export", "ROOT", "ROOT/EVIL.bundle", "--force"], ["export", "ROOT", "x", "--ranges", "EVIL"]),
    *(
        ["receipt", "ROOT", "EVIL"],
        ["ranges", "ROOT"],
        ["ranges", "EVIL"],
        ["help", "EVIL"],
        ["EVIL"],
        ["status", "EVIL"],
    ),
    *(["prune", "ROOT", "--older-than", "EVIL"], ["prune", "ROOT", "--table", "EVIL", "--keep-rows", "1"]),
    *(
        ["write", "ROOT", "EVIL", "{}"],
        ["write", "ROOT", "EVIL", "EVIL"],
        ["write", "ROOT", "new", '{"EVIL": NaN}', "--json"],
        ["write", "ROOT", "new", "{}", "--table", "EVIL"],
        ["write", "ROOT", "new", "--csv", "ROOT/EVIL.csv", "--skip-bad"],
    ),
    *(
        ["import", "ROOT", "ROOT/EVIL.csv", "EVIL", "--agent", "EVIL"],
        ["import", "ROOT", "ROOT/EVIL.csv", "--agent", "new", "--json"],
        ["import", "ROOT", "ROOT/EVIL.csv", "--agent", "new", "--table", "EVIL"],
        ["import", "ROOT", "SHARD", "SHARD"],
    ),
    *(["push", "ROOT", "postgresql://EVIL@127.0.0.1:1/EVIL"], ["push", "ROOT", "host=127.0.0.1 port=1 dbname='EVIL'"]),
]


def filled(word: str, store: edgeshard.Store) -> str:
    shard = str(store.root / "shards" / (EVIL_FILE + ".db"))
    return word.replace("ROOT", str(store.root)).replace("SHARD", shard).replace("EVIL", EVIL_FILE)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_line_of_any_verb_controls_the_terminal(store: edgeshard.Store, verb: list[str]) -> None:
    done = command(*(filled(word, store) for word in verb), cwd=store.root)
    assert "Traceback" not in done.stderr
    for shown in (done.stdout, done.stderr):
        for line in shown.split("\n"):
            assert line.isprintable(), line
            assert not line.startswith("ERROR forged")
    if "--json" in verb:
        json.loads(done.stdout)
    if "--log-format" in verb:
        assert all(json.loads(line)["message"] for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    "verb",
    [
        ["status", "ROOT"],
        ["query", "ROOT", "select * from agent_data"],
        ["query", "ROOT", "--csv", "select agent_id from agent_data"],
        ["shell", "ROOT", ".shards", "select agent_id from agent_data", ".schema"],
    ],
    ids=" ".join,
)
def test_a_terminal_gets_colours_at_most(store: edgeshard.Store, verb: list[str]) -> None:
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-m", "edgeshard", *(filled(word, store) for word in verb)]
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b"".join(iter(lambda: _read(ours), b"")).decode()
    process.wait(60)
    os.close(ours)
    text = "".join(part for part in _without_colours(shown) if part not in "\r\n\t")
    assert "owned" in text
    assert text.isprintable(), text


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end was closed
        return b""


def _without_colours(text: str) -> Any:

    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_watching_merger_logs_printable_lines(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / EVIL)
    with store.shard(EVIL) as shard:
        shard.write({"n": 1})
    (store.root / "shards" / (EVIL_FILE + ".db")).write_bytes(b"no database")
    arguments = [sys.executable, "-m", "edgeshard", "merge", str(store.root), "--watch", "-v"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    lines: list[str] = []
    while not any("quarantined" in line for line in lines):
        lines.append(process.stderr.readline().decode())
        assert lines[-1]
    process.terminate()
    out, rest = process.communicate(timeout=60)
    for line in [*"".join(lines).split("\n"), *rest.decode().split("\n"), *out.decode().split("\n")]:
        assert line.isprintable(), line
