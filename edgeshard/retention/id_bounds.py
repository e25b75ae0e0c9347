"""Turn a rule into an id below which rows are deleted: a master gives ids in the order in which rows arrive."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.master import arrivals, catalog, extents, identity
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.retention.scope import Scope
from edgeshard.sqlite import Connection, quote


def first_id_since(connection: Connection, since_s: float) -> int:
    """Return the lowest id whose row may have arrived after a time in seconds since 1970, or else the next id."""
    first = arrivals.first_since(connection, since_s)
    return identity.next_id(connection) if first is None else first


def bound_by_age(connection: Connection, since_s: float) -> int:
    """Return the id below which all rows arrived before that time; it divides no transaction."""
    return extents.transaction_boundary(connection, first_id_since(connection, since_s))


def rows_unconfirmed(connection: Connection, clock: TrustedClock, older_than_s: float) -> int:
    """Return how many more rows, of all tables, would be too old if all jumps of the clock were confirmed."""
    if not clock.jumps:
        return 0
    now, then = (bound_by_age(connection, time_s - older_than_s) for time_s in (clock.trusted_s, clock.latest_s))
    return extents.row_count_below(connection, then) - extents.row_count_below(connection, now)


def bound_by_count(connection: Connection, scope: Scope, rows: int) -> int:
    """Return the id below which all but this many of the newest rows are; it divides no transaction."""
    if rows == 0:
        return extents.transaction_boundary(connection, identity.next_id(connection))
    current = {name.lower() for name in catalog.current_tables(connection)}
    names = scope.tables or [name for name in catalog.record_tables(connection) if name.lower() not in current]
    # ordered by id, so that SQLite merges the tables' own orders, and collects nothing
    ids = " UNION ALL ".join(f"SELECT _id FROM {quote(name)}" for name in names)
    found = sqlite.scalar(connection, f"{ids} ORDER BY 1 DESC LIMIT 1 OFFSET ?", (rows - 1,))
    return 1 if found is None else extents.transaction_boundary(connection, int(found))
