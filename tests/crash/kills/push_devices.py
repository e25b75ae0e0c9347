"""Devices that push into one PostgreSQL database, which cannot store some of their rows.

Three devices write tables of their own and versions of the same keys, in transactions of several sizes. A fault makes
a row one that PostgreSQL cannot store: its characters, a constraint that only the server has, or a key that no option
changes. What must have become of each transaction is in `tests.crash.kills.push_accounts`.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

import edgeshard
from edgeshard.master import database, receipts
from edgeshard.postgres.options import OnInvalid
from tests.support import citus_double
from tests.support.postgres_server import PgServer, do, fetch


@attrs.frozen
class Sample:
    """A row of a table that exists in PostgreSQL before the first push, with a constraint."""

    n: int
    text: str


@edgeshard.table(key="k")
@attrs.frozen
class Version:
    """A version of a key."""

    k: str
    n: int
    text: str


@edgeshard.table(key="k", history=True)
@attrs.frozen
class Setting:
    """A version of a key whose superseded versions are kept."""

    k: str
    n: int
    text: str


#: What makes PostgreSQL reject a row, with the tables in which it happens.
FAULTS: Final = {
    "nul": ("agent_data", "sample", "version", "setting"),
    "refused": ("sample", "version"),
    "key": ("version", "setting"),
}

_INVALID: Final = "a\0b"

#: How a text arrives that is replaced, or escaped.
REPAIRED: Final = {_INVALID: ("a\ufffdb", "a\\u0000b")}

#: The server refuses each number that this divides.
_REFUSED: Final = 101

_KEYS: Final = 40

_DEVICES: Final = 3

#: The id of a row's stream, in hexadecimal, and its seq.
Address = tuple[str, int]

#: One in so many transactions has a row with a fault.
_FAULTY: Final = 12


@attrs.frozen
class Written:
    """A row as it was written.

    Attributes:
        address: the id of its stream, in hexadecimal, and its seq.
        table: its table.
        n: its number; of two rows, the later one has the higher number.
        key: its key, or "".
        text: its text.
        is_deletion: whether it deletes its key.
        fault: why PostgreSQL cannot store it, or "".
    """

    address: Address
    table: str
    n: int
    key: str = ""
    text: str = ""
    is_deletion: bool = False
    fault: str = ""


@attrs.define
class Transaction:
    """What a device wrote in one transaction.

    Attributes:
        device: the number of the device.
        rows: the rows.
        may_pass: whether a push could bring it so far.
        is_dismissed: whether it was dismissed before a push brought it.
    """

    device: int
    rows: list[Written]
    may_pass: bool = False
    is_dismissed: bool = False

    @property
    def addresses(self) -> set[Address]:
        """Return the addresses of its rows."""
        return {row.address for row in self.rows}

    @property
    def faults(self) -> list[Written]:
        """Return its rows that have a fault."""
        return [row for row in self.rows if row.fault]


class Devices:
    """Devices, the database that they push into, and what was written.

    Args:
        folder: for their stores.
        dsn: an empty database.
        rng: makes all choices.
        is_cluster: whether the database looks like that of a Citus cluster, over which pushes may distribute tables.
    """

    def __init__(self, folder: Path, dsn: str, rng: random.Random, *, is_cluster: bool) -> None:
        self.dsn = dsn
        self.is_cluster = is_cluster
        self.stores = [edgeshard.Store(folder / f"device-{number}") for number in range(_DEVICES)]
        self.transactions: list[Transaction] = []
        self._rng = rng
        self._n = 0
        self._newest: dict[tuple[int, str], Written] = {}  # the last change of each key in "version", by device
        self._refusing = set[str]()
        self._dead = set[str]()
        if is_cluster:
            citus_double.install(dsn)
        do(dsn, "create table sample(_stream uuid, _seq bigint, n bigint, text text, primary key (_stream, _seq))")
        self.write(range(_DEVICES), 10, (1,))

    def tables(self) -> set[str]:
        """Return the names of the tables of rows that the database has."""
        listed = "select tablename from pg_tables where schemaname = 'public' and tablename not like 'edgeshard%'"
        return {name for (name,) in fetch(self.dsn, listed)}

    # -- writing -------------------------------------------------------------------------------------------------------

    def choose(self) -> list[int]:
        """Choose which devices push at the same time: mostly two, whose versions of keys then meet, or one twice."""
        one, other = self._rng.sample(range(_DEVICES), 2)
        return [one, one] if self._rng.randrange(4) == 0 else [one, other]

    def write(self, numbers: Iterable[int], count: int, sizes: tuple[int, ...]) -> None:
        """Have devices write so many rows each, in transactions of these sizes, and merge them."""
        for number in sorted({*numbers}):
            store = self.stores[number]
            with store.shard(f"agent-{self._rng.randrange(2)}") as shard:
                left = count
                while left > 0:
                    size = min(left, self._rng.choice(sizes))
                    self.transactions.append(self._write_transaction(number, shard, size))
                    left -= size
            assert store.merge().complete

    def _write_transaction(self, device: int, shard: edgeshard.Shard, size: int) -> Transaction:
        faults: dict[int, str] = {}
        if self._rng.randrange(_FAULTY) == 0:
            faults = {
                self._rng.randrange(size): self._rng.choice([*FAULTS]) for _ in range(self._rng.choice([1, 1, 3]))
            }
        with shard.transaction():
            rows = [self._write_row(shard, faults.get(number, "")) for number in range(size)]
        self._newest |= {(device, row.key): row for row in rows if row.table == "version"}
        return Transaction(device, rows)

    def _write_row(self, shard: edgeshard.Shard, fault: str) -> Written:
        n = self._next_number(is_refused=fault == "refused")
        table = (
            self._rng.choice(FAULTS[fault])
            if fault
            else self._rng.choice(["agent_data", "sample", "version", "setting"])
        )
        text = _INVALID if fault == "nul" else "text"
        if table in ("agent_data", "sample"):
            record: Any = {"n": n, "text": text} if table == "agent_data" else Sample(n, text)
            return self._written(shard, shard.write(record), table, n, text=text, fault=fault)
        cls = Version if table == "version" else Setting
        key = f"key-{self._rng.randrange(_KEYS)}" + ("\0" if fault == "key" else "")
        if not fault and self._rng.randrange(4) == 0:
            return self._written(shard, shard.delete(cls, key), table, n, key=key, is_deletion=True)
        return self._written(shard, shard.write(cls(key, n, text)), table, n, key=key, text=text, fault=fault)

    @staticmethod
    def _written(shard: edgeshard.Shard, seq: int, table: str, n: int, **values: Any) -> Written:
        return Written((shard.stream, seq), table, n, **values)

    def _next_number(self, *, is_refused: bool) -> int:
        self._n += _REFUSED - self._n % _REFUSED if is_refused else 1 + ((self._n + 1) % _REFUSED == 0)
        return self._n

    # -- the server's mind ---------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Have the server refuse rows of those tables that exist there."""
        for table in self.tables() & {*FAULTS["refused"]} - self._refusing:
            condition = f"n % {_REFUSED} <> 0"
            if self.is_cluster:  # as a constraint of a distributed table does, it fails without a SQLSTATE in a COPY
                citus_double.add_check(self.dsn, table, condition)
            else:
                do(self.dsn, f"alter table {table} add constraint checked check ({condition}) not valid")
            self._refusing.add(table)

    def accept(self) -> None:
        """Have the server accept all rows again."""
        for table in self._refusing:
            end = (
                f"drop trigger checked on {table}"
                if self.is_cluster
                else f"alter table {table} drop constraint checked"
            )
            do(self.dsn, end)
        self._refusing.clear()

    def kill_workers(self) -> None:
        """Let rows of some streams fail as if their worker of a Citus cluster were dead."""
        streams = sorted({transaction.rows[0].address[0] for transaction in self.transactions})
        for table in sorted(self.tables()):
            citus_double.kill_worker(self.dsn, table, *self._rng.sample(streams, len(streams) // 3 + 1))
            self._dead.add(table)

    def revive_workers(self) -> None:
        """Let all workers answer again."""
        for table in self._dead:
            citus_double.revive_worker(self.dsn, table)
        self._dead.clear()

    @property
    def has_dead_workers(self) -> bool:
        """Return whether rows fail as if workers were dead."""
        return bool(self._dead)

    def disturb(self) -> None:
        """Change something between two pushes."""
        self.revive_workers()
        self._rng.choice([self.refuse, self.refuse, self.accept])()
        if self._rng.randrange(5) == 0:
            self.dismiss()
        if self.is_cluster and self._rng.randrange(5) == 0:
            self.kill_workers()

    # -- what pushes and users do --------------------------------------------------------------------------------------

    def permit(self, on_invalid: OnInvalid) -> None:
        """Note what a push that is about to start could bring."""
        for transaction in self.transactions:
            if not transaction.may_pass:
                device = transaction.device
                transaction.may_pass = all(self._passes(row, device, on_invalid) for row in transaction.faults)

    def _passes(self, row: Written, device: int, on_invalid: OnInvalid) -> bool:
        if row.table == "version" and self._newest[device, row.key].n > row.n:
            return True  # the master has superseded it, so that it is not sent
        if row.fault == "refused":
            return row.table not in self._refusing
        return row.fault != "key" and on_invalid != "reject"

    def dismiss(self) -> None:
        """Dismiss what is rejected on one device, or what one table caused."""
        number = self._rng.randrange(_DEVICES)
        self.stores[number].dismiss_rejected(why="a campaign", table=self._rng.choice(["", "", "sample"]))
        self.settle()
        dismissed, held = self.listed(number, is_dismissed=True), self.held()
        for transaction in self.transactions:
            if transaction.device == number and transaction.rows[0].address in dismissed - held:
                transaction.is_dismissed = True

    def listed(self, device: int, *, is_dismissed: bool | None = None) -> set[Address]:
        """Return the addresses that a device's master lists as rejected, dismissed or not."""
        return {
            (item.stream, seq)
            for item in self.stores[device].rejected(limit=1_000_000).ranges
            if is_dismissed in (None, item.is_dismissed)
            for seq in range(item.first, item.last + 1)
        }

    def held(self) -> set[Address]:
        """Return the addresses that the database's ranges name."""
        if not fetch(self.dsn, "select 1 where to_regclass('edgeshard_ranges') is not null"):
            return set()
        ranges = fetch(self.dsn, "select replace(stream::text, '-', ''), first, last from edgeshard_ranges")
        return {(stream, seq) for stream, first, last in ranges for seq in range(first, last + 1)}

    def check_receipts(self) -> None:
        """Check that PostgreSQL has all rows in the masters' receipts, even in the middle of a push."""
        noted = set[Address]()
        for store in self.stores:
            connection = database.open_master(store.master_path, writable=False)
            for stream_id, ranges in receipts.held_elsewhere(connection, [receipts.POSTGRESQL]).items():
                noted |= {(stream_id.hex(), seq) for item in ranges for seq in range(item.first, item.last + 1)}
            connection.close()
        assert noted <= self.held(), "a receipt of rows that are not there"

    def settle(self) -> None:
        """Wait until the server has ended the transactions of pushers that were killed or cut off."""
        others = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        while fetch(self.dsn, others):
            time.sleep(0.01)


# -- lives of databases -----------------------------------------------------------------------------------------------


@attrs.frozen
class Life:
    """How one database is pushed to. The next one has no tables again.

    Attributes:
        length: how many kills or cuts it has.
        is_cluster: whether it looks like that of a Citus cluster.
        inserts: whether to use only INSERT; None: choose at random.
    """

    length: int
    is_cluster: bool
    inserts: bool | None


def lives(count: int, length: int, inserts: bool | None, is_cluster: bool | None) -> Iterator[Life]:
    """Yield lives of databases with `count` kills or cuts in all; if `is_cluster` is None, every second one is a cluster."""
    for number, first in enumerate(range(0, count, length)):
        yield Life(min(length, count - first), number % 2 == 1 if is_cluster is None else is_cluster, inserts)


@contextlib.contextmanager
def opened(server: PgServer, life: Life, rng: random.Random) -> Iterator[Devices]:
    """Yield devices with a database that exists as long as they do."""
    with tempfile.TemporaryDirectory(prefix="edgeshard-push-") as folder, server.database() as name:
        yield Devices(Path(folder), server.dsn(name), rng, is_cluster=life.is_cluster)
