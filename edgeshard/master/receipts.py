"""Own _edgeshard_receipts and _edgeshard_peers: what other databases (peers) said that they hold durably.

A receipt answers two different questions. To delete a row here, we ask whether a peer has it *now*. To export rows, we
ask whether the peer *ever* had them, because a row that the peer pruned must not come back. So a receipt records both:
what the peer holds (`HELD`), and what it held once and has pruned (`PRUNED`).

A receipt is believed only as far as somebody vouches for it:

* Only the receipts of *confirmed* peers are recorded: somebody confirmed the peer's id once, or this store pushed rows
  to it. Of any other peer, only its id is recorded, and that it awaits confirmation.
* Only rows that this master had held when the receipt was recorded count. What else a peer says that it holds is
  `CLAIMED`: it explains gaps and holds tombstones, and never becomes a reason to delete rows, not even once rows of
  these seqs arrive here.

`edgeshard.exchange.receipts` decides which of two receipts of a peer is newer.
"""

from __future__ import annotations

import datetime
import itertools
import operator
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, StorageBusyError, quoted
from edgeshard.format.ranges import Range, intersect, subtract, union
from edgeshard.master import database, extents, identity, retired, streams
from edgeshard.sqlite import Connection

#: The kinds of databases that a peer can be.
KINDS: Final = ("edgeshard", "postgresql")
EDGESHARD, POSTGRESQL = KINDS

#: What a receipt says of rows: the peer holds them; it held them once, and pruned them; it says that it holds them, but
#: this master never had them.
HELD, PRUNED, CLAIMED = range(3)

#: (first seq, last seq, `HELD` or `PRUNED`) of consecutive rows.
Run = tuple[int, int, int]

#: Yields (stream id, what a peer says of the stream's rows, in order of seq), in the order of the ids.
Said = Iterable[tuple[bytes, Sequence[Run]]]

#: How many entries one transaction changes, so that it keeps a merger waiting for less than 50 ms.
STEP_ROWS: Final = 2_000

#: The shortest rest between two transactions, in seconds: a process that waits for the lock tries it every 2 ms.
_PAUSE_S: Final = 0.005

#: How many digits of a peer's id may stand for it, if no other id begins with them.
_DIGITS_MIN = 6

#: How many digits an id has.
_ID_DIGITS: Final = 32

#: How many peers an error names.
_NAMED_MAX = 10

_SELECT_RANGES = (
    f"SELECT database_id, stream_id, r.first, r.last FROM main._edgeshard_receipts r {streams.JOIN} "
    "JOIN main._edgeshard_peers USING (database_id) WHERE "
)


@attrs.frozen
class Peer:
    """A database that gave a receipt.

    Attributes:
        database_id: its id, 16 bytes.
        kind: "edgeshard" or "postgresql".
        received_at: when its last receipt arrived, by this machine's clock.
        issued_at: when it issued that receipt, by its own clock.
        generation: how often it had been changed by then; 0 if it does not count.
        trusted_at: when it was confirmed, by this machine's clock; None: it awaits confirmation.
        revision: how many transactions have changed what is recorded of it.
    """

    database_id: bytes
    kind: str
    received_at: datetime.datetime
    issued_at: datetime.datetime
    generation: int
    trusted_at: datetime.datetime | None
    revision: int


@attrs.frozen
class Recorded:
    """What was not recorded of a receipt.

    Attributes:
        unknown: streams that this master does not know.
        claimed: rows of known streams that this master never held, and that the peer says it holds.
    """

    unknown: int
    claimed: int


