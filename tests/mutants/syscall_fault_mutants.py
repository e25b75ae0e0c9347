"""Faults in the handling of failing system calls, which the sweep over faults must find."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from edgeshard import sqlite
from edgeshard.inspect import verify
from edgeshard.master import damage
from edgeshard.shard.quota import Quota
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


def _let_go_or_fail(quota: Quota) -> None:
    quota._first_pages = -1
    quota._record.take(quota._limits.total_bytes)


def _record_what_was_found_once(path: Path, findings: Sequence[str], *, deep: bool) -> None:
    damage.record(path, findings, is_deep=deep)


#: Ways to break the package on purpose: (owner, attribute, replacement).
MUTANTS: dict[str, tuple[object, str, object]] = {
    "treat every failure as a refusal": (sqlite, "is_refused", lambda error: True),
    "ignore a failed commit": (sqlite, "immediate", _ignore_failed_commits),
    "publish an incomplete database": (maintenance, "truncate_wal", lambda connection: None),
    "do not recognise a full disk": (sqlite, "is_full", lambda error: False),
    "fail after a commit": (Quota, "let_go", _let_go_or_fail),
    "record damage that was found once": (verify, "_record", _record_what_was_found_once),
}
