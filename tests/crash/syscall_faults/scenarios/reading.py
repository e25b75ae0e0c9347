"""Read shards and the master, and take a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import edgeshard
from edgeshard import sqlite
from tests.crash.syscall_faults.scenarios.account import Account, Sample, attempt, prepare, record
from tests.crash.syscall_faults.scenarios.merging import fill, write_closed
from tests.support import ordinary


def snapshot(account: Account) -> Generator[None]:
    """Take a snapshot: it appears complete or not at all, and the one that it replaces is not lost before."""
    fill(account)
    store = edgeshard.Store(account.root)
    store.merge()
    new, old = account.root / "new.db", account.root / "old.db"
    store.snapshot(old)
    yield
    attempt(account, lambda: store.snapshot(new))
    attempt(account, lambda: store.snapshot(old, force=True))
    yield
    for target in (new, old):
        if target.exists():
            assert len(account.acknowledged) == _rows_of(target), f"{target.name} is not whole"
    assert old.exists()
    store.snapshot(new, force=True)
    store.snapshot(old, force=True)
    assert [] == [path.name for path in account.root.iterdir() if ".new" in path.name]


def _rows_of(path: Path) -> int:
    connection = sqlite.connect(str(path), writable=False)
    try:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        tables = "(select _id from agent_data union all select _id from sample)"
        return int(sqlite.scalar(connection, f"SELECT count(*) FROM {tables}"))
    finally:
        connection.close()


#: A question's name, the right answer, and how to ask it.
_Question = tuple[str, object, Callable[[], object]]


def _ask(account: Account, questions: list[_Question]) -> Generator[None]:
    """Ask each question: the answer is right, or an error says why there is none."""
    yield
    answers = [attempt(account, question) for _, _, question in questions]
    yield
    for (name, expected, _), answer in zip(questions, answers, strict=True):
        assert answer in (expected, None), f"{name}: {answer}, not {expected}"


def read(account: Account) -> Generator[None]:
    """Query, verify, status and dry run."""
    fill(account)
    store = edgeshard.Store(account.root)
    store.merge()
    rows = len(account.acknowledged)
    write_closed(store, "a", range(3000, 3005))
    account.acknowledged.update(range(3000, 3005))
    questions: list[_Question] = [
        ("query", rows, lambda: len(store.query("select n from sample union all select _id from agent_data"))),
        ("read", rows, lambda: len(list(store.read(Sample))) + len(list(store.read(edgeshard.AgentData)))),
        ("verify", rows, lambda: store.verify().rows),
        ("status", 5, lambda: _waiting(store)),
        ("dry run", 5, lambda: _would_merge(store)),
    ]
    yield from _ask(account, questions)


def read_before_merge(account: Account) -> Generator[None]:
    """Ask a store that has no master yet."""
    store = prepare(account, "unmerged", lambda store: write_closed(store, "a", range(1, 6)))
    account.acknowledged.update(range(1, 6))
    lines = store.root / "lines.ndjson"
    lines.write_text('{"n": 0}\n{"n": 0}\n')
    questions: list[_Question] = [
        ("query", 0, lambda: len(store.query("select * from agent_data"))),
        ("describe", 1, lambda: len(store.describe_query("select _id from agent_data").columns)),
        ("read", 0, lambda: len(list(store.read(edgeshard.AgentData)))),
        ("status", 5, lambda: _waiting(store)),
        ("dry run", 5, lambda: _would_merge(store)),
        ("import", 2, lambda: _would_import(store, lines)),
    ]
    yield from _ask(account, questions)


def _would_import(store: edgeshard.Store, lines: Path) -> int | None:
    report = store.import_(lines, dry_run=True)
    return report.rows if report.complete else None


def inspect(account: Account) -> Generator[None]:
    """Ask for what is known of a master, and for rows as a person reads them."""
    store = prepare(account, "merged", _make_merged)
    account.acknowledged.update(range(1, 6))
    questions: list[_Question] = [
        ("tables", 5, lambda: sum(table.rows for table in store.tables(internal=True).tables if table.agents)),
        ("activity", 5, lambda: _arrived(store)),
        ("verify", 5, lambda: store.verify(deep=True).rows),
        (
            "rows",
            5,
            lambda: len(list(store.query_rows("select n from sample union all select _id from agent_data"))) - 1,
        ),
        (
            "table",
            True,
            lambda: "much" in store.query_table("select * from sample", colour=False, width=80, unicode=False),
        ),
        ("rejected", 0, lambda: store.rejected().rows),
        ("ranges", 1, lambda: len(store.ranges().streams)),
        ("budget", None, store.disk_budget),
    ]
    yield from _ask(account, questions)


def _arrived(store: edgeshard.Store) -> int:
    found = store.activity().last_hour
    return 0 if found is None else found.total


def _make_merged(store: edgeshard.Store) -> None:
    write_closed(store, "a", range(1, 6))
    store.merge()


def look_up(account: Account) -> Generator[None]:
    """Look up what another database has, and read what a shard still holds, before its first commit and after."""
    reference = account.root / "patterns.db"
    ordinary.run(reference, "CREATE TABLE patterns(n)", "INSERT INTO patterns VALUES (?)", rows=[(1,), (2,)])
    account.acknowledged.update(range(1, 4))
    store = edgeshard.Store(account.root)
    with store.shard("a", reference={"patterns": reference}) as old, store.shard("b") as new:
        old.write_many(record(n) for n in range(1, 4))
        questions: list[_Question] = [
            ("look-up", 2, lambda: len(old.lookup("select n from patterns.patterns"))),
            ("query", 3, lambda: len(old.query("select _id from sample union all select _id from agent_data"))),
            ("read", 1, lambda: len(list(old.read(Sample)))),
            ("query of nothing", 0, lambda: len(new.query("select * from agent_data"))),
            ("read of nothing", 0, lambda: len(list(new.read(Sample)))),
            ("open", 2, lambda: _look_up_anew(store, reference)),
        ]
        yield from _ask(account, questions)


def _look_up_anew(store: edgeshard.Store, reference: Path) -> int:
    with store.shard("c", reference={"patterns": reference}) as shard:
        return len(shard.lookup("select n from patterns.patterns"))


def _waiting(store: edgeshard.Store) -> int | None:
    """Return the pending rows, or None if a shard could not be read and that was reported."""
    report = store.status()
    return None if any(item.reason for item in report.shards) else sum(item.pending_rows or 0 for item in report.shards)


def _would_merge(store: edgeshard.Store) -> int | None:
    report = store.merge(dry_run=True)
    return None if report.quarantined else report.rows
