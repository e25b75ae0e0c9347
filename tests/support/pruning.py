"""Create stores to prune, read what they record of it, and run checks that tests and mutants share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import edgeshard
from edgeshard import sqlite
from edgeshard.exchange.encoding import encode
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import database, receipts
from tests.support.forks import Count, begin
from tests.support.stores import contradictions, new_store, numbers, shard_path


def add(store: edgeshard.Store, agent: str, *given: int | Sequence[int], merge: bool = True) -> None:
    """Write dicts, one transaction per number or list of numbers, and merge them."""
    with store.shard(agent) as shard:
        for item in given:
            shard.write_many({"n": n} for n in ([item] if isinstance(item, int) else item))
    if merge:
        store.merge()


def account(store: edgeshard.Store) -> tuple[int, int, int]:
    """Return the numbers of present rows, pruned rows, and rows ever held."""
    report = store.verify()
    assert contradictions(report) == ()
    ((held,),) = store.query(
        "select (select coalesce(sum(last - first + 1), 0) from _edgeshard_ranges) "
        "+ (select coalesce(sum(last_seq), 0) from _edgeshard_retired)"
    )
    return report.rows, sum(report.pruned.values()), held


def stream_of(store: edgeshard.Store) -> bytes:
    """Return the id of the stream that has the store's first row."""
    ((found,),) = store.query("select stream_id from _edgeshard_streams where stream_no = 1")
    return bytes(found)


def said(held: dict[bytes, list[Range]], pruned: dict[bytes, list[Range]] | None = None) -> receipts.Said:
    """Return what a database says that holds these rows, and pruned these, in the form that is recorded."""
    pruned = pruned or {}
    ever = {stream: [*held.get(stream, []), *pruned.get(stream, [])] for stream in held.keys() | pruned.keys()}
    return encode(ever, {stream: subtract(seqs, held.get(stream, [])) for stream, seqs in pruned.items()}).items()


def note(store: edgeshard.Store, held: dict[bytes, list[Range]], kind: str = receipts.POSTGRESQL) -> None:
    """Record a receipt of a database other than the hub."""
    connection = database.open_master(store.master_path, writable=True)
    receipts.record(connection, b"p" * 16, kind, said(held))
    connection.close()


def copies_of(store: edgeshard.Store, folder: Path) -> dict[str, Path]:
    """Copy the store's rows, before a prune, in each form in which they may come again."""
    folder.mkdir()
    store.snapshot(folder / "snapshot.db")
    store.export(folder / "bundle.db")
    hub = new_store(folder / "hub")
    hub.merge([store.master_path])
    return {"snapshot": folder / "snapshot.db", "bundle": folder / "bundle.db", "hub": hub.master_path}


def check_nothing_comes_back(folder: Path) -> None:
    """Check that pruned rows do not come back, in whichever form they arrive."""
    store = edgeshard.Store(folder / "data")
    add(store, "a", *range(8), merge=False)
    shard = shard_path(store, "a")
    shutil.copyfile(shard, folder / "shard.db")
    store.merge(keep_empty=True)
    copies = copies_of(store, folder / "copies")
    assert 5 == store.prune(keep_rows=3).rows
    for path in [*copies.values(), folder / "shard.db"]:
        assert 0 == store.merge([path]).rows
    shutil.copyfile(folder / "shard.db", shard)  # an older copy of it is put back
    Path(f"{shard}-wal").unlink(missing_ok=True)
    report = store.merge()
    assert (0, (), ()) == (report.rows, report.quarantined, report.gaps)
    assert ([5, 6, 7], (3, 5, 8)) == (numbers(store), account(store))


def check_disk_is_given_back(folder: Path) -> None:
    """Check that a prune with `shrink` leaves a file with no free pages."""
    store = edgeshard.Store(folder / "data")
    with store.shard("a") as shard:
        for n in range(3_000):
            shard.write({"n": n, "text": "x" * 800})
    store.merge()
    before = store.master_path.stat().st_size
    report = store.prune(keep_rows=100, shrink=True)
    after = store.master_path.stat().st_size
    assert (0, before - after, after) == (report.free_bytes, report.shrunk_bytes, report.file_bytes)
    assert (True, list(range(2_900, 3_000)), True) == (after < before / 10, numbers(store), store.verify(deep=True).ok)


def killed_at(store: edgeshard.Store, number: int, **asked: Any) -> bool:
    """Prune in another process, and kill it before its nth statement; return whether it was killed."""
    return killed_in(lambda: store.prune(**asked), number)


def killed_in(doing: Callable[[], object], number: int) -> bool:
    """Do something in another process, and kill it before its nth statement; return whether it was killed."""

    def work(_: Count) -> None:
        real, count = sqlite.connect, [0]

        def traced(*given: Any, **options: Any) -> Any:
            connection = real(*given, **options)
            connection.set_exec_trace(strike)
            return connection

        def strike(*_: Any) -> bool:
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return True

        with mock.patch.object(sqlite, "connect", traced):
            doing()

    life = begin(work)
    life.killed = True  # it kills itself
    life.wait()
    return life.status == signal.SIGKILL
