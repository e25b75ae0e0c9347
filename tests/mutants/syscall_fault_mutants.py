"""Faults in the handling of failing system calls, which the sweep over faults must find."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw

from edgeshard import sqlite
from edgeshard.sqlite import maintenance


@contextlib.contextmanager
def _ignore_failed_commits(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        with contextlib.suppress(apsw.Error):
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


#: Ways to break the package on purpose: (owner, attribute, replacement).
MUTANTS: dict[str, tuple[object, str, object]] = {
    "treat every failure as a refusal": (sqlite, "is_refused", lambda error: True),
    "ignore a failed commit": (sqlite, "immediate", _ignore_failed_commits),
    "publish an incomplete database": (maintenance, "truncate_wal", lambda connection: None),
    "do not recognise a full disk": (sqlite, "is_full", lambda error: False),
}