def find(connection: Connection, digits: str, path: str) -> Peer:
    """Return the peer with this id, or the only one whose id begins with these digits.

    Args:
        connection: the master.
        digits: its id in hexadecimal, or the first digits of it.
        path: the master, for the error.

    Raises:
        ConfigurationError: there is no such peer, or more than one.
    """
    _check_digits(digits, path)
    known, others = peers(connection), awaiting(connection)
    found, unconfirmed = ([peer for peer in some if _begins(peer, digits)] for some in (known, others))
    if len(found) == 1 and len(digits) >= _DIGITS_MIN:
        return found[0]
    if unconfirmed and not found:
        cause = f"its receipt in {path} awaits confirmation; record it once with Store.receipt(file, trust=True)"
        raise ConfigurationError("find receipt of", unconfirmed[0].database_id.hex(), cause)
    listed = ", ".join(f"{peer.database_id.hex()} ({peer.kind})" for peer in known[:_NAMED_MAX])
    more = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
    available = (
        f"there are receipts of {listed}{more}"
        if known
        else "there is no receipt at all; record one with Store.receipt (`edgeshard receipt`)"
    )
    what = "more than one receipt fits" if len(found) > 1 else f"give at least {_DIGITS_MIN} digits of the id"
    if not found:
        what = "there is no receipt of a database with such an id"
    raise ConfigurationError("find receipt of", digits[:_ID_DIGITS], f"{what} in {path}: {available}")


def find_any(connection: Connection, digits: str, path: str) -> Peer:
    """Return the peer with this id, or the only one whose id begins with these digits; it may await confirmation.

    Raises:
        ConfigurationError: there is no such peer, or more than one; see `find`.
    """
    _check_digits(digits, path)
    unconfirmed = [peer for peer in awaiting(connection) if _begins(peer, digits)]
    is_clear = len(unconfirmed) == 1 and len(digits) >= _DIGITS_MIN
    if is_clear and not any(_begins(peer, digits) for peer in peers(connection)):
        return unconfirmed[0]
    return find(connection, digits, path)


def _check_digits(digits: object, path: str) -> None:
    """Refuse what is no id of a database, nor the first digits of one.

    Raises:
        ConfigurationError: it is no text.
    """
    if not isinstance(digits, str):
        cause = f"a database is named by its id, a text of hexadecimal digits (see status), got {quoted(digits)}"
        raise ConfigurationError("find receipt in", path, cause)


def _begins(peer: Peer, digits: str) -> bool:
    return peer.database_id.hex().startswith(digits.lower())


# -- recording --------------------------------------------------------------------------------------------------------


def record_awaiting(
    connection: Connection,
    database_id: bytes,
    kind: str,
    *,
    issued_at: datetime.datetime,
    generation: int,
    replace: bool = False,
) -> None:
    """Record that a peer which nobody confirmed gave a receipt, and when it issued the last one. Nothing else counts.

    Args:
        connection: the master, open for writing.
        database_id: the peer's id, 16 bytes.
        kind: `EDGESHARD` or `POSTGRESQL`.
        issued_at: when it issued the receipt, by its own clock.
        generation: how often it had been changed by then.
        replace: record this even if the last one was issued later: by a clock that was ahead.
    """
    now = datetime.datetime.now(datetime.UTC)
    with sqlite.immediate(connection):
        last = load(connection, database_id)
        if last is None or last.trusted_at is None:
            if last is not None and replace:
                generation = max(generation, last.generation)
            elif last is not None and last.issued_at > issued_at:
                issued_at, generation = last.issued_at, last.generation
            revision = 1 if last is None else last.revision + 1
            _write_peer(connection, Peer(database_id, kind, now, issued_at, generation, None, revision))


