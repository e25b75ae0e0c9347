"""Make the tables of a chunk's rows fit, or block their streams.

A push does this for each chunk, a dry run for all rows at once (and changes nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.postgres import plan, rejects, schema
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.schema import Table
from edgeshard.reports import Rejected


@attrs.frozen
class Prepared:
    """What rows need in PostgreSQL.

    Attributes:
        filled: the tables that have some of the rows.
        tables: these, and those that must exist with them.
        has_conflict: whether one of them cannot be made fit. Then plan again without what is blocked.
        blocked: the streams that cannot be pushed because of that.
    """

    filled: Sequence[Table]
    tables: Sequence[Table]
    has_conflict: bool = False
    blocked: Sequence[Rejected] = ()


def prepare_tables(
    master: MasterReader, pieces: Sequence[Piece], tables: Sequence[Table], make_fit: Callable[[Table], None]
) -> Prepared:
    """Make each table fit that the rows of some pieces need.

    Args:
        master: the master.
        pieces: where the rows are.
        tables: all tables of the master.
        make_fit: makes a table in PostgreSQL fit, or, for a dry run, records what that would take; it raises
            SchemaConflictError if the table cannot be made fit.
    """
    filled = filled_tables(master, pieces, tables)
    needed = list(filled)
    for table in filled:
        for relative in schema.relatives(table, tables):
            try:
                make_fit(relative)
            except SchemaConflictError as error:
                blocked = rejects.block_table(master, pieces, table, error.cause)
                return Prepared(filled, needed, has_conflict=True, blocked=blocked)
            if relative not in needed:
                needed.append(relative)
    return Prepared(filled, needed)


def filled_tables(master: MasterReader, pieces: Sequence[Piece], tables: Sequence[Table]) -> list[Table]:
    """Return those tables that have rows in these pieces."""
    id_ranges = plan.id_ranges(pieces)
    return [table for table in tables if any(master.first_id(table, ids) for ids in id_ranges)]
