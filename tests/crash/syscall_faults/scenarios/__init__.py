"""The scenarios of the fault sweep: everything that is done with a store, each with little data.

Each scenario is a generator: it prepares, yields, acts (now calls may fail), yields, and cleans up. What it was told
about each row goes into an `Account`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from edgeshard.exchange.import_lines import LineReader
from edgeshard.exchange.import_tables import TableReader
from edgeshard.files import scan
from edgeshard.format import blocks
from edgeshard.master import database, receipts
from edgeshard.merge import merger, truncate
from edgeshard.retention import pace, plan, row_rules
from edgeshard.shard import quota as shard_quota
from edgeshard.shard import wal_limit
from edgeshard.sqlite import connection as sqlite_connection
from tests.crash.syscall_faults.scenarios import exchange, keyed, merging, pruning, rare, reading, writing
from tests.crash.syscall_faults.scenarios.account import Account

#: How long the package waits for a lock here, in seconds: nobody else holds one.
_PATIENCE_S = 0.002

SCENARIOS: dict[str, Callable[[Account], Generator[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        writing.write,
        writing.write_durably,
        writing.open_and_write,
        writing.close,
        merging.merge_and_truncate,
        merging.merge_and_remove,
        merging.first_merge,
        merging.merge_from,
        merging.watch,
        reading.snapshot,
        reading.read,
        reading.read_before_merge,
        reading.inspect,
        reading.look_up,
        rare.init,
        writing.write_within_budget,
        rare.erase,
        rare.restore,
        rare.accept_loss,
        rare.note_damage,
        rare.salvage,
        rare.confirm_clock,
        pruning.prune_by_age,
        pruning.prune_after_merge,
        pruning.prune_by_size,
        pruning.drop_table,
        keyed.keyed_write,
        keyed.merge_keyed,
        keyed.prune_tombstones,
        exchange.import_lines,
        exchange.import_database,
        exchange.export,
        exchange.receipt,
        exchange.forget_peer,
    )
}


def make_small(patch: Callable[[object, str, object], object]) -> None:
    """Make limits small, so that little data needs several chunks, windows and checkpoints; and wait for no lock."""
    real = sqlite_connection._busy_handler
    patch(sqlite_connection, "_busy_handler", lambda timeout_s: real(min(timeout_s, _PATIENCE_S)))
    patch(wal_limit, "LEAST_BYTES", 12 << 10)
    patch(wal_limit, "LEAST_BYTES_AT_POWER", 12 << 10)
    patch(wal_limit, "MOST_BYTES", 0)
    patch(shard_quota, "_CHECKPOINT_PART", 0.2)
    patch(truncate, "_LONG_WAL_BYTES", 0)
    patch(truncate, "_LONG_WAL_BYTES_WITHIN_BUDGET", 0)
    patch(database, "CHECKPOINT_BYTES", 20 * 4096)
    patch(blocks, "CHUNK_BYTES", 12_000)
    patch(merger, "_AGENTS_CHECKED", 2)
    patch(scan, "FRESH_S", -1.0)  # what a failing merge believes of a shard, the next one does not ask again
    patch(pace, "PAUSE_S", 0.0)
    patch(receipts, "_PAUSE_S", 0.0)
    patch(plan, "FIRST_ROWS", 3)
    patch(plan, "MIN_ROWS", 3)
    patch(row_rules, "_MIN_ROWS_NEAR_SIZE", 1)
    for reader in (LineReader, TableReader):
        patch(reader.batches, "__defaults__", (4,))
