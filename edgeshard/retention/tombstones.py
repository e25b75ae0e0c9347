"""Garbage-collect tombstones that no older write can follow and that every peer has seen.

A tombstone is deleted only if all of these hold:

1. It was made, and arrived in this master, longer ago than the grace period.
2. No older change can arrive any more: its timestamp is not above the low watermark (see `watermark`).
3. Each database that has given a receipt holds it, or has held it.

No other rule deletes a tombstone, and this rule deletes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from edgeshard import format, sqlite
from edgeshard.format.ranges import Range, intersect, subtract, union
from edgeshard.master import identity, receipts, streams
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.master.receipts import Peer
from edgeshard.records import hlc, keys
from edgeshard.retention import id_bounds, plan, rules, watermark, window
from edgeshard.retention.holds import Hold
from edgeshard.retention.peer_cache import PeerCache
from edgeshard.retention.plan import PruneBatch
from edgeshard.retention.progress import HoldReasons
from edgeshard.retention.run import PruneRun
from edgeshard.retention.scope import Scope
from edgeshard.retention.watermark import WatermarkInputs
from edgeshard.sqlite import Connection, quote

#: Maps each peer's id, in hexadecimal, to what it holds or has held, by stream number.
KnownByPeers = Mapping[str, Mapping[int, Sequence[Range]]]


@attrs.frozen
class ExpiredTombstones:
    """The tombstones that are older than the grace period.

    Attributes:
        tables: the names of the keyed tables that have some.
        bound: all of them arrived below this id.
        inputs: what is known about older changes that may still arrive.
    """

    tables: tuple[str, ...]
    bound: int
    inputs: WatermarkInputs


def collect(run: PruneRun, tables: Iterable[str]) -> None:
    """Delete the tombstones of these keyed tables that may be deleted, one table after the other."""
    grace_s = run.rules.tombstones_older_than_s
    if grace_s is None or run.is_stopping():
        return
    expired = find_expired(run.connection, Path(run.path), tables, run.clock, grace_s)
    if expired is None:
        return
    selector = TombstoneSelector(expired, run.progress.hold_reasons)
    for name in expired.tables:
        scope = attrs.evolve(run.scope, tables=(keys.deleted_name(name),), tombstones_of=name, grace_s=grace_s)
        window.prune_windows(run, scope, rules.TOMBSTONES, 1, expired.bound, selector)


def find_expired(
    connection: Connection, path: Path, tables: Iterable[str], clock: TrustedClock, grace_s: float
) -> ExpiredTombstones | None:
    """Find the tombstones that are older than the grace period.

    Args:
        connection: the master.
        path: its path; the shards of its store are next to it.
        tables: the keyed tables to search.
        clock: the trusted time.
        grace_s: the grace period, in seconds.

    Returns:
        What was found, or None if there are none.

    Raises:
        StorageError: the master, or the folder of shards, cannot be read.
    """
    # timestamps come from wall clocks, so neither clock may be too early to call one old
    now_us = min(hlc.now_us(), int(clock.trusted_s * 1_000_000))
    since_us = now_us - int(grace_s * 1_000_000)
    with sqlite.read_snapshot(connection):
        bound = id_bounds.bound_by_age(connection, clock.trusted_s - grace_s)
        found = tuple(name for name in tables if _has_expired(connection, name, bound, since_us))
    return ExpiredTombstones(found, bound, watermark.load_inputs(path, now_us, since_us)) if found else None


def _has_expired(connection: Connection, name: str, bound: int, since_us: int) -> bool:
    sql = f"SELECT 1 FROM {quote(keys.deleted_name(name))} WHERE _id < ? AND {format.TIMESTAMP} <= ? LIMIT 1"
    return sqlite.scalar(connection, sql, (bound, since_us)) is not None


def _load_known_by_peers(connection: Connection, peers: Sequence[Peer]) -> KnownByPeers:
    numbers = streams.numbers_by_id(connection)
    known = {}
    for peer in peers:
        held = receipts.ever_held_by(connection, peer.database_id)
        known[peer.database_id.hex()] = {numbers[stream_id]: ranges for stream_id, ranges in held.items()}
    return known


@attrs.define
class TombstoneSelector:
    """Selects the tombstones that may be deleted.

    What holds tombstones, and what the peers know, is read before the master is locked. It is outdated once a merge, or
    another prune, has changed the master, or a receipt has arrived.

    Attributes:
        expired: which are older than the grace period.
        reasons: where to add why tombstones stay.
    """

    expired: ExpiredTombstones
    reasons: HoldReasons
    _peers: PeerCache[KnownByPeers] = attrs.Factory(lambda: PeerCache(_load_known_by_peers))
    _known: KnownByPeers = attrs.Factory(dict)
    _holds: Sequence[Hold] = ()
    _generations: frozenset[int] = frozenset()

    def prepare(self, connection: Connection) -> None:
        """Read what holds tombstones, and what the peers know, unless nothing has changed."""
        if not self._is_current(connection):
            self._known = self._peers.read(connection)
            self._holds = tuple(watermark.holds(connection, self.expired.inputs))
            self._generations = frozenset([identity.generation(connection)])

    def _is_current(self, connection: Connection) -> bool:
        return identity.generation(connection) in self._generations and self._peers.is_current(connection)

    def select(self, connection: Connection, scope: Scope, ids: Range) -> PruneBatch:
        """Select the tombstones with these ids that may be deleted, as of the caller's transaction; only read.

        Args:
            connection: the master.
            scope: the one table of tombstones.
            ids: where to look.

        Raises:
            window.OutdatedError: the master was changed since `prepare`.
        """
        if not self._is_current(connection):
            raise window.OutdatedError
        (table,) = scope.tables or ()
        contents = window.load_window(connection, ids)
        below = [Range(ids.first, min(ids.last, self.expired.bound - 1))]
        since_us = self.expired.inputs.since_us
        old = intersect(window.ids_of_rows(connection, table, ids, since_us), below)
        low_watermark = min(hold.timestamp for hold in self._holds)
        settled = intersect(old, window.ids_of_rows(connection, table, ids, low_watermark))
        behind = plan.count(old) - plan.count(settled)
        if behind:
            self.reasons.behind.update(hold.reason for hold in self._holds if hold.timestamp < since_us)
        unheard = []
        for peer, held in self._known.items():
            unknown = intersect(settled, plan.missing_from(contents, held))
            if unknown:
                self.reasons.unheard.add(peer)
            unheard += unknown
        heard = subtract(settled, unheard)
        must_stay = [] if scope.deletable is None else plan.not_deletable(contents, scope.deletable)
        selected = subtract(heard, must_stay)
        # our own transaction counts as a change, and makes nothing of this outdated
        generation = identity.generation(connection)
        self._generations = frozenset((generation, generation + 1 if selected else generation))
        kept_back = plan.count(heard) - plan.count(selected)
        return PruneBatch(contents, selected, kept_back, behind, plan.count(union(unheard)))