def record(
    connection: Connection,
    database_id: bytes,
    kind: str,
    said: Said,
    *,
    issued_at: datetime.datetime | None = None,
    generation: int = 0,
    in_both: bool = False,
) -> Recorded:
    """Replace the receipt of a confirmed peer by a newer one, and so confirm the peer.

    A large receipt is recorded in several transactions. First, what the peer no longer says is deleted, then what it
    says is added. So a reader, or a kill, in between finds too little, never too much.

    Args:
        connection: the master, open for writing, without a transaction.
        database_id: the peer's id, 16 bytes.
        kind: `EDGESHARD` or `POSTGRESQL`.
        said: what it says.
        issued_at: when it said so, by its own clock; None: now.
        generation: how often it had been changed by then.
        in_both: record only what its last receipt says as well.

    Raises:
        StorageBusyError: another process records a receipt of the same peer.
    """
    now = datetime.datetime.now(datetime.UTC)
    database.prepare_id_order(connection)
    with sqlite.read_snapshot(connection):
        last = load(connection, database_id)
        unwanted, new, recorded = _differences(connection, database_id, said, in_both=in_both)
    trusted_at = now if last is None or last.trusted_at is None else last.trusted_at
    peer = Peer(database_id, kind, now, issued_at or now, generation, trusted_at, 0 if last is None else last.revision)
    changes, took_s = len(unwanted) + len(new), 0.0
    for start in range(0, max(1, changes), STEP_ROWS):
        if start:
            time.sleep(max(_PAUSE_S, took_s / 2))
        end = start + STEP_ROWS
        added = new[max(0, start - len(unwanted)) : max(0, end - len(unwanted))]
        # until the first row is added, the last receipt is in force, or what is left of it
        in_force = peer if last is None or added or end >= changes else last
        peer = attrs.evolve(peer, revision=peer.revision + 1)
        took_s = _change(connection, attrs.evolve(in_force, revision=peer.revision), unwanted[start:end], added)
    return recorded


def forget(connection: Connection, peer: Peer) -> None:
    """Forget a peer and its receipt; until the last transaction it counts as holding less and less.

    Args:
        connection: the master, open for writing, without a transaction.
        peer: what is recorded of it.

    Raises:
        StorageBusyError: another process records a receipt of the same peer.
    """
    if peer.trusted_at is not None:
        record(connection, peer.database_id, peer.kind, (), issued_at=peer.issued_at, generation=peer.generation)
    with sqlite.immediate(connection):
        if sqlite.scalar(
            connection, "SELECT 1 FROM main._edgeshard_receipts WHERE database_id = ?", (peer.database_id,)
        ):
            raise _busy(peer)
        connection.execute("DELETE FROM main._edgeshard_peers WHERE database_id = ?", (peer.database_id,))
        identity.increment_generation(connection)  # what a merger or a prune knows of the peers is outdated


def _busy(peer: Peer) -> StorageBusyError:
    cause = "another process records a receipt of the same database; try again"
    return StorageBusyError("record receipt of", peer.database_id.hex(), cause)


def _change(connection: Connection, peer: Peer, unwanted: Sequence[_Row], new: Sequence[_Row]) -> float:
    """Change a part of a receipt in one transaction; return how many seconds it kept others waiting."""
    with sqlite.immediate(connection):
        began = time.monotonic()
        found = load(connection, peer.database_id)
        if (0 if found is None else found.revision) != peer.revision - 1:
            raise _busy(peer)
        connection.executemany(
            "DELETE FROM main._edgeshard_receipts WHERE database_id = ? AND stream_no = ? AND first = ?",
            [(peer.database_id, number, first) for number, first, _, _ in unwanted],
        )
        connection.executemany(  # a stream may have retired since these were read
            "INSERT INTO main._edgeshard_receipts(database_id, stream_no, first, last, state) "
            f"SELECT ?1, ?2, ?3, ?4, ?5 FROM {streams.TABLE} WHERE s.stream_no = ?2",
            [(peer.database_id, *row) for row in new],
        )
        _write_peer(connection, peer)
    return time.monotonic() - began


def _write_peer(connection: Connection, peer: Peer) -> None:
    trusted_at = None if peer.trusted_at is None else peer.trusted_at.isoformat()
    connection.execute(
        "INSERT OR REPLACE INTO main._edgeshard_peers(database_id, kind, received_at, issued_at, generation, "
        "trusted_at, revision) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            peer.database_id, peer.kind, peer.received_at.isoformat(), peer.issued_at.isoformat(), peer.generation,
            trusted_at, peer.revision,
        ),
    )  # fmt: skip


#: (stream number, first, last, state) of an entry.
_Row = tuple[int, int, int, int]


