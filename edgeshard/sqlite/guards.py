"""Protect a connection from what it opens: hardened settings, limits on steps, read-only SQL.

Databases may be damaged or hostile; see https://sqlite.org/security.html, "Defense Against The Dark Arts".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import apsw
import attrs

from edgeshard import format
from edgeshard.files import fingerprint, paths

# SQLite's own limits on the columns of a table and the depth of an expression stay as they are: a master that exceeds
# lower ones, by a table or a view that its users made, could not be opened any more.
_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: format.ROW_BYTES_MAX,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
}

# A step is an instruction of SQLite's virtual machine.

#: Steps between two chances for Python to handle a signal: about a millisecond.
_STEPS_BETWEEN_SIGNALS = 100_000

#: Steps that are enough to read a schema: one of 10,000 tables takes 70,000 (measured). A hostile one of 300,000
#: tables would take two minutes.
SCHEMA_STEPS = 200_000

#: Steps between two checks of how many were taken.
_STEPS_BETWEEN_CHECKS = 10_000

#: A WAL that may not become longer than this, in bytes, is checked after each few rows.
_SHORT_WAL_BYTES, _STEPS_BETWEEN_CHECKS_OF_SHORT_WAL = 4 << 20, 300

# What SQL that only reads asks the authorizer for (https://sqlite.org/c3ref/c_alter_table.html).
_READING = frozenset((apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE))

_WRITING = frozenset((apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE))

#: Pragmas that change nothing. FTS needs the first two; the others describe a database.
_READING_PRAGMAS = frozenset(
    ("data_version", "page_size", "table_list", "table_info", "table_xinfo", "index_list", "index_info", "quick_check")
)


def harden(connection: apsw.Connection) -> None:
    """Protect a connection from damaged and hostile files."""
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.pragma("cell_size_check", True)
    connection.pragma("mmap_size", 0)


def restrict(connection: apsw.Connection) -> None:
    """Restrict a connection that writes to what we do ourselves.

    A connection that only reads the master is not restricted: its users may have views and SQL of their own.

    SQLite is also told to plan each statement once. Otherwise it prepares a statement anew whenever another value is
    bound to a parameter that limits an indexed column ("first <= ?"), because statistics might favour another plan for
    that value (https://sqlite.org/c3ref/c_dbconfig_defensive.html, SQLITE_DBCONFIG_ENABLE_QPSG). A look-up in
    `_edgeshard_ranges` took five times as long (measured).
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.pragma("ignore_check_constraints", True)  # we make none, and those of others are arbitrary expressions
    for limit, value in _LIMITS.items():
        connection.limit(limit, value)


def allow_views(connection: apsw.Connection) -> None:
    """Let a restricted connection read views, because it only reads from now on."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 1)


@contextlib.contextmanager
def limit_steps_in_block(
    connection: apsw.Connection, steps: int, ensure_sound: Callable[[], None] | None = None
) -> Iterator[None]:
    """Interrupt what the connection does in the block once it has taken `steps` steps of SQLite's virtual machine.

    Steps rather than seconds: a slow device gets as far as a fast one. Interrupting a write rolls back the whole
    transaction.

    Args:
        connection: the connection.
        steps: how many steps it may take.
        ensure_sound: called once it has taken them. It raises, and this is raised in place of `apsw.InterruptError`; or
            it returns, and the connection may take as many again, and twice as many each further time. It must not use
            the connection.
    """
    taken, allowed, handler = 0, steps, object()

    def check() -> bool:
        nonlocal taken, allowed
        taken += _STEPS_BETWEEN_CHECKS
        if taken <= allowed:
            return False
        if ensure_sound is None:
            return True
        ensure_sound()
        allowed += taken
        return False

    connection.set_progress_handler(check, _STEPS_BETWEEN_CHECKS, id=handler)
    try:
        yield
    finally:
        connection.set_progress_handler(None, id=handler)


@contextlib.contextmanager
def limit_wal_in_block(connection: apsw.Connection, max_bytes: int) -> Iterator[None]:
    """Roll back a transaction of the block if the WAL becomes longer than `max_bytes`, as if the disk were full.

    SQLite writes pages to the WAL before the commit once its cache is full. So the WAL may exceed the limit by as much
    as the cache has, and by what some rows change between two checks.
    """
    path, handler = paths.wal(connection.filename), object()

    def check() -> bool:
        if fingerprint.size(path) > max_bytes:
            raise apsw.FullError("the transaction writes too much to the WAL")
        return False

    steps = _STEPS_BETWEEN_CHECKS if max_bytes > _SHORT_WAL_BYTES else _STEPS_BETWEEN_CHECKS_OF_SHORT_WAL
    connection.set_progress_handler(check, steps, id=handler)
    try:
        yield
    finally:
        connection.set_progress_handler(None, id=handler)


@attrs.define
class StepBudget:
    """How many more times SQLite may call this progress handler before it interrupts the statement."""

    checks: int = 0

    def allow(self, steps: int) -> None:
        """Allow that many steps of SQLite's virtual machine from now on."""
        self.checks = steps // _STEPS_BETWEEN_SIGNALS

    def __call__(self) -> bool:
        """Return whether all steps are used up; SQLite then interrupts the statement."""
        self.checks -= 1
        return self.checks < 0


def limit_steps(connection: apsw.Connection) -> StepBudget:
    """Interrupt statements that take more steps than the returned budget allows; Ctrl-C also ends them."""
    budget = StepBudget()
    connection.set_progress_handler(budget, _STEPS_BETWEEN_SIGNALS)
    return budget


def allow_interrupt(connection: apsw.Connection) -> None:
    """Let Ctrl-C end a long statement. Without this, Python handles signals only once SQLite returns."""
    connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)


def protect_tables(connection: apsw.Connection, tables: Iterable[str]) -> None:
    """Let a user's SQL and triggers change anything in a master but our tables, and open no other file.

    Args:
        connection: the connection.
        tables: the record tables; the format's own are protected as well.
    """
    protected = {name.lower() for name in (*tables, *format.DDL)}
    refused = {
        apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH, apsw.SQLITE_PRAGMA, apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT,
        apsw.SQLITE_ALTER_TABLE,
    }  # fmt: skip

    def authorize(action: int, first: str | None, *_: str | None) -> int:
        changes = action in _WRITING or action in (apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_INDEX)
        if action in refused and not (action == apsw.SQLITE_PRAGMA and first in _READING_PRAGMAS):
            return apsw.SQLITE_DENY
        return apsw.SQLITE_DENY if changes and (first or "").lower() in protected else apsw.SQLITE_OK

    connection.authorizer = authorize
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 1)


def allow_only_reading(connection: apsw.Connection, schemas: Iterable[str]) -> None:
    """Refuse, when it is prepared, SQL that could change anything, or open a file that is not attached already.

    Args:
        connection: the connection.
        schemas: the attached databases, each read-only. Their virtual tables may prepare writes (R-tree does). The
            authorizer permits these, and the files refuse them.
    """
    read_only = frozenset(name.lower() for name in schemas)

    def authorize(action: int, first: str | None, _: str | None, schema: str | None, __: str | None) -> int:
        if action in _READING or (action == apsw.SQLITE_PRAGMA and first in _READING_PRAGMAS):
            return apsw.SQLITE_OK
        if action in _WRITING and (schema or "").lower() in read_only:
            return apsw.SQLITE_OK
        return apsw.SQLITE_DENY

    connection.authorizer = authorize
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 1)  # a view can do no more than the SQL that reads it
    # a user's SQL is planned for its values: then SQLite uses what ANALYZE found, and an index for "LIKE ?"
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 0)
