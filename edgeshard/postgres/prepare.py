"""Make the tables of a chunk's rows fit, or reject these rows; and those that lack what the master knows.

A push does this for each chunk, a dry run for all rows at once (and changes nothing).
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.format.ranges import Range
from edgeshard.log_fields import fields
from edgeshard.master.rejected import Rejection
from edgeshard.postgres import plan, rejects, schema, schema_changes
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.schema import Table
from edgeshard.postgres.schema_changes import Recorded

logger = logging.getLogger("edgeshard.push")

#: Makes a table in PostgreSQL fit, or, for a dry run, records what that would take; returns the table with the columns
#: that its rows fill, or raises SchemaConflictError.
MakeFit = Callable[[Table], Table]


@attrs.frozen
class Prepared:
    """What rows need in PostgreSQL.

    Attributes:
        filled: the tables that have some of the rows, made fit.
        tables: these, and those that must exist with them.
        has_conflict: whether one of them cannot be made fit. Then plan again without what is rejected.
        rejected: the rows that cannot be pushed because of that.
    """

    filled: Sequence[Table]
    tables: Sequence[Table]
    has_conflict: bool = False
    rejected: Sequence[Rejection] = ()


def prepare_tables(
    master: MasterReader, pieces: Sequence[Piece], tables: Sequence[Table], make_fit: MakeFit
) -> Prepared:
    """Make each table fit that the rows of some pieces need.

    Args:
        master: the master.
        pieces: where the rows are.
        tables: all tables of the master.
        make_fit: makes a table fit.
    """
    filled = filled_tables(master, pieces, tables)
    fit: dict[str, Table] = {}
    for table in filled:
        for relative in schema.relatives(table, tables):
            try:
                fit.setdefault(relative.name, make_fit(relative))
            except SchemaConflictError as error:
                found = rejects.reject_table(master, pieces, table, error.cause)
                return Prepared(filled, filled, has_conflict=True, rejected=found)
    return Prepared([fit[table.name] for table in filled], list(fit.values()))


def update_tables(
    tables: Sequence[Table], recorded: Mapping[str, Recorded], make_fit: MakeFit, to_distribute: Set[str] = frozenset()
) -> None:
    """Make those tables fit that lack a rename, a wider type or a key that the master knows, or are not distributed.

    Without this they would lack it until the master has a new row of them, and what other masters push meanwhile would
    go by an older name.

    Args:
        tables: all tables of the master.
        recorded: what earlier pushes recorded of each table, by its name in PostgreSQL.
        make_fit: makes a table fit.
        to_distribute: the names in PostgreSQL of those that are to be distributed.
    """
    for table in tables:
        found = recorded.get(table.pg_name)
        if found is None or not (table.pg_name in to_distribute or schema_changes.is_behind(table, found)):
            continue
        try:
            for relative in schema.relatives(table, tables):
                make_fit(relative)
        except SchemaConflictError as error:
            logger.warning(
                "%s; rows of it that are still to push are rejected",
                error,
                extra=fields(state="rejected", error=error),
            )


def is_fit(name: str, tables: Sequence[Table], make_fit: MakeFit) -> bool:
    """Return whether a table, by its name in the master, can be made fit, or exists no more."""
    try:
        for table in tables:
            if table.name == name:
                for relative in schema.relatives(table, tables):
                    make_fit(relative)
    except SchemaConflictError:
        return False
    return True


def filled_tables(master: MasterReader, pieces: Iterable[Piece], tables: Iterable[Table]) -> list[Table]:
    """Return those tables that have rows in these pieces."""
    id_ranges = plan.id_ranges(pieces)
    return [table for table in tables if _has_rows(master, table, id_ranges)]


def _has_rows(master: MasterReader, table: Table, id_ranges: Sequence[Range]) -> bool:
    """Return whether a table has a row with one of these ids, without a query for each range that it has none in."""
    at = 0
    while at < len(id_ranges):
        first = master.first_id(table, Range(id_ranges[at].first, id_ranges[-1].last))
        if first is None:
            return False
        at = bisect.bisect_left(id_ranges, first, lo=at, key=lambda ids: ids.last)
        if id_ranges[at].first <= first:
            return True
    return False
