"""What a database must hold, and what a merge makes of it: plain dicts, and nothing of edgeshard.

A master says of each address that it has ever held what became of it:

    CURRENT     the row is in its table; a tombstone is in the table of tombstones
    HISTORY     a newer version replaced it, and it is in the history of its table
    SUPERSEDED  a newer version replaced it, and it is nowhere
    PRUNED      this master deleted it by a rule, or because it was erased

In a shard all rows are CURRENT. What is not in the dict, up to the last seq that is known, is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from typing import Any

import attrs

from tests.support.fleets.shapes import DISPUTED_TABLES, TYPES, Shape

#: A row's stream and seq.
Address = tuple[str, int]

CURRENT, HISTORY, SUPERSEDED, PRUNED = "current", "history", "superseded", "pruned"

_CHAINS = (("boolean", "integer", "real", "decimal"), ("uuid", "text"))


@attrs.frozen(eq=False)
class Row:
    """A row that a writer acknowledged.

    Attributes:
        address: where it is.
        agent: who wrote it.
        shape: its class.
        values: its fields; of a tombstone, its key.
        is_tombstone: whether it deletes.
        timestamp: which of two changes is the later one; 0 in tables without a key.
    """

    address: Address
    agent: str
    shape: Shape
    values: Mapping[str, Any]
    is_tombstone: bool = False
    timestamp: int = 0

    @property
    def key(self) -> tuple[str, tuple[Any, ...]] | None:
        """Its table and the values of its key, or None if the table has none."""
        shape = self.shape
        return (shape.table, tuple(self.values[field] for field in shape.key)) if shape.key else None

    @property
    def order(self) -> tuple[int, str, int]:
        """Changes of one key count in this order."""
        return (self.timestamp, *self.address)


Rows = Mapping[Address, Row]


def kept(versions: Iterable[Row]) -> list[Row]:
    """Return which versions of one key a master keeps: current rows, and the tombstone that counts."""
    changes = sorted(versions, key=lambda row: row.order)
    rule, _, column = changes[0].shape.conflict.partition(":")
    if rule == "first":
        return changes[:1]
    if rule == "max":
        return [max(changes, key=lambda row: (row.values[column], row.order))]
    if rule == "min":
        return [max(changes, key=lambda row: (-row.values[column], row.order))]
    if rule == "keep-all":
        last = max((n for n, row in enumerate(changes) if row.is_tombstone), default=0)
        return changes[last:]
    return changes[-1:]


# -- tables -----------------------------------------------------------------------------------------------------------


@attrs.define
class Schema:
    """The tables that a database knows, as the classes of all agents together declare them.

    Attributes:
        columns: the type of each column, by table and name; without what keyed tables add.
        renames: the renames that it knows: table, old name, new name.
        indexes: the indexes that it should have: table, columns.
        keys: the shapes of keyed tables, by table.
    """

    columns: dict[tuple[str, str], str] = attrs.Factory(dict)
    renames: set[tuple[str, str, str]] = attrs.Factory(set)
    indexes: set[tuple[str, tuple[str, ...]]] = attrs.Factory(set)
    keys: dict[str, Shape] = attrs.Factory(dict)

    def copy(self) -> Schema:
        """Return a copy."""
        return Schema(dict(self.columns), set(self.renames), set(self.indexes), dict(self.keys))

    def final(self, table: str, column: str) -> str:
        """Return the last name of a column."""
        for _ in self.renames:
            later = [new for of, old, new in sorted(self.renames) if (of, old) == (table, column)]
            column = later[-1] if later else column
        return column

    def declare(self, shape: Shape) -> None:
        """Add what a class declares."""
        columns = {(shape.table, field): TYPES[kind] for field, kind in shape.fields.items()}
        renames = {(shape.table, old, new) for old, new in shape.renamed.items()}
        indexes = {(shape.table, index) for index in shape.index}
        self.add(Schema(columns, renames, indexes, {shape.table: shape} if shape.key else {}))

    def add(self, other: Schema) -> None:
        """Add what another database knows; columns take their last names and their widest types."""
        self.renames |= other.renames
        self.keys.update(other.keys)
        columns: dict[tuple[str, str], str] = {}
        for (table, column), kind in [*self.columns.items(), *other.columns.items()]:
            place = (table, self.final(table, column))
            columns[place] = widest(columns.get(place, kind), kind)
        self.columns = columns
        self.indexes = {
            (table, tuple(dict.fromkeys(self.final(table, column) for column in index)))
            for table, index in self.indexes | other.indexes
        }

    def without(self, tables: Collection[str]) -> Schema:
        """Return a copy that does not know these tables, which have neither keys, nor renames, nor indexes."""
        found = self.copy()
        found.columns = {place: kind for place, kind in self.columns.items() if place[0] not in tables}
        return found

    def all_columns(self) -> dict[tuple[str, str], str]:
        """Return the columns that a master has, with those that keyed tables add."""
        found = dict(self.columns)
        for table, shape in self.keys.items():
            found[table, "_timestamp"] = "timestamp"
            if shape.deletes:
                found[f"{table}_deleted", "_timestamp"] = "timestamp"
                found.update({(f"{table}_deleted", field): self.columns[table, field] for field in shape.key})
            if shape.history:
                found[f"{table}_history", "_timestamp"] = "timestamp"
                found[f"{table}_history", "_reason"] = "reason"
                known = {column: kind for (of, column), kind in self.columns.items() if of == table}
                found.update({(f"{table}_history", column): kind for column, kind in known.items()})
        return found

    def all_indexes(self) -> set[tuple[str, tuple[str, ...]]]:
        """Return the indexes that a master has, with those over keys."""
        found = set(self.indexes)
        for table, shape in self.keys.items():
            found |= {(table, shape.key)} | ({(f"{table}_deleted", shape.key)} if shape.deletes else set())
        return found


def widest(one: str, other: str) -> str:
    """Return the type that holds the values of both."""
    if one == other:
        return one
    (chain,) = [chain for chain in _CHAINS if one in chain and other in chain]
    return max(one, other, key=chain.index)


# -- databases --------------------------------------------------------------------------------------------------------


@attrs.define
class Held:
    """What a database must hold.

    Attributes:
        state: what became of each row that it ever held.
        last: the highest seq of each stream that it knows to exist.
        schema: its tables.
        is_tainted: whether a hostile database was merged into it, or into what was.
        forgotten: the streams that it has forgotten.
        noted: how many of the pruned rows it counts as superseded: all rows of their streams were.
        rejected: the rows that PostgreSQL rejected, according to a master: the kind of the reason, and its table.
        dismissed: those that a user dismissed.
    """

    state: dict[Address, str] = attrs.Factory(dict)
    last: dict[str, int] = attrs.Factory(dict)
    schema: Schema = attrs.Factory(Schema)
    is_tainted: bool = False
    forgotten: set[str] = attrs.Factory(set)
    noted: int = 0
    rejected: dict[Address, tuple[str, str]] = attrs.Factory(dict)
    dismissed: set[Address] = attrs.Factory(set)

    def copy(self) -> Held:
        """Return a copy."""
        return attrs.evolve(
            self,
            state=dict(self.state),
            last=dict(self.last),
            schema=self.schema.copy(),
            forgotten=set(self.forgotten),
            rejected=dict(self.rejected),
            dismissed=set(self.dismissed),
        )

    def merge(self, source: Held, blocked: Set[Address] = frozenset()) -> None:
        """Take over what another database holds, except for blocked rows; `settle` must follow.

        The caller sets the types of disputed columns: they depend on who came first.
        """
        for address, state in source.state.items():
            if state != PRUNED and address not in blocked:
                self.state.setdefault(address, state)
        for stream, last in source.last.items():
            self.last[stream] = max(last, self.last.get(stream, 0))
        self.schema.add(source.schema.without(DISPUTED_TABLES))
        self.is_tainted = self.is_tainted or source.is_tainted

    def hear(self, noted: Held) -> None:
        """Take over what the notes outside a master say; it has heard what they say of streams that it forgot."""
        for stream, last in noted.last.items():
            if stream not in self.forgotten:
                self.last[stream] = max(last, self.last.get(stream, 0))
        self.is_tainted = self.is_tainted or noted.is_tainted

    def forget(self, streams: Set[str]) -> None:
        """Forget streams of which all rows were pruned."""
        self.state = {address: state for address, state in self.state.items() if address[0] not in streams}
        self.last = {stream: last for stream, last in self.last.items() if stream not in streams}
        self.forgotten |= streams

    def settle(self, rows: Rows) -> None:
        """Apply the rules of keyed tables."""
        versions: dict[Any, list[Row]] = {}
        for address, state in self.state.items():
            if state == CURRENT and (key := rows[address].key) is not None:
                versions.setdefault(key, []).append(rows[address])
        for changes in versions.values():
            winners = kept(changes)
            for row in changes:
                if row not in winners:
                    is_remembered = row.shape.history and not row.is_tombstone
                    self.state[row.address] = HISTORY if is_remembered else SUPERSEDED

    def those(self, *states: str) -> set[Address]:
        """Return the addresses in any of these states."""
        return {address for address, state in self.state.items() if state in states}

    @property
    def visible(self) -> set[Address]:
        """The addresses of rows that are in a table."""
        return self.those(CURRENT, HISTORY)

    @property
    def missing(self) -> set[Address]:
        """The addresses that it knows to exist and never held."""
        known = {(stream, seq) for stream, last in self.last.items() for seq in range(1, last + 1)}
        return known - self.state.keys()
