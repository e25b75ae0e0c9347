"""Run a user's own statements on the master after rows came or went: ``refresh.sql`` in the store's folder.

Triggers that users made do not fire while we write: one that fails, or that changes our rows, would stop merges or
break the protocol. So what is derived from the rows, such as a full-text index, is refreshed afterwards, in a
transaction of its own, on a connection that may not touch our tables. If that fails, the merge is done all the same,
and reports it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import paths
from edgeshard.files.os_errors import explain_os_error
from edgeshard.log_fields import fields
from edgeshard.master import catalog, database

logger = logging.getLogger("edgeshard.merge")

_ACTION = "run refresh.sql on"


def exists(root: Path) -> bool:
    """Return whether the store has statements to run."""
    return paths.refresh(root).exists()


def run(root: Path, *, last_error: str = "") -> str:
    """Run the statements of the store, if it has some; return why that failed, or "".

    Args:
        root: the store.
        last_error: what it returned last; the same is not logged again.
    """
    try:
        sql = _read(root)
        if sql.strip():
            _run(paths.master(root), sql)
    except EdgeshardError as error:
        if str(error) != last_error:
            logger.warning("what is derived from the rows was not refreshed: %s", error, extra=fields(error=error))
        return str(error)
    return ""


def _read(root: Path) -> str:
    path = paths.refresh(root)
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise explain_os_error(error if isinstance(error, OSError) else OSError(str(error)), "read", path) from error


def _run(path: Path, sql: str) -> None:
    connection = database.open_master(path, writable=True)
    try:
        with sqlite.translate_errors(_ACTION, str(path)):
            own_tables = catalog.record_tables(connection)
            with sqlite.immediate(connection):
                sqlite.protect_tables(connection, own_tables)
                try:
                    connection.execute(sql).fetchall()
                except sqlite.QUERY_MISTAKES as error:
                    raise sqlite.explain(error, _ACTION, str(path)) from error
                finally:
                    connection.authorizer = None
    finally:
        connection.close()
