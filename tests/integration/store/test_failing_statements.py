"""Whichever SQL statement of a method fails, for lack of memory, the error is one of ours, and the store is whole.

The fault campaign does the same for scenarios that write; see `tests.crash.syscall_faults`.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from tests.support.forms import others_slow
from tests.support.records import Reading

#: Each is called with the store and its folder; see the fixture `prepared`.
METHODS: dict[str, Callable[[edgeshard.Store, Path], object]] = {
    "status": lambda store, _: store.status(),
    "activity": lambda store, _: store.activity(),
    "tables": lambda store, _: store.tables(internal=True),
    "verify": lambda store, _: store.verify(deep=True),
    "query": lambda store, _: list(store.query_rows("select * from reading")),
    "query, fresh": lambda store, _: store.query("select * from reading", fresh=True),
    "query, reference": lambda store, folder: store.query(
        "select * from old.reading", reference={"old": folder / "snapshot.db"}
    ),
    "describe_query": lambda store, _: store.describe_query("select * from reading"),
    "query_table": lambda store, _: store.query_table("select * from reading", colour=False, width=80, unicode=False),
    "read": lambda store, _: list(store.read(Reading)),
    "read, fresh": lambda store, _: list(store.read(Reading, fresh=True)),
    "shell": lambda store, _: _enter(store.shell()),
    "lookup": lambda store, folder: _look_up(store, folder / "snapshot.db"),
    "own rows": lambda store, _: _read_own(store, "agent"),
    "own rows, none yet": lambda store, _: _read_own(store, "new"),
    "drawn table": lambda *_: sqlite.draw_rows(["name"], [["inlet"]], colour=False, width=80, unicode=False),
    "clock": lambda store, _: store.clock(),
    "confirm_clock": lambda store, _: store.confirm_clock(),
    "merge": lambda store, _: store.merge(),
    "merge, dry run": lambda store, _: store.merge(dry_run=True),
    "merge of a snapshot": lambda store, folder: store.merge([folder / "snapshot.db"]),
    "prune, dry run": lambda store, _: store.prune(keep_rows=5, dry_run=True),
    "prune": lambda store, _: store.prune(older_than="30d"),
    "erase, dry run": lambda store, _: store.erase("reading", "celsius = 7", dry_run=True),
    "accept_loss": lambda store, _: store.accept_loss(why="it broke"),
    "salvage": lambda store, folder: store.salvage(folder / "data/shards/agent.db"),
    "import_": lambda store, folder: store.import_(folder / "rows.ndjson", agent="file", table="line"),
    "ranges": lambda store, _: store.ranges(),
    "rejected": lambda store, _: store.rejected(),
    "snapshot": lambda store, folder: store.snapshot(folder / "new.db"),
    "export": lambda store, folder: store.export(folder / "new.bundle"),
    "restore": lambda store, folder: store.restore(folder / "snapshot.db"),
}

#: About how many statements of a method are tried, at most.
_POINTS = 25

_ALWAYS = ("query, reference", "lookup", "own rows, none yet", "shell", "describe_query", "drawn table")


def _enter(block: contextlib.AbstractContextManager[object]) -> None:
    with block:
        pass


def _look_up(store: edgeshard.Store, reference: Path) -> None:
    with store.shard("new", reference={"old": reference}) as shard:
        shard.lookup("select * from old.reading")


def _read_own(store: edgeshard.Store, agent: str) -> None:
    with store.shard(agent) as shard:
        list(shard.read(Reading))
        shard.query("select count(*) from agent_data")


@contextlib.contextmanager
def _failing(at: int | None, *, sticky: bool) -> Iterator[Iterator[int]]:
    """Let a statement of all connections that are opened in the block fail, or all from it on; count them."""
    numbers = itertools.count()

    def trace(*_: object) -> bool:
        number = next(numbers)
        if at is not None and (number == at or (sticky and number > at)):
            raise apsw.NoMemError("out of memory")
        return True

    def watch(connection: apsw.Connection) -> None:
        connection.exec_trace = trace

    apsw.connection_hooks.append(watch)
    try:
        yield numbers
    finally:
        apsw.connection_hooks.remove(watch)


@pytest.mark.parametrize("name", others_slow(METHODS, _ALWAYS))
def test_whichever_statement_fails_the_error_is_one_of_ours(prepared: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"

    def run(at: int | None, *, sticky: bool) -> int:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        store = edgeshard.Store(folder / "data")
        with _failing(at, sticky=sticky) as numbers:
            try:
                METHODS[name](store, folder)
            except EdgeshardError as error:
                assert at is not None, error
                assert error.cause
            count = next(numbers)
        if sticky:  # what one failure leaves is seldom other than what all from there on leave
            store.merge()
            assert store.verify().ok
            assert [float(n) for n in range(30)] == sorted(row.celsius for row in store.read(Reading))
        return count

    count = run(None, sticky=False)
    for at, sticky in itertools.product(range(0, count, 1 + count // _POINTS), (False, True)):
        run(at, sticky=sticky)
