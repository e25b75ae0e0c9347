"""Faults in the handling of failing system calls, which the sweep over faults must find."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw

from edgeshard import sqlite
from edgeshard.sqlite import maintenance


@contextlib.contextmanager
def _passing_over_failed_commits(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        with contextlib.suppress(apsw.Error):
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


#: The package broken on purpose: what is replaced, and by what.
MUTANTS: dict[str, tuple[object, str, object]] = {
    "every failure refuses": (sqlite, "is_refused", lambda error: True),
    "a failed commit is passed over": (sqlite, "immediate", _passing_over_failed_commits),
    "half a database is published": (maintenance, "truncate_wal", lambda connection: None),
    "a full disk is none": (sqlite, "is_full", lambda error: False),
}
