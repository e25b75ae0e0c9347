"""Drop a table of a master: delete its rows, and then the table with what is recorded of it.

This is how an operator decides for another declaration of a table than that which came first. The rows are pruned, so
they do not come back. A table goes together with its companions, and only once it is empty: rows that a merge brings
meanwhile are pruned as well.
"""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.master import agent_views, catalog, identity, tombstone_gc
from edgeshard.retention import rules, window
from edgeshard.retention.run import PruneRun
from edgeshard.sqlite import quote


def drop_table(run: PruneRun) -> None:
    """Delete all rows of the run's tables, and then the tables, unless the prune has to stop before."""
    rows_before = -1
    while run.progress.rows != rows_before:
        rows_before = run.progress.rows
        end_id = identity.next_id(run.connection)
        window.prune_windows(run, run.scope, rules.DROP_TABLE, 1, end_id, window.AllRows())
        if run.dry_run or run.is_stopping() or _drop_if_empty(run, run.scope.tables or ()):
            return


def _drop_if_empty(run: PruneRun, tables: tuple[str, ...]) -> bool:
    connection = run.connection
    with run.transaction():
        if any(sqlite.scalar(connection, f"SELECT 1 FROM main.{quote(name)} LIMIT 1") for name in tables):
            connection.execute("ROLLBACK")
            return False
        identity.increment_generation(connection)
        for name in tables:
            agent_views.drop(connection, name)
            catalog.drop_table(connection, name)
            tombstone_gc.forget(connection, name)
    return True
