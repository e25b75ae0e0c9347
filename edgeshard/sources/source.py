"""The tables and streams of an attached database, as values. Every one of them has been checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from edgeshard import format
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import PrunedRange, Range
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import quote


@attrs.frozen
class SourceTable:
    """A record table of a source.

    Attributes:
        name: its name.
        columns: the name and type of each column, in order.
        indexes: the columns of each index that a master should have.
        key: the key of a keyed table; None for a plain one.
        renames: columns that have been renamed, as (old, new).
        into: for each column of the target that gets a value, its name and the SQL expression of that value, over this
            table as ``s``. By default each of the table's columns goes into the column of the same name.
        checks: SQL conditions over ``s`` that no copied row may meet, each with the reason.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    indexes: tuple[tuple[str, ...], ...]
    key: Key | None = None
    renames: tuple[Arrow, ...] = ()
    into: tuple[tuple[str, str], ...] = attrs.field()
    checks: tuple[tuple[str, str], ...] = ()

    @into.default
    def _into_columns_of_the_same_name(self) -> tuple[tuple[str, str], ...]:
        return tuple((column, f"s.{quote(column)}") for column, _ in self.columns)

    @property
    def is_plain(self) -> bool:
        """Whether it has columns alone: no key, no index, and no timestamps."""
        return self.key is None and not self.indexes and not self.is_timestamped

    @property
    def is_timestamped(self) -> bool:
        """Whether its rows have the timestamp at which they were written."""
        return (format.TIMESTAMP, format.OWN_COLUMNS[format.TIMESTAMP]) in self.columns


@attrs.frozen
class Conflict:
    """Why rows of a source are blocked.

    Attributes:
        table: the table that does not fit the target's.
        cause: why, and what to do.
    """

    table: str
    cause: str


#: The blocked rows of a source: for each reason the seqs by stream id. No seq has two reasons.
Blocked = Mapping[Conflict, Mapping[bytes, Sequence[Range]]]


@attrs.frozen
class SourceStream:
    """A stream, as a source knows it.

    Attributes:
        stream_no: the source's own number for the stream.
        stream_id: its 16 random bytes.
        agent_id: the agent that wrote it.
        began_at: when it began, in ISO 8601, by the writer's clock; "" if the source does not say.
        blocks: the rows that the source has now.
        truncations: the seqs that the source truncated, each with the id of the database that holds them.
        last_seq: the highest seq that the source knows to exist.
        in_file: whether a shard's file has rows of the stream, truncated or not.
        pruned: the seqs that were deleted by a retention rule, in the source or in a database merged into it.
    """

    stream_no: int
    stream_id: bytes
    agent_id: str
    began_at: str
    blocks: tuple[Block, ...]
    truncations: tuple[tuple[Range, bytes], ...]
    last_seq: int
    in_file: bool
    pruned: tuple[PrunedRange, ...] = ()

    @property
    def ranges(self) -> list[Range]:
        """The seqs that the source has now."""
        return [Range(block.first, block.last) for block in self.blocks]


@attrs.frozen
class Source:
    """An attached database that was found to be one of ours.

    Attributes:
        schema: the name by which it is attached.
        path: its file.
        role: `format.SHARD`, `format.MASTER` or `format.BUNDLE`.
        database_id: its 16 random bytes.
        agent_id: the agent of a shard; None for other roles.
        tables: its record tables.
        priorities: the priority of each table that has one, by its name in lower case.
    """

    schema: str
    path: str
    role: str
    database_id: bytes
    agent_id: str | None
    tables: tuple[SourceTable, ...]
    priorities: Mapping[str, int] = attrs.Factory(dict)

    def attached_as(self, schema: str) -> Source:
        """Return the same database as it is known to a connection to which it is attached by another name."""
        return Source(schema, self.path, self.role, self.database_id, self.agent_id, self.tables, self.priorities)

    @property
    def is_shard(self) -> bool:
        """Whether an agent wrote it."""
        return self.role == format.SHARD
