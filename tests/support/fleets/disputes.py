"""Which rows a database cannot take, because its tables have other types: pure functions over the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.fleets.model import CURRENT, PRUNED, Address, Held, Rows, Schema
from tests.support.fleets.shapes import DISPUTED, DISPUTED_TABLES, EXACT_MAX, REAL, TYPES, WHOLE, Shape

#: The first and the last address of each transaction of several rows, by the address of each of its rows.
Transactions = Mapping[Address, tuple[Address, Address]]

#: The type of the disputed column, by table; a table that is not there is not in it.
Kinds = Mapping[str, str]


def kinds(columns: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Return the types of the disputed columns in a database with these columns."""
    return {table: columns[table, "v"] for table in DISPUTED_TABLES if (table, "v") in columns}


def kind_of(shape: Shape) -> str:
    """Return the type that a class declares for the disputed column."""
    return TYPES[shape.fields["v"]]


def shape_for(table: str, kind: str) -> Shape:
    """Return the class that declares a disputed table like that."""
    return next(shape for shape in DISPUTED if (shape.table, kind_of(shape)) == (table, kind))


def is_large(shape: Shape, values: Mapping[str, Any]) -> bool:
    """Return whether a record has an integer that a real would round."""
    return shape is WHOLE and abs(values["v"]) > EXACT_MAX


def unfit(source: Held, there: Kinds, rows: Rows) -> set[Address]:
    """Return the rows of a source that do not fit the tables of a database."""
    here = kinds(source.schema.columns)
    return {
        address
        for address in source.visible
        if (row := rows[address]).shape in DISPUTED
        and row.shape.table in there
        and not _fits(row.shape, row.values, here[row.shape.table], there[row.shape.table])
    }


def blocked(source: Held, there: Kinds, rows: Rows, transactions: Transactions) -> set[Address]:
    """Return the rows of a source that are blocked by a database, with those of their transactions."""
    return whole_transactions(unfit(source, there, rows), transactions) & {
        address for address, state in source.state.items() if state != PRUNED
    }


def _fits(shape: Shape, values: Mapping[str, Any], here: str, there: str) -> bool:
    if shape.table == "disputed":
        return here == there
    if there == "integer":
        return here == "integer"
    return there == "decimal" or here == "decimal" or not is_large(shape, values)


def whole_transactions(addresses: Iterable[Address], transactions: Transactions) -> set[Address]:
    """Return these addresses and all others of their transactions."""
    found: set[Address] = set()
    for address in addresses:
        (stream, first), (_, last) = transactions.get(address, (address, address))
        found |= {(stream, seq) for seq in range(first, last + 1)}
    return found


def check_kinds(before: Held, sources: Iterable[Held], after: Held, there: Kinds, rows: Rows) -> None:
    """Check that the disputed tables are as they were, or as some source declares them, or wide enough for all.

    Args:
        before: the database before a merge.
        sources: what was merged.
        after: the rows that it has now.
        there: the types of the disputed columns now.
        rows: all rows.
    """
    said, certain = [], []
    for source in sources:
        said.append(kinds(source.schema.columns))
        # a shard decides nothing if all of its rows were merged and pruned before
        if source.state.keys() - before.those(PRUNED):
            certain.append(said[-1])
    earlier = kinds(before.schema.columns)
    declared = {shape.table for address in after.those(CURRENT) if (shape := rows[address].shape) in DISPUTED}
    assert declared | earlier.keys() <= there.keys(), f"of {declared} and {earlier}, only {there} are there"
    for table, kind in there.items():
        possible = {one[table] for one in [earlier, *said] if table in one}
        if table == "disputed":
            assert kind in ({earlier[table]} if table in earlier else possible), f"{table} was {earlier}, is {there}"
        else:
            assert kind in possible, f"{table} was {earlier}, is {there}"
            needed = {one[table] for one in [earlier, *certain] if table in one}
            assert kind == "decimal" or "decimal" not in needed or not said, f"{table} is {there}"
            if kind == "integer" and REAL_KIND in needed:
                versions = [rows[address] for address in [*before.state, *after.state]]
                assert any(is_large(row.shape, row.values) for row in versions), f"{table} could be real"


REAL_KIND = kind_of(REAL)


def with_tables(schema: Schema, there: Kinds) -> Schema:
    """Return a schema whose disputed tables are like that, and no others."""
    found = schema.copy()
    found.columns = {place: kind for place, kind in found.columns.items() if place[0] not in DISPUTED_TABLES}
    for table, kind in there.items():
        found.columns |= {(table, "n"): "integer", (table, "v"): kind}
    return found


def refusal(
    shapes: Iterable[tuple[Shape, Mapping[str, Any]]],
    shard: Held | None,
    master: Held | None,
    fitting: set[Shape],
    rows: Rows,
) -> str:
    """Return why a writer must refuse records, or "".

    Args:
        shapes: the records, in order.
        shard: what the shard holds.
        master: what the master of its store holds.
        fitting: the classes of this handle that were found to fit the master; updated.
        rows: all rows.
    """
    here = kinds(shard.schema.columns) if shard else {}
    there = kinds(master.schema.columns) if master else {}
    has_large = any(is_large(rows[address].shape, rows[address].values) for address in (shard.state if shard else ()))
    for shape, values in shapes:
        if shape not in DISPUTED:
            continue
        table, kind = shape.table, kind_of(shape)
        known = here.get(table, kind)
        if table == "disputed" and known != kind:
            return f"{table} is {known} in the shard"
        if known == "integer" and kind == REAL_KIND and has_large:
            return f"{table} has large integers in the shard"
        if shape not in fitting and table == "disputed" and there.get(table, kind) != kind:
            return f"{table} is {there[table]} in the master"
        fitting.add(shape)
        here[table] = max(known, kind, key=("text", "integer", "real", "decimal").index)
        if here[table] == REAL_KIND and is_large(shape, values):
            return f"{table} is real in the shard"
        has_large = has_large or is_large(shape, values)
    return ""
