"""A backlog of filled shards, merged by edgeshard and copied by plain SQL."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs

from edgeshard.bench.costs.plain_sqlite import attach, bare_master, bare_merge
from edgeshard.bench.costs.sample_rows import checked_merge, fill
from edgeshard.bench.costs.timing import scratch, seconds
from edgeshard.store import Store


@attrs.frozen
class Backlog:
    """Filled shards, and the targets to copy before each merge: all of them already have the table.

    Attributes:
        shards: the filled shards.
        master: a master with one row, from another agent.
        bare: a plain database with one row in the shards' table.
        bare_empty: the same without a row.
        rows: total number of rows in the shards.
    """

    shards: list[Path]
    master: Path
    bare: Path
    bare_empty: Path
    rows: int

    @classmethod
    def make(cls, root: Path, shards: int, rows: int, payload_bytes: int) -> Backlog:
        """Create the shards, with `rows` rows each, and the targets in a folder."""
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

    def edgeshard_seconds(self, folder: Path, *, truncating: bool) -> float:
        """Time edgeshard's merge of the shards, including their truncation or not."""
        with scratch(folder) as root:
            shutil.copy(self.master, root / "master.db")
            if truncating:
                shutil.copytree(self.shards[0].parent, root / "shards")
            return checked_merge(Store(root), [] if truncating else self.shards, rows=self.rows)

    def plain_sql_seconds(self, folder: Path, *, whole_table: bool = False) -> float:
        """Time the same copy in plain SQL, from opening the target to closing it.

        Args:
            folder: a folder for the target.
            whole_table: see `plain_sqlite.bare_merge`; the target's table is empty then.
        """
        with scratch(folder) as root:
            target = root / "target.db"
            shutil.copy(self.bare_empty if whole_table else self.bare, target)
            return seconds(lambda: bare_merge(target, self.shards, whole_table=whole_table))
