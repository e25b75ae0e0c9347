"""Own edgeshard_streams, and list the rows that a master is missing."""

from __future__ import annotations

import attrs

from edgeshard import sqlite
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract
from edgeshard.reports import Gap
from edgeshard.sqlite import Connection


@attrs.frozen
class Stream:
    """A stream that a master knows.

    Attributes:
        stream_no: the master's own number for it.
        stream_id: its 16 random bytes.
        agent_id: the agent that wrote it.
        began_at: ISO 8601, by the writer's clock.
        last_seq: the highest seq known to exist.
        blocks: where the master has its rows, in order of seq.
    """

    stream_no: int
    stream_id: bytes
    agent_id: str
    began_at: str
    last_seq: int
    blocks: tuple[Block, ...]


def load(connection: Connection) -> list[Stream]:
    """Return all streams, each with its blocks, in order of their numbers."""
    rows = sqlite.fetch(
        connection,
        "SELECT s.stream_no, stream_id, agent_id, began_at, last_seq, b.first, b.last, b.first_id "
        "FROM main.edgeshard_streams s LEFT JOIN main.edgeshard_blocks b USING(stream_no) "
        "ORDER BY s.stream_no, b.first",
    )
    described: dict[int, tuple[bytes, str, str, int]] = {}
    blocks: dict[int, list[Block]] = {}
    for stream_no, stream_id, agent_id, began_at, last_seq, first, last, first_id in rows:
        described[stream_no] = (stream_id, agent_id, began_at, last_seq)
        if first is not None:
            blocks.setdefault(stream_no, []).append(Block(first, last, first_id))
    return [Stream(stream_no, *rest, tuple(blocks.get(stream_no, ()))) for stream_no, rest in described.items()]


def gaps(connection: Connection) -> tuple[Gap, ...]:
    """The seqs of each stream that are known to exist and that this master never held."""
    found = []
    incomplete = sqlite.fetch(
        connection,
        "SELECT s.stream_no, agent_id, stream_id, last_seq FROM edgeshard_streams s LEFT JOIN edgeshard_ranges r "
        "ON r.stream_no = s.stream_no GROUP BY s.stream_no HAVING coalesce(sum(r.last - r.first + 1), 0) < last_seq",
    )
    for number, agent_id, stream_id, last_seq in incomplete:
        rows = sqlite.fetch(connection, "SELECT first, last FROM edgeshard_ranges WHERE stream_no = ?", (number,))
        held = [Range(first, last) for first, last in rows]
        found += [
            Gap(agent_id, stream_id.hex(), part.first, part.last) for part in subtract([Range(1, last_seq)], held)
        ]
    return tuple(sorted(found, key=lambda gap: (gap.agent, gap.stream, gap.first)))
