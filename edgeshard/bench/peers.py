"""Plain SQLite as the peer of edgeshard: the same work on the same settings, taken in turns.

Ours and the peer take turns, and who goes first changes with each round. The peer is plain apsw on the settings that
edgeshard uses, which are read from it. A round begins with fresh files and nothing left for the disk to do (sync).
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from edgeshard import format
from edgeshard.files import paths
from edgeshard.master import database
from edgeshard.shard.open import CHECKPOINT_PAGES
from edgeshard.shard.shard import Shard
from edgeshard.sqlite import Connection
from edgeshard.store import Store

_T = TypeVar("_T")

AGENT: Final = "agent"
#: Rows of one transaction of a writer that fills a shard.
FILL_ROWS = 1_000
#: SQLITE_OPEN_READWRITE, SQLITE_OPEN_CREATE and SQLITE_OPEN_URI.
_FLAGS: Final = 0x2 | 0x4 | 0x40


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, with neither garbage nor unwritten files of what was done before."""
    gc.collect()
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternate(rounds: int, contestants: Mapping[str, Callable[[], _T]]) -> dict[str, list[_T]]:
    """What each contestant returns, round by round, after one that does not count."""
    found: dict[str, list[_T]] = {name: [] for name in contestants}
    for number in range(-1, rounds):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            result = contestants[name]()
            if number >= 0:
                found[name].append(result)
    return found


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder below another that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield Path(made)


@contextlib.contextmanager
def bare_database(path: Path, page_size: int, synchronous: str) -> Iterator[Connection]:
    """A database of plain apsw, made where there is none."""
    connection = Connection(str(path), flags=_FLAGS)
    try:
        for name, value in (("page_size", page_size), ("journal_mode", "WAL"), ("synchronous", synchronous)):
            connection.pragma(name, value)
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def bare_shard(path: Path, table: str, columns: str) -> Iterator[Any]:
    """A plain database on a shard's settings, with one table.

    Args:
        path: the file.
        table: the table's name.
        columns: its columns, as declared after the key.
    """
    with bare_database(path, format.SHARD_PAGE_SIZE, "NORMAL") as connection:
        connection.wal_autocheckpoint(CHECKPOINT_PAGES)
        connection.execute(f"CREATE TABLE {table}(_id INTEGER PRIMARY KEY, {columns}) STRICT")
        yield connection.cursor()


@attrs.frozen
class Sample:
    """A record like many: a few bytes beside a payload."""

    source: str
    value: float
    text: str


SAMPLE_COLUMNS: Final = "source, value, text"


def fill(store: Store, agent: str, rows: int, payload_bytes: int, stretch: int = FILL_ROWS) -> Path:
    """Write samples into an agent's shard, in transactions of `stretch` rows; where it is."""
    with store.shard(agent) as opened:
        fill_opened(opened, rows, payload_bytes, stretch)
        return Path(opened.path)


def fill_opened(opened: Shard, rows: int, payload_bytes: int, stretch: int = FILL_ROWS) -> None:
    """The same into a shard that is open."""
    text = "p" * payload_bytes
    for start in range(0, rows, stretch):
        opened.write_many(Sample("inlet", n / 7, text) for n in range(start, min(start + stretch, rows)))


def checked_merge(
    store: Store, sources: Iterable[Path] = (), *, rows: int, shards: int | None = None, keep_empty: bool = False
) -> float:
    """Seconds of a merge, which copies so many rows and leaves out nothing, and looks into so many shards."""
    reports = []
    took_s = seconds(lambda: reports.append(store.merge(sources, keep_empty=keep_empty)))
    (report,) = reports
    if report.rows != rows or not report.complete or shards not in (None, report.shards):
        raise RuntimeError(f"a merge of {rows} rows was to be measured: {report}")
    return took_s


