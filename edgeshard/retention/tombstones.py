"""Which deletions of keyed tables go: those that no older change can follow, and that all others know of.

A deletion goes only if

    it was timestamped, and came into this master, longer ago than the grace period;
    nothing that is older can come any more (see passed);
    each database of which there is a receipt holds it as well, or has held it: it has heard of it.

Another rule never takes one, and this rule takes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from edgeshard import format, sqlite
from edgeshard.format.ranges import Range, intersect, subtract, union
from edgeshard.master import arrivals, extents, identity, receipts, tombstone_gc
from edgeshard.master.receipts import Peer
from edgeshard.records import hlc, keys
from edgeshard.retention import plan, rules, watermark, window
from edgeshard.retention.watermark import Seen
from edgeshard.retention.window import Going, Scope, islands, look
from edgeshard.sqlite import Connection, quote


@attrs.frozen
class Old:
    """The deletions that are old enough.

    Attributes:
        tables: the keyed tables that have some, by their names.
        bound: the id below which they came.
        seen: what is known of who may still bring older changes.
    """

    tables: tuple[str, ...]
    bound: int
    seen: Seen


@attrs.define
class Why:
    """What was learnt of those that stay.

    Attributes:
        behind: what may still bring older changes, and what to do.
        unheard: the ids of the databases that do not know of them, in hexadecimal.
    """

    behind: set[str] = attrs.Factory(set)
    unheard: set[str] = attrs.Factory(set)


@attrs.define
class Peers:
    """What each database of which there is a receipt knows of; read anew where one came meanwhile."""

    known: list[Peer] = attrs.Factory(list)
    held: dict[str, Mapping[int, Sequence[Range]]] = attrs.Factory(dict)

    def read(self, connection: Connection) -> Mapping[str, Mapping[int, Sequence[Range]]]:
        """Of each, by its id, the seqs of each stream number that it holds, or has held."""
        known = receipts.peers(connection)
        if known != self.known:
            sql = "SELECT stream_id, stream_no FROM edgeshard_streams"
            numbers = dict(sqlite.fetch(connection, sql))
            self.known, self.held = known, {}
            for peer in known:
                held = receipts.ever_held_by(connection, peer.database_id)
                self.held[peer.database_id.hex()] = {numbers[stream]: ranges for stream, ranges in held.items()}
        return self.held


def find(connection: Connection, path: Path, tables: Iterable[str], grace_s: float) -> Old | None:
    """The deletions that are old enough; None where there are none.

    Args:
        connection: the master.
        path: where it is; the shards of its store lie beside it.
        tables: the keyed tables of which they are wanted.
        grace_s: the grace period, in seconds.

    Raises:
        StorageError: the master, or the folder of the shards, cannot be read.
    """
    now_us = hlc.now_us()
    since_us = now_us - int(grace_s * 1_000_000)
    with sqlite.read_snapshot(connection):
        bound = arrivals.first_since(connection, since_us / 1e6)
        bound = identity.next_id(connection) if bound is None else bound
        across = extents.transaction_at(connection, bound - 1)
        bound = across.first if across is not None and across.last >= bound else bound
        old = tuple(name for name in tables if _has_old(connection, name, bound, since_us))
    return Old(old, bound, watermark.look(path, now_us, since_us)) if old else None


def _has_old(connection: Connection, name: str, bound: int, since_us: int) -> bool:
    sql = f"SELECT 1 FROM {quote(keys.deleted_name(name))} WHERE _id < ? AND {format.TIMESTAMP} <= ? LIMIT 1"
    return sqlite.scalar(connection, sql, (bound, since_us)) is not None


def going(connection: Connection, scope: Scope, ids: Range, old: Old, peers: Peers, why: Why) -> Going:
    """What goes of a table of deletions by these ids, as of the caller's transaction; only read.

    Args:
        connection: the master.
        scope: whose table it is.
        ids: where to look.
        old: which are old enough.
        peers: what others know of.
        why: gains what keeps some of them here.
    """
    if scope.tables is None or len(scope.tables) != 1:
        raise AssertionError("deletions go a table at a time")
    (table,) = scope.tables
    window = look(connection, ids)
    below = [Range(ids.first, min(ids.last, old.bound - 1))]
    asked = intersect(islands(connection, table, ids, old.seen.since_us), below)
    bounds = list(watermark.bounds(connection, old.seen))
    upto = min(bound.upto for bound in bounds)
    ready = intersect(asked, islands(connection, table, ids, upto))
    behind = plan.count(asked) - plan.count(ready)
    if behind:
        why.behind.update(bound.why for bound in bounds if bound.upto < old.seen.since_us)
    unheard = []
    for peer, held in peers.read(connection).items():
        lacking = intersect(ready, plan.lacking(window, held))
        why.unheard.update([peer] if lacking else [])
        unheard += lacking
    heard = subtract(ready, unheard)
    kept = [] if scope.may_go is None else plan.kept_back(window, scope.may_go)
    goes = subtract(heard, kept)
    kept_back = plan.count(heard) - plan.count(goes)
    return Going(window, goes, kept_back, behind, plan.count(union(unheard)))


def apply(connection: Connection, scope: Scope, name: str, goes: Going) -> None:
    """Delete what goes of a keyed table's deletions, and note up to which timestamp, in the caller's transaction.

    Raises:
        DamagedError: there are other rows than the blocks say.
    """
    for ids in goes.ids:
        sql = f"SELECT max({format.TIMESTAMP}) FROM {quote(keys.deleted_name(name))} WHERE _id BETWEEN ? AND ?"
        tombstone_gc.record(connection, name, sqlite.scalar(connection, sql, (ids.first, ids.last)))
    window.apply(connection, scope, goes, rules.DELETIONS)
