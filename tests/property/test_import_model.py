"""Imports among all that happens to a store and to the files: in the end each row is there once."""

from __future__ import annotations

import os
import random
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard.exchange import import_lines, import_tables
from tests.support import ordinary
from tests.support.pruning import killed_in
from tests.support.stores import new_store, numbers

MADE = [
    "create table readings(n integer primary key)",
    "create table readings(n integer)",
    "create table readings(n integer not null, primary key(n)) without rowid",
]
STEPS = ["grow", "import", "kill", "kill", "merge", "dry run", "vacuum", "snapshot", "restore", "rename"]


@attrs.define
class World:
    """A store, and a database and a log of other programs.

    Attributes:
        folder: where all of it is.
        choose: makes all choices.
        store: the store.
        database: the database.
        log: the log.
        rows: how many rows each of the two has.
    """

    folder: Path
    choose: random.Random
    store: edgeshard.Store
    database: Path
    log: Path
    rows: int = 0

    def run(self) -> bool:
        """Import both files; return whether nothing was refused."""
        return self.store.import_([self.database, self.log], agent="x").complete

    def step(self, name: str) -> None:
        snapshot = self.folder / "snapshot.db"
        if name == "grow":
            self.grow()
        elif name == "import":
            assert self.run()
        elif name == "kill":
            killed_in(self.run, self.choose.randrange(1, 500))
        elif name == "merge":
            self.store.merge()
        elif name == "dry run":
            self.store.import_([self.database, self.log], agent="x", dry_run=True)
        elif name == "vacuum":
            ordinary.run(self.database, "vacuum")
        elif name == "snapshot":
            self.store.snapshot(snapshot, force=True)
        elif name == "restore" and snapshot.exists():
            replaced = self.store.restore(snapshot).replaced
            self.run()  # refused, if rows are missing now
            self.store.merge([replaced])
        elif name == "rename":
            self.database, self.log = self.renamed(self.database), self.renamed(self.log)

    def grow(self) -> None:
        added = range(self.rows, self.rows + self.choose.randrange(1, 14))
        ordinary.run(self.database, "insert into readings(n) values (?)", rows=[(n,) for n in added])
        with self.log.open("a") as file:
            file.write("".join(f'{{"n": {n}}}\n' for n in added))
        self.rows += len(added)

    def renamed(self, path: Path) -> Path:
        new = path.with_name(f"{path.stem[0]}{self.choose.getrandbits(32)}{path.suffix}")
        for suffix in ("", "-wal"):
            if os.path.exists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", f"{new}{suffix}")
        return new


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_in_the_end_each_row_is_there_once(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (import_lines.LineReader, import_tables.TableReader):
        monkeypatch.setattr(reader.batches, "__defaults__", (5,))  # rows of a batch
    choose = random.Random(seed)
    world = World(tmp_path, choose, new_store(tmp_path / "data"), tmp_path / "p.db", tmp_path / "l.ndjson")
    ordinary.run(world.database, f"pragma journal_mode = {choose.choice(['wal', 'delete'])}", choose.choice(MADE))
    world.grow()
    for _ in range(10):
        world.step(choose.choice(STEPS))
    assert world.run()
    assert list(range(world.rows)) == numbers(world.store)
    assert list(range(world.rows)) == [row.n for row in world.store.query("select n from readings order by n")]
    assert world.store.verify(deep=True).ok