def _differences(
    connection: Connection, database_id: bytes, said: Said, *, in_both: bool
) -> tuple[list[_Row], list[_Row], Recorded]:
    """Compare a new receipt with the last one; most of it repeats that.

    The streams, the receipt and the last receipt are read side by side, each in the order of the ids, so that only what
    differs is kept in memory.

    Returns:
        The entries to delete, those to add, and what is not recorded.
    """
    unwanted: list[_Row] = []
    new: list[_Row] = []
    unknown = claimed = 0
    before = itertools.groupby(_rows_in_order_of_id(connection, database_id), key=operator.itemgetter(0))
    earlier = next(before, None)
    items = iter(said)
    item = next(items, None)
    for number, stream_id, ours in streams.ranges_in_order_of_id(connection):
        while item is not None and item[0] < stream_id:
            unknown += retired.last_seq(connection, item[0]) is None
            item = next(items, None)
        runs: Sequence[Run] = ()
        if item is not None and item[0] == stream_id:
            runs, item = item[1], next(items, None)
        last: list[_Row] = []
        if earlier is not None and earlier[0] == number:
            last = list(earlier[1])
            earlier = next(before, None)
        if runs or last:
            rows = _rows(number, ours, runs, last if in_both else None)
            claimed += sum(end - first + 1 for _, first, end, state in rows if state == CLAIMED)
            if rows != last:
                unwanted += set(last).difference(rows)
                new += set(rows).difference(last)
    if item is not None:
        unknown += sum(retired.last_seq(connection, stream_id) is None for stream_id, _ in [item, *items])
    return sorted(unwanted), sorted(new), Recorded(unknown, claimed)


def _rows_in_order_of_id(connection: Connection, database_id: bytes) -> Iterator[_Row]:
    table, columns = "main._edgeshard_receipts", "first, last, state"
    yield from streams.rows_in_order_of_id(connection, table, columns, "database_id = ?", (database_id,))


def _rows(number: int, ours: Sequence[tuple[int, int]], runs: Sequence[Run], last: Sequence[_Row] | None) -> list[_Row]:
    """Return the entries of one stream, in order of seq.

    Args:
        number: the stream's number.
        ours: what this master has ever held.
        runs: what the peer says.
        last: the entries of its last receipt if only what both say counts, or None.
    """
    if last is None and list(runs) == [(*seqs, HELD) for seqs in ours]:
        return [(number, *run) for run in runs]  # as nearly always: the peer holds what was here
    here = [Range(*seqs) for seqs in ours]
    held, pruned = ([Range(*seqs) for *seqs, state in runs if state == wanted] for wanted in (HELD, PRUNED))
    held, claimed = intersect(held, here), subtract(held, here)
    pruned = intersect(pruned, here)
    if last is not None:
        held_before, pruned_before, claimed_before = (
            [Range(*seqs) for _, *seqs, state in last if state == wanted] for wanted in (HELD, PRUNED, CLAIMED)
        )
        ever = intersect([*held, *pruned], [*held_before, *pruned_before])
        held = intersect(held, held_before)
        pruned = subtract(ever, held)
        claimed = subtract([*claimed, *claimed_before], here)  # any reason to keep tombstones is enough
    parts = ((HELD, held), (PRUNED, pruned), (CLAIMED, claimed))
    return sorted((number, part.first, part.last, state) for state, seqs in parts for part in seqs)


# -- reading ----------------------------------------------------------------------------------------------------------


def load(connection: Connection, database_id: bytes) -> Peer | None:
    """Return what is recorded of a peer, confirmed or not, or None."""
    return next(_peers(connection, "database_id = ?", (database_id,)), None)


def peers(connection: Connection) -> list[Peer]:
    """Return all confirmed databases that gave a receipt, the most recent first."""
    return list(_peers(connection, "trusted_at IS NOT NULL"))


def awaiting(connection: Connection) -> list[Peer]:
    """Return the databases whose receipt awaits confirmation, the most recent first."""
    return list(_peers(connection, "trusted_at IS NULL"))


def _peers(connection: Connection, where: str, bindings: tuple[bytes, ...] = ()) -> Iterator[Peer]:
    parse = datetime.datetime.fromisoformat
    for database_id, kind, received_at, issued_at, generation, trusted_at, revision in sqlite.fetch(
        connection,
        "SELECT database_id, kind, received_at, issued_at, generation, trusted_at, revision FROM main._edgeshard_peers "
        f"WHERE {where} ORDER BY received_at DESC, database_id",
        bindings,
    ):
        trusted = None if trusted_at is None else parse(trusted_at)
        yield Peer(database_id, kind, parse(received_at), parse(issued_at), generation, trusted, revision)


