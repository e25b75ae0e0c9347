"""Kill real pushers and a real PostgreSQL server in the middle of their work, and account for every row.

Rows are written and merged between the kills. Some transactions have a row that PostgreSQL cannot store: because of a
value, or because of a constraint that only the server has. And some have versions of keys. Two pushers push the same master at the same time, by COPY or by INSERT. At
a random moment one of them is killed, or, every fourth time, the server with all of its processes. After each kill the
master's receipt must not name a row that PostgreSQL lacks. At the end PostgreSQL must have each row of the master once,
except for those transactions, its ranges must name exactly these rows, and the master must list all others as rejected.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time

import attrs

import edgeshard
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import database, receipts
from tests.support.postgres_server import PgServer, do, fetch
from tests.support.processes import sql


@attrs.frozen
class Sample:
    """A row of the second table."""

    n: int


@edgeshard.table(key="k")
@attrs.frozen
class Version:
    """A version of a key."""

    k: int
    n: int


#: Which samples the server's constraint rejects, and which dicts have a value that PostgreSQL cannot store.
_REFUSED, _INVALID = 1_009, 1_511


def is_bad(n: int) -> bool:
    """Return whether PostgreSQL cannot store the row with this number."""
    return n % _REFUSED == 0 if n % 3 == 0 else n % _INVALID == 0


@attrs.define
class Tally:
    """Counts of what was done."""

    rows: int = 0
    rejected: int = 0
    pushers_killed: int = 0
    servers_killed: int = 0
    mid_push: int = 0
    by_insert: int = 0


def start(store: edgeshard.Store, dsn: str, batch: int, *, inserts: bool) -> subprocess.Popen[bytes]:
    options = ["--batch", str(batch), "-q", *(["--inserts"] if inserts else [])]
    command = [sys.executable, "-m", "edgeshard", "push", str(store.root), dsn, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write(store: edgeshard.Store, rng: random.Random, first: int, count: int) -> set[int]:
    """Write rows in transactions of several sizes, and merge them; return the numbers of those that are rejected."""
    rejected = set[int]()
    n, last = first, first + count
    with store.shard(f"agent-{rng.randrange(3)}") as shard:
        while n < last:
            size = min(last - n, rng.choice([1, 1, 2, 50, 400]))
            with shard.transaction():
                for k in range(n, n + size):
                    shard.write(Sample(k) if k % 3 == 0 else {"n": k} | ({"text": "\0"} if is_bad(k) else {}))
            if any(map(is_bad, range(n, n + size))):
                rejected.update(range(n, n + size))
            n += size
            shard.write(Version(rng.randrange(50), n))
    assert store.merge().complete
    return rejected


def check(store: edgeshard.Store, dsn: str, rejected: set[int]) -> int:
    """Check that PostgreSQL has each other row of the master once, and its ranges; return the number of rows."""
    rows = 0
    for table, number in (("agent_data", "data ->> 'n'"), ("sample", "n"), ("version", "n")):
        here = sql(
            store.master_path,
            f"select lower(hex(stream_id)), _seq, cast({number} as text) from {table} "
            "join _edgeshard_streams on stream_no = _stream order by 1, 2",
        )
        there = fetch(dsn, f"select replace(_stream::text, '-', ''), _seq, ({number})::text from {table} order by 1, 2")
        expected = [tuple(row) for row in here if table == "version" or int(row[2]) not in rejected]
        assert expected == there, f"{table}: rows are missing, doubled or changed"
        rows += len(there)
    ((counted,),) = fetch(dsn, "select sum(last - first + 1)::bigint from edgeshard_ranges")
    superseded = store.status().states.superseded
    assert rows + superseded == counted, f"{rows} rows, {superseded} superseded ones, and ranges of {counted}"
    listed = sum(item.rows for item in store.rejected().rejected)
    assert len(rejected) == listed, f"{len(rejected)} rows are rejected, and {listed} are listed"
    return rows


def check_receipt(store: edgeshard.Store, dsn: str) -> None:
    """Check that PostgreSQL has all rows in the master's receipt, even in the middle of a push."""
    connection = database.open_master(store.master_path, writable=False)
    noted = receipts.held_elsewhere(connection, [receipts.POSTGRESQL])
    connection.close()
    there: dict[bytes, list[Range]] = {}
    for stream, first, last in fetch(dsn, "select stream, first, last from edgeshard_ranges") if noted else ():
        there.setdefault(stream.bytes, []).append(Range(first, last))
    for stream_id, ranges in noted.items():
        assert not subtract(ranges, there.get(stream_id, [])), "a receipt of rows that are not there"


def play(server: PgServer, kills: int, seed: int, *, inserts: bool | None = None) -> Tally:
    """Kill processes, and account for every row.

    Args:
        server: the server.
        kills: how often to kill.
        seed: seed of all random choices.
        inserts: whether to push only by INSERT; None: choose at random.
    """
    rng, tally = random.Random(seed), Tally()
    dsn = server.dsn(server.make_database())
    with tempfile.TemporaryDirectory(prefix="edgeshard-push-kills-") as folder:
        store = edgeshard.Store(folder)
        written, rejected = 0, set[int]()
        do(dsn, "create table sample(_stream uuid, _seq bigint, n bigint, primary key (_stream, _seq))")
        do(dsn, f"alter table sample add check (n % {_REFUSED} <> 0)")
        for kill in range(kills):
            count = rng.randrange(500, 3_000)
            rejected |= write(store, rng, written, count)
            written += count
            way = rng.choice([True, False]) if inserts is None else inserts
            tally.by_insert += way
            pushers = [start(store, dsn, rng.choice([100, 500]), inserts=way) for _ in range(2)]
            time.sleep(rng.uniform(0.15, 0.7))
            tally.mid_push += any(pusher.poll() is None for pusher in pushers)
            if kill % 4 == 3:
                server.kill()
                server.start()
                tally.servers_killed += 1
            else:
                pushers[0].kill()
                tally.pushers_killed += 1
            for pusher in pushers:
                pusher.wait()
            check_receipt(store, dsn)
        store.push(dsn)
        tally.rows, tally.rejected = check(store, dsn, rejected), len(rejected)
        assert written - len(rejected) == tally.rows - len(fetch(dsn, "select 1 from version"))
    return tally
