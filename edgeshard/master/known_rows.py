"""Rows that are known to have been in a master, and that this one may never have held.

The notes of removed shards (`removed_shards`) and the truncations of shards that are still there say so. If an older
copy of a master is put back, or a new one is begun, these rows are missing from it, and it cannot know that by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from edgeshard.format.ranges import Range
from edgeshard.master import retired, retirement, streams, truncations
from edgeshard.master.row_states import StreamRows
from edgeshard.sqlite import Connection


@attrs.frozen
class KnownRows:
    """Rows of a stream that a master held.

    Attributes:
        stream_id: the stream's id.
        agent_id: its agent.
        seqs: the rows.
        database_id: the id of that master.
    """

    stream_id: bytes
    agent_id: str
    seqs: Range
    database_id: bytes


def select_unknown(connection: Connection, known: Iterable[KnownRows]) -> list[KnownRows]:
    """Return the rows that are beyond the last seq that the master knows to exist of their stream."""
    known = list(known)
    last_seqs = {stream_id: last for _, stream_id, _, last in streams.with_last_seqs(connection)} if known else {}
    unknown = []
    for each in sorted(known, key=lambda each: (each.agent_id, each.stream_id, each.seqs)):
        last = last_seqs.get(each.stream_id) or retired.last_seq(connection, each.stream_id) or 0
        if each.seqs.last > last:
            seqs = Range(max(each.seqs.first, last + 1), each.seqs.last)
            unknown.append(attrs.evolve(each, seqs=seqs))
            last_seqs[each.stream_id] = each.seqs.last
    return unknown


def record(connection: Connection, unknown: Iterable[KnownRows]) -> None:
    """Record in the master that these rows exist, which makes them missing, in the caller's transaction.

    Args:
        connection: the master.
        unknown: what `select_unknown` returned, in the same transaction.
    """
    for each in unknown:
        retirement.restore(connection, each.stream_id, each.agent_id, "")
        found = streams.find(connection, each.stream_id)
        number = streams.add(connection, each.stream_id, each.agent_id, "") if found is None else found[0]
        streams.add_missing(connection, number, streams.raise_last_seq(connection, number, each.seqs.last))
        truncations.record(connection, number, each.seqs, each.database_id)


def add_to(stream_rows: Iterable[StreamRows], unknown: Sequence[KnownRows]) -> list[StreamRows]:
    """Return the streams with these rows among the known ones, as if they were recorded."""
    by_id = {stream.stream_id: stream for stream in stream_rows}
    for each in unknown:
        stream = by_id.get(each.stream_id) or StreamRows(each.stream_id, each.agent_id, 0, ())
        by_id[each.stream_id] = attrs.evolve(stream, last_seq=max(stream.last_seq, each.seqs.last))
    return list(by_id.values())