@attrs.frozen
class Backlog:
    """Filled shards, and targets to copy before each merge: a master and plain databases that know the table.

    Attributes:
        shards: the filled shards.
        master: a master with one row, of another agent.
        bare: a plain database of the shards' table with one row.
        bare_empty: the same without a row.
        rows: how many the shards hold together.
    """

    shards: list[Path]
    master: Path
    bare: Path
    bare_empty: Path
    rows: int

    @classmethod
    def make(cls, root: Path, shards: int, rows: int, payload_bytes: int) -> Backlog:
        """Fill shards in a folder."""
        store = Store(root / "filled")
        filled = [fill(store, f"agent-{number}", rows, payload_bytes) for number in range(shards)]
        first = Store(root / "first")
        fill(first, "first", 1, payload_bytes)
        first.merge()
        targets = {name: root / f"{name}.db" for name in ("bare", "bare_empty")}
        for name, path in targets.items():
            with bare_master(path) as connection:
                attach(connection, filled[0], "shard0")
                for (script,) in connection.execute("SELECT sql FROM shard0.sqlite_schema WHERE name = 'sample'"):
                    connection.execute(script)
                if name == "bare":
                    connection.execute("INSERT INTO sample VALUES (1, 'inlet', 0.0, '')")
        return cls(filled, first.master_path, **targets, rows=shards * rows)

    def ours(self, folder: Path, *, truncating: bool) -> float:
        """Seconds of a merge of the shards, with their truncation or without."""
        with scratch(folder) as root:
            shutil.copy(self.master, paths.master(root))
            if truncating:
                shutil.copytree(self.shards[0].parent, paths.shards(root))
            return checked_merge(Store(root), [] if truncating else self.shards, rows=self.rows)

    def peer(self, folder: Path, *, whole_table: bool = False) -> float:
        """Seconds of the same in plain SQL, from opening the target to closing it.

        Args:
            whole_table: SELECT * into an empty table of the same declaration, which SQLite copies without taking the
                rows apart.
        """
        with scratch(folder) as root:
            target = root / "target.db"
            shutil.copy(self.bare_empty if whole_table else self.bare, target)
            return seconds(lambda: bare_merge(target, self.shards, whole_table=whole_table))


@contextlib.contextmanager
def bare_master(path: Path) -> Iterator[Connection]:
    """A plain database on a master's settings."""
    with bare_database(path, format.MASTER_PAGE_SIZE, "FULL") as connection:
        connection.pragma("cache_size", -32_000)
        connection.pragma("journal_size_limit", database._LOG_BYTES)
        connection.wal_autocheckpoint(database._CHECKPOINT_PAGES)
        yield connection


def attach(connection: Connection, path: Path, schema: str) -> None:
    """Attach a file, to be read."""
    connection.execute(f"ATTACH ? AS {schema}", (path.as_uri() + "?mode=ro",))


def bare_merge(target: Path, shards: Iterable[Path], *, whole_table: bool = False) -> None:
    """Attach the shards, and insert their rows in one transaction; with one shard, under the keys they had."""
    shards = list(shards)
    names = SAMPLE_COLUMNS if len(shards) > 1 else f"_id, {SAMPLE_COLUMNS}"
    with bare_master(target) as connection:
        for number, path in enumerate(shards):
            attach(connection, path, f"shard{number}")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(len(shards)):
            if whole_table:
                sql = f"INSERT INTO main.sample SELECT * FROM shard{number}.sample"
            else:
                sql = f"INSERT INTO main.sample({names}) SELECT {names} FROM shard{number}.sample"
            check_transfer(connection, sql, expected=whole_table)
            connection.execute(sql)
        connection.execute("COMMIT")


def check_transfer(connection: Connection, sql: str, *, expected: bool) -> None:
    """See to it that the peer is what the table calls it: a transfer makes no records."""
    makes_records = any(row[1] == "MakeRecord" for row in connection.execute(f"EXPLAIN {sql}").fetchall())
    if makes_records is expected:
        raise RuntimeError(f"SQLite {'does not transfer' if expected else 'transfers'} whole rows: {sql}")


def grow(store: Store, rows: int) -> None:
    """Bring a master to `rows` rows, a million at a time so that the shard stays small."""
    for start in range(0, rows, 1_000_000):
        fill(store, "past", min(1_000_000, rows - start), 100, 10_000)
        store.merge()