def held_totals(connection: Connection, database_id: bytes) -> tuple[int, int]:
    """Return how many rows a peer counts as holding now, and of how many streams."""
    sql = (
        "SELECT coalesce(sum(last - first + 1), 0), count(DISTINCT stream_no) FROM main._edgeshard_receipts "
        f"WHERE database_id = ? AND state = {HELD}"
    )
    ((rows, stream_count),) = sqlite.fetch(connection, sql, (database_id,))
    return rows, stream_count


def claimed_rows(connection: Connection, database_id: bytes) -> int:
    """Return how many rows a peer says that it holds and this master never had."""
    sql = (
        "SELECT coalesce(sum(last - first + 1), 0) FROM main._edgeshard_receipts "
        f"WHERE database_id = ? AND state = {CLAIMED}"
    )
    return int(sqlite.scalar(connection, sql, (database_id,)))


def held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """Return what a peer holds now according to its last receipt, by stream id."""
    return _united(connection, f"database_id = ? AND state = {HELD}", (database_id,))


def ever_held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """Return what a peer holds, or held once, by stream id."""
    return _united(connection, f"database_id = ? AND state IN ({HELD}, {PRUNED})", (database_id,))


def held_elsewhere(connection: Connection, kinds: Collection[str]) -> dict[bytes, list[Range]]:
    """Return what at least one peer of these kinds holds now, by stream id."""
    listed = ", ".join("?" * len(kinds))
    return _united(connection, f"kind IN ({listed}) AND state = {HELD}", tuple(kinds))


def holders(connection: Connection, stream_id: bytes) -> list[tuple[Peer, list[Range]]]:
    """Return the peers that say they hold rows of a stream now, each with these rows, the most recent receipt first."""
    found: dict[bytes, list[Range]] = {}
    for database_id, _, first, last in _listed(connection, f"stream_id = ? AND state <> {PRUNED}", (stream_id,)):
        found.setdefault(database_id, []).append(Range(first, last))
    return [(peer, found[peer.database_id]) for peer in peers(connection) if peer.database_id in found]


def streams_with_unknown_rows(connection: Connection) -> list[int]:
    """Return the numbers of the streams with rows that a peer holds now and this master never had."""
    rows = sqlite.fetch(
        connection,
        "SELECT DISTINCT p.stream_no FROM main._edgeshard_receipts p "
        f"WHERE state = {CLAIMED} AND {extents.range_end('p')} < p.last",
    )
    return [number for (number,) in rows]


def _united(connection: Connection, where: str, bindings: tuple[bytes | str, ...]) -> dict[bytes, list[Range]]:
    found: dict[bytes, list[Range]] = {}
    for _, stream_id, first, last in _listed(connection, where, bindings):
        found.setdefault(stream_id, []).append(Range(first, last))
    return {stream_id: union(items) for stream_id, items in found.items()}


def _listed(
    connection: Connection, where: str, bindings: tuple[bytes | str, ...]
) -> list[tuple[bytes, bytes, int, int]]:
    return sqlite.fetch(connection, _SELECT_RANGES + where, bindings)


# -- a stream that retires ---------------------------------------------------------------------------------------------

#: The entries of a stream. There are few peers, and no index on the number alone.
_OF_STREAM: Final = "database_id IN (SELECT database_id FROM main._edgeshard_peers) AND stream_no = ?"


def is_claimed(connection: Connection, stream_no: int) -> bool:
    """Return whether a peer says that it holds rows of a stream that this master never had."""
    sql = f"SELECT 1 FROM main._edgeshard_receipts WHERE {_OF_STREAM} AND state = {CLAIMED} LIMIT 1"
    return sqlite.scalar(connection, sql, (stream_no,)) is not None


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget what the peers say of a stream, in the transaction in which it retires: it has no row left to prune."""
    connection.execute(f"DELETE FROM main._edgeshard_receipts WHERE {_OF_STREAM}", (stream_no,))
