"""The one door to apsw: opening, settings, transactions, and what its errors mean.

No other module imports apsw. All decisions are taken by exception class or result code, never by message text.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import attrs

from edgeshard import format
from edgeshard.errors import (
    AccessError,
    DamagedError,
    DiskFullError,
    EdgeshardError,
    FormatError,
    StorageBusyError,
    StorageError,
    StorageIOError,
)
from edgeshard.files import fingerprint
from edgeshard.files.atomic_file import publish
from edgeshard.files.os_errors import explain_os_error

Connection = apsw.Connection

DatabaseFailure = apsw.Error

#: A row that cannot be stored as it is.
ROW_REFUSED = (apsw.ConstraintError, apsw.TooBigError)

#: Somebody else holds a lock; nothing was done.
BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)

#: It took more memory, or more steps (see `bounded`), than there are for it.
EXHAUSTED = (apsw.NoMemError, apsw.InterruptError, MemoryError)

#: What reading a database that a stranger wrote, or that is damaged, may raise. Not: no room.
DATA_ERRORS = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.IOError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.SQLError,
    apsw.SchemaChangeError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.AuthError,
    *BUSY,
    *EXHAUSTED,
    # what Python makes of text that is no UTF-8, of values of other types, and of numbers that are too large
    TypeError,
    ValueError,
    OverflowError,
)

# https://sqlite.org/wal.html#walresetbug: several connections writing and checkpointing one WAL database, which is
# what we do all day, can corrupt it before 3.51.3, and 3.52 was withdrawn.
if apsw.SQLITE_VERSION_NUMBER < 3051003 or 3052000 <= apsw.SQLITE_VERSION_NUMBER < 3053000:
    raise ImportError(f"edgeshard needs SQLite 3.51.3 or later and not 3.52, apsw brings {apsw.sqlite_lib_version()}")

#: How long a statement waits for another connection's write lock before it gives up, in seconds.
BUSY_TIMEOUT_S = 60.0

# SQLite's limits for databases that a stranger may have written: https://sqlite.org/security.html
_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: format.ROW_BYTES_MAX,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    apsw.SQLITE_LIMIT_COLUMN: 500,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 50,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
}

_MEANING: list[tuple[type[apsw.Error], type[StorageError], str]] = [
    (apsw.BusyError, StorageBusyError, "another process holds it locked; try again, or find out who keeps it open"),
    (apsw.LockedError, StorageBusyError, "another statement holds it locked"),
    (apsw.ProtocolError, StorageBusyError, "another process keeps its log locked"),
    (apsw.FullError, DiskFullError, "the disk is full; nothing of this write was kept, make room and write it again"),
    (apsw.ReadOnlyError, AccessError, "it may only be read; check the permissions of the file and its folder"),
    (apsw.PermissionsError, AccessError, "permission denied"),
    (apsw.AuthError, AccessError, "permission denied"),
    (apsw.CorruptError, DamagedError, "the database is damaged"),
    (apsw.NotADBError, DamagedError, "it is not a SQLite database"),
    (apsw.IOError, StorageIOError, "the file system reported an error"),
    (apsw.CantOpenError, StorageIOError, "it cannot be opened"),
    (apsw.InterruptError, DamagedError, "reading it takes longer than reading any sound database of its size"),
    (apsw.NoMemError, StorageError, "there is not enough memory to read it"),
    (apsw.TooBigError, StorageError, f"it has a row of more than {format.ROW_BYTES_MAX:,} bytes"),
]

# After these the statement was refused before anything of it reached the disk: the row certainly is not there.
_REFUSED = (
    *BUSY,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.RangeError,
    apsw.SQLError,
    apsw.BindingsError,
)

NO_SUCH_SAVEPOINT = apsw.SQLError

#: The fault of the SQL or of its bindings.
QUERY_MISTAKES = (
    apsw.SQLError,
    apsw.BindingsError,
    apsw.ReadOnlyError,
    apsw.AuthError,
    KeyError,  # a mapping of parameters that lacks one
    TypeError,
    ValueError,
)

#: Pages that a backup copies at a time: 4 MB of a master. Less costs more steps and wins nothing (measured).
_BACKUP_PAGES = 1_000

#: Steps of SQLite's virtual machine, about a millisecond, between two looks for a signal.
_STEPS_BETWEEN_SIGNALS = 100_000

#: Steps of SQLite's virtual machine in which the texts of a schema can be read: 10,000 tables need 70,000 (measured),
#: and 300,000 that a stranger made need two minutes.
_SCHEMA_STEPS = 200_000

#: Steps in which what a database of no bytes holds can be read, and how many more for each byte. A row takes about ten,
#: and three for each column where it is compared; a column has a byte at least. Pages that point to one another in
#: circles would keep a query busy for ever.
_READING_STEPS = 20_000_000

_READING_STEPS_A_BYTE = 8

#: Steps between two looks at how many have been taken.
_STEPS_BETWEEN_LOOKS = 10_000

#: What a copy reads is read once, in order; a hundred caches of SQLite's default size would be 200 MB.
_ATTACHED_CACHE_KIB = 200

# What SQL that only reads asks leave for (https://sqlite.org/c3ref/c_alter_table.html).
_READING = frozenset((apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE))

_WRITING = frozenset((apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE))

#: They change nothing; FTS needs the first two, and the others say what a database has.
_READING_PRAGMAS = frozenset(
    ("data_version", "page_size", "table_list", "table_info", "table_xinfo", "index_list", "index_info", "quick_check")
)

#: Where in a database's header its versions for writing and reading are, and those of a WAL database.
_VERSIONS_AT, _WAL_VERSIONS = 18, b"\2\2"

#: In a log, before each page (https://sqlite.org/fileformat2.html, 4.1).
_FRAME_HEADER_BYTES = 24

#: What PRAGMA auto_vacuum calls it where pages are given back when that is asked for.
_INCREMENTAL = 2

Bindings = Sequence[Any] | Mapping[str, Any]


def is_refused(error: apsw.Error) -> bool:
    """Whether `error` proves that nothing of the statement was committed."""
    return isinstance(error, _REFUSED)


def is_full(error: BaseException) -> bool:
    """Whether `error` is a disk without room: the commit frame was not written, but the tail of the log is unknown."""
    return isinstance(error, apsw.FullError)


def is_bad_data(error: apsw.Error) -> bool:
    """Whether `error` is due to what was being copied: our own ids are fresh, and our own SQL fits what was checked."""
    kinds = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.SQLError, apsw.SchemaChangeError)
    return isinstance(error, kinds)


def is_exhaustion(error: Exception) -> bool:
    """Whether `error` says that reading took more memory or more steps than there are for it."""
    return isinstance(error, EXHAUSTED)


def is_damage(error: Exception) -> bool:
    """Whether `error` says that a file is damaged, or no database: it will say so until the file changes."""
    return isinstance(error, (apsw.CorruptError, apsw.NotADBError, apsw.InterruptError))


def spoils_transaction(error: Exception) -> bool:
    """Whether, after `error`, the connection writes nothing more before its transaction ends.

    SQLite then takes no chances: after SQLITE_CORRUPT, in whichever database, each write of the open transaction to
    any database fails with SQLITE_CORRUPT as well (https://sqlite.org/src, SQLITE_CorruptRdOnly).
    """
    return isinstance(error, apsw.CorruptError)


def is_write(error: Exception) -> bool:
    """Whether `error` says that a statement wanted to write where only reading is allowed."""
    return isinstance(error, apsw.ReadOnlyError)


def is_bad_schema(error: Exception) -> bool:
    """Whether `error`, of SQL of ours, says that the tables or their texts are not as we made them."""
    return isinstance(error, (apsw.SQLError, apsw.SchemaChangeError, TypeError, ValueError, OverflowError))


def is_sound(connection: Connection, schema: str) -> bool:
    """Whether SQLite finds nothing wrong with an attached database."""
    try:
        return connection.execute(f"PRAGMA {quote(schema)}.quick_check(1)").fetchall() == [("ok",)]
    except apsw.Error:
        return False


def explain(error: Exception, action: str, path: str) -> EdgeshardError:
    """Our error for one of apsw's, or for one that strange values raised."""
    if isinstance(error, MemoryError):
        return StorageError(action, path, "there is not enough memory to read it")
    if not isinstance(error, apsw.Error):
        return DamagedError(action, path, f"it holds values that cannot be: {error}")
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK:
        # a snapshot that was put back is no WAL database before its first merge
        cause = "its last writer was interrupted, and left a journal beside it that only a writer can undo; merge first"
        return StorageBusyError(action, path, cause)
    for kind, ours, cause in _MEANING:
        if isinstance(error, kind):
            if kind is apsw.CantOpenError and not _accessible(path):
                return AccessError(action, path, "permission denied, or a read-only medium")
            return ours(action, path, f"{cause} ({error})")
    return StorageError(action, path, f"{type(error).__name__}: {error}")


def _accessible(path: str) -> bool:
    folder = os.path.dirname(path)
    return os.access(folder, os.W_OK | os.X_OK) and (not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK))


@contextlib.contextmanager
def translate_errors(action: str, path: str) -> Iterator[None]:
    """Raise our errors in place of apsw's and the file system's."""
    try:
        yield
    except apsw.Error as error:
        raise explain(error, action, path) from error
    except OSError as error:
        raise explain_os_error(error, action, path) from error


def connect(path: str, *, writable: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Connection:
    """Open an existing database, hardened against what a stranger may have put in it.

    Raises:
        apsw.Error: it cannot be opened; callers wrap this in `explained`.
    """
    mode = apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY
    # URI lets ATTACH take "?mode=ro"; an absolute path is never mistaken for one
    connection = Connection(path, flags=mode | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        set_busy_timeout(connection, busy_timeout_s)
        _harden(connection)
        if writable:
            _restrict(connection)
    except BaseException:
        connection.close()  # the error's traceback would keep it open
        raise
    return connection


def _harden(connection: Connection) -> None:
    """Against files of strangers, and damaged ones."""
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.pragma("cell_size_check", True)
    connection.pragma("mmap_size", 0)


def _restrict(connection: Connection) -> None:
    """To what we do ourselves; a connection that only reads the master takes its user's own views and SQL."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
    connection.pragma("ignore_check_constraints", True)  # we make none; a stranger's are expressions
    for limit, value in _LIMITS.items():
        connection.limit(limit, value)


def set_busy_timeout(connection: Connection, timeout_s: float) -> None:
    """How long its statements wait for other connections' locks from now on, in seconds."""
    connection.set_busy_handler(_busy_handler(timeout_s))


def _busy_handler(timeout_s: float) -> Any:
    """A busy handler that sleeps less than SQLite's own, which waits up to 100 ms at a time."""
    deadline = 0.0

    def wait(calls: int) -> bool:
        nonlocal deadline
        now = time.monotonic()
        if calls == 0:
            deadline = now + timeout_s
        time.sleep(0.0002 if calls < 50 else 0.002)
        return now < deadline

    return wait


def set_synchronous(connection: Connection, level: str) -> None:
    """NORMAL: commits survive a kill. FULL: each commit survives a power cut once it returns."""
    connection.pragma("synchronous", level)


def ensure_wal(connection: Connection, path: str) -> None:
    """Make the database a WAL database, unless it is one.

    Raises:
        StorageIOError: its file system cannot have one.
    """
    mode = connection.pragma("journal_mode", "WAL")
    if mode != "wal":
        cause = f"it has journal_mode {mode} and cannot be changed to WAL; the file system lacks shared memory"
        raise StorageIOError("open database", path, cause)


def wal_pages_written(connection: Connection) -> int:
    """How many pages the connection gave its log since it was opened, written in the end or not (0.1 µs)."""
    pages: int = connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
    return pages


def wal_bytes_written(connection: Connection) -> int:
    """What the connection has written to its database's log since it was opened, in bytes."""
    pages = wal_pages_written(connection)
    return pages * (_page_bytes(connection) + _FRAME_HEADER_BYTES) if pages else 0


def _page_bytes(connection: Connection) -> int:
    return int(connection.pragma("page_size"))


def attach(connection: Connection, path: str, schema: str, cache_kib: int = _ATTACHED_CACHE_KIB) -> None:
    """Attach `path` read-only. Only so does BEGIN IMMEDIATE not lock it for writing."""
    with limit_steps_in_block(connection, _SCHEMA_STEPS):  # this reads the schema
        connection.execute("ATTACH ? AS " + quote(schema), (Path(path).as_uri() + "?mode=ro",))
    try:
        connection.pragma("cache_size", -cache_kib, schema=schema)
    except apsw.Error:
        detach(connection, schema)
        raise


@contextlib.contextmanager
def limit_steps_in_block(connection: Connection, steps: int) -> Iterator[None]:
    """Interrupt what the connection reads in the block once it has taken so many steps of SQLite's virtual machine.

    Steps and not seconds: a slow device gets as far as a fast one. Write nothing in the block: a write that is
    interrupted undoes the whole transaction.
    """
    looks = itertools.count(1)
    handler = object()
    last = max(1, steps // _STEPS_BETWEEN_LOOKS)
    connection.set_progress_handler(lambda: next(looks) > last, _STEPS_BETWEEN_LOOKS, id=handler)
    try:
        yield
    finally:
        connection.set_progress_handler(None, id=handler)


def reading_steps(connection: Connection, schema: str) -> int:
    """In how many steps whatever we ask of a sound database of its size is read."""
    pages: int = connection.pragma("page_count", schema=schema)
    page_bytes: int = connection.pragma("page_size", schema=schema)
    return _READING_STEPS + _READING_STEPS_A_BYTE * pages * page_bytes


@attrs.define
class StepBudget:
    """How much a connection may still do, in looks that SQLite takes at it on its way."""

    looks: int = 0

    def allow(self, steps: int) -> None:
        """Let it take so many steps of SQLite's virtual machine from now on."""
        self.looks = steps // _STEPS_BETWEEN_SIGNALS

    def __call__(self) -> bool:
        """Whether it has taken them all: what SQLite asks at each look."""
        self.looks -= 1
        return self.looks < 0


def limit_steps(connection: Connection) -> StepBudget:
    """Interrupt what takes more steps than it is allowed, and let Ctrl-C end it before."""
    budget = StepBudget()
    connection.set_progress_handler(budget, _STEPS_BETWEEN_SIGNALS)
    return budget


def allow_only_reading(connection: Connection, schemas: Iterable[str]) -> None:
    """Refuse, as it is prepared, SQL that could change anything, or reach a file that is not attached already.

    Args:
        schemas: what is attached, each read-only. Their virtual tables may prepare writes (R-tree does): the files
            refuse those, and are what says so.
    """
    read_only = frozenset(name.lower() for name in schemas)

    def judge(action: int, first: str | None, _: str | None, schema: str | None, __: str | None) -> int:
        if action in _READING or (action == apsw.SQLITE_PRAGMA and first in _READING_PRAGMAS):
            return apsw.SQLITE_OK
        if action in _WRITING and (schema or "").lower() in read_only:
            return apsw.SQLITE_OK
        return apsw.SQLITE_DENY

    connection.authorizer = judge
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 1)  # they can do no more than the SQL that asks them


def is_mistake(error: Exception) -> bool:
    """Whether `error` is the fault of the SQL or of its bindings."""
    return isinstance(error, QUERY_MISTAKES)


def is_forbidden(error: Exception) -> bool:
    """Whether `error` says that a statement wanted more than to read."""
    return isinstance(error, (apsw.AuthError, apsw.ReadOnlyError))


def is_wal(connection: Connection, schema: str) -> bool:
    """Whether an attached database is one that has a log."""
    return bool(connection.pragma("journal_mode", schema=schema) == "wal")


def has_hot_journal(error: Exception) -> bool:
    """Whether `error` says that a transaction was interrupted which only a writer can undo."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK


def needs_files_beside(error: Exception) -> bool:
    """Whether `error`, of a file that can be read, says that SQLite can make no files beside it."""
    return isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError))


def detach(connection: Connection, schema: str) -> None:
    """Detach what `attach` attached."""
    connection.execute("DETACH " + quote(schema))


def quote(name: str) -> str:
    """An identifier for SQL. (apsw.ext has the same, and costs 80 ms to import.)"""
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def immediate(connection: Connection) -> Iterator[None]:
    """One write transaction: committed at the end of the block, rolled back where it raises.

    A block that finds nothing to do may roll it back itself.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def read_snapshot(connection: Connection) -> Iterator[None]:
    """One read transaction: everything in the block sees the same snapshot."""
    connection.execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def scalar(connection: Connection, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
    """The first column of the first row, or None where there is none."""
    row = connection.execute(sql, bindings).fetchone()
    return None if row is None else row[0]


def has_table(connection: Connection, name: str) -> bool:
    """Whether the connection's own database has a table of this name."""
    return scalar(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (name,)) is not None


def fetch(connection: Connection, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows, of values of whatever types they have."""
    return connection.execute(sql, bindings).fetchall()


def fetch_typed(
    connection: Connection, path: str, types: tuple[type | None, ...], sql: str, bindings: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]]:
    """All rows of a database that a stranger may have written.

    Args:
        path: the database, for the error.
        types: what each column must hold; None: nothing is asked.

    Raises:
        DamagedError: a value is of another type.
    """
    rows = fetch(connection, sql, bindings)
    for row in rows:
        for value, expected in zip(row, types, strict=True):
            if expected is not None and type(value) is not expected:
                cause = f"its own tables hold a {type(value).__name__} where a {expected.__name__} belongs"
                raise DamagedError("read database", path, cause)
    return rows


def select(connection: Connection, sql: str, params: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The names of the columns of a query, and its rows. Where there are no rows, there are no names."""
    cursor = connection.execute(sql, params)
    try:
        names = tuple(item[0] for item in cursor.get_description())
    except apsw.ExecutionCompleteError:
        return (), []
    return names, cursor.fetchall()


@attrs.frozen
class Statement:
    """What SQLite says of SQL without running it.

    Attributes:
        columns: the names of its columns; none where it returns no rows.
        parameters: their names, or None for each that is a plain ``?``.
        is_one: whether it is one statement, and not none, or several.
    """

    columns: tuple[str, ...]
    parameters: tuple[str | None, ...]
    is_one: bool

    @property
    def has_names(self) -> bool:
        """Whether its parameters are bound by name (``:name``), not by place (``?``, ``?1``, or some of each)."""
        return bool(self.parameters) and all(name and not name.isdigit() for name in self.parameters)


def describe(connection: Connection, sql: str) -> Statement:
    """Prepare SQL, and run nothing of it."""
    info = _ext().query_info(connection, sql)
    rest = info.query_remaining
    is_one = info.has_vdbe and not (rest and _has_statement(connection, rest))
    return Statement(tuple(name for name, _ in info.description), tuple(info.bindings_names), is_one)


def _has_statement(connection: Connection, sql: str) -> bool:
    try:
        return bool(_ext().query_info(connection, sql).has_vdbe)
    except apsw.SQLError:
        return True  # one that is wrong


def draw_table(connection: Connection, sql: str, bindings: Bindings, *, colour: bool, width: int, unicode: bool) -> str:
    """The rows of a query as a table in lines of text, of `width` characters at the most."""
    table: str = _ext().format_query_table(
        connection, sql, bindings, colour=colour, text_width=width, use_unicode=unicode, binary=bytes.hex
    )
    return table


def draw_rows(
    names: Sequence[str], rows: Sequence[Sequence[str | int]], *, colour: bool, width: int, unicode: bool
) -> str:
    """Draw rows as a table in lines of text, of at most `width` characters.

    Args:
        names: the names of the columns.
        rows: a text or a whole number for each column.
        colour: whether to add the colours of a terminal.
        width: how many characters a line may have.
        unicode: whether to draw with Unicode's box characters, or with ASCII.
    """
    columns = ", ".join(f"value ->> {n} AS {quote(name)}" for n, name in enumerate(names))
    with contextlib.closing(open_in_memory("")) as connection:
        sql, bindings = f"SELECT {columns} FROM json_each(?)", (json.dumps(rows),)
        return draw_table(connection, sql, bindings, colour=colour, width=width, unicode=unicode)


def shell_class() -> Any:
    """The SQL shell of apsw, to be subclassed."""
    import apsw.shell  # 100 ms, which no other command should wait for

    return apsw.shell.Shell


def _ext() -> Any:
    import apsw.ext  # 65 ms, of which opening a shard or a merge needs nothing

    return apsw.ext


def allow_interrupt(connection: Connection) -> None:
    """Let Ctrl-C end a long statement. SQLite does not return to Python, which handles signals, before it is done."""
    connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)


def back_up(connection: Connection, path: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy one snapshot of a database into an empty file, as a database that needs no file beside it (no WAL).

    Args:
        connection: the database; others may go on writing it.
        path: the file, of zero length. Nothing of it is durable yet.
        progress: called with (pages copied, pages to copy) as it goes on.
    """
    copy = Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        # who is interrupted begins anew: neither a journal nor fsyncs on the way are of use
        copy.pragma("journal_mode", "OFF")
        copy.pragma("synchronous", "OFF")
        with read_snapshot(connection):
            # without a snapshot that is held open, each commit of somebody else makes the backup start over, and
            # beside a merger it never ends
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            with copy.backup("main", connection, "main") as backup:
                while not backup.step(_BACKUP_PAGES):
                    if progress is not None:
                        progress(backup.page_count - backup.remaining, backup.page_count)
                pages = backup.page_count
        copy.pragma("journal_mode", "DELETE")
        if progress is not None:
            progress(pages, pages)
    finally:
        copy.close()


def disable_checkpoint_on_close(connection: Connection) -> None:
    """Let the connection close without SQLite's exclusive lock, which readers without a busy timeout fail on.

    The log then stays beside the database; `shrink_log` empties it.
    """
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def begin_exclusive(connection: Connection) -> None:
    """Begin a transaction beside which nobody else can so much as connect; a BUSY error where somebody is connected."""
    connection.pragma("locking_mode", "EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")


def truncate_wal(connection: Connection) -> None:
    """Copy the whole log into the database and empty it; a BUSY error where somebody is in the way."""
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)


def shrink_wal(connection: Connection) -> None:
    """Copy the whole log into the database and empty it, if nobody reads at this moment."""
    checkpoint(connection)
    connection.set_busy_handler(None)
    with contextlib.suppress(*BUSY):
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)


def checkpoint(connection: Connection, schema: str = "main") -> None:
    """Copy what the log holds into the database as far as nobody is in the way (PASSIVE never makes anyone wait)."""
    connection.execute(f"SELECT 1 FROM {quote(schema)}.sqlite_schema LIMIT 1").fetchall()  # an unread one does nothing
    with contextlib.suppress(*BUSY):  # another connection does this very work
        connection.wal_checkpoint(schema, apsw.SQLITE_CHECKPOINT_PASSIVE)


def checkpoint_in_hook(connection: Connection) -> None:
    """Copy what the log holds into the database, as far as nobody is in the way: from within a hook.

    Raises:
        apsw.BusyError: another connection does this very work.
    """
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)


def restart_wal(connection: Connection) -> None:
    """Copy the whole log into the database, and wait until the next commit can begin it from its start.

    Raises:
        apsw.BusyError: somebody reads it for longer than the connection waits.
    """
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)


def connect_in_place(path: str, *, busy_timeout_s: float) -> Connection | None:
    """Open for writing the database that has this name, which nobody can then remove; None where that just happened.

    A file that was removed after it was opened, and before its first lock, would be read and written beside the log
    of the next file of this name, and closing it would delete that log.

    Raises:
        apsw.Error, OSError: it cannot be opened; callers wrap this in `explained`.
    """
    before = fingerprint.identity(path)
    connection = connect(path, writable=True, busy_timeout_s=busy_timeout_s)
    try:
        disable_checkpoint_on_close(connection)
        try:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # it has its shared lock from here on
        finally:
            is_in_place = before is not None and fingerprint.identity(path) == before
        if is_in_place:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def remove_empty_wal(path: str) -> None:
    """Let SQLite remove the empty log that a reader left: the last connection that may write does so as it leaves."""
    with contextlib.suppress(apsw.Error, OSError):  # a medium that cannot be written is left as it is
        connection = connect_in_place(path, busy_timeout_s=0.0)
        if connection is not None:
            connection.close()


def open_in_memory(script: str) -> Connection:
    """A database without a file, to which others can be attached."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW
    connection = Connection(":memory:", flags=flags)
    connection.execute(script)
    _harden(connection)
    _restrict(connection)
    return connection


def begin_file(
    path: str, page_size: int, script: str, bindings: tuple[Any, ...], identity: tuple[int, int]
) -> Connection:
    """Make a database of an empty file, one that needs no file beside it (no WAL), and have it open.

    Nothing of it is durable before its file is synced; who is interrupted begins anew.
    """
    connection = connect(path, writable=True)
    try:
        for name, value in (("page_size", page_size), ("journal_mode", "MEMORY"), ("synchronous", "OFF")):
            connection.pragma(name, value)
        with immediate(connection):
            connection.execute(script, bindings)
            connection.pragma("application_id", identity[0])
            connection.pragma("user_version", identity[1])
        allow_interrupt(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def raw_file(path: str) -> Iterator[apsw.VFSFile]:
    """A database's file, opened to be read as bytes.

    By SQLite's own means: closing it drops no lock that this process has on the file by another connection.
    """
    file = apsw.VFSFile("", path, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    try:
        yield file
    finally:
        file.xClose()


def read_raw(path: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a database's file, in order."""
    with raw_file(path) as file:
        offset = 0
        while chunk := file.xRead(min(chunk_bytes, file.xFileSize() - offset), offset):
            yield chunk
            offset += len(chunk)


def header_says_wal(path: str) -> bool:
    """Whether a file's header says that it is a WAL database (https://sqlite.org/fileformat2.html, 1.3)."""
    with raw_file(path) as file:
        return file.xRead(_VERSIONS_AT + 2, 0)[_VERSIONS_AT:] == _WAL_VERSIONS


def sync_file(path: str) -> None:
    """Make a database, and what its log holds of it, survive a power cut."""
    if os.path.exists(path + "-wal"):  # SQLite has no locks on it
        handle = os.open(path + "-wal", os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    with raw_file(path) as file:
        file.xSync(apsw.SQLITE_SYNC_NORMAL)


def is_incremental(connection: Connection) -> bool:
    """Whether the database can give free pages back to the disk some at a time (auto_vacuum=INCREMENTAL)."""
    return int(connection.pragma("auto_vacuum")) == _INCREMENTAL


def release_pages(connection: Connection, pages: int) -> None:
    """Give so many free pages of such a database back, in the caller's transaction; the file is cut with its log."""
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()


def create(
    path: str,
    page_size: int,
    script: str,
    bindings: tuple[Any, ...],
    identity: tuple[int, int],
    *,
    shrinkable: bool = False,
) -> bool:
    """Make a database, whole or not at all: built under another name, made durable, then linked into place.

    Args:
        shrinkable: whether it can give free pages back to the disk some at a time, for a page in 800 that says where
            pages are pointed to from.

    Returns:
        Whether this call made it; False where somebody else's was there first.
    """
    made = f"{path}.{secrets.token_hex(4)}.new"
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        connection = Connection(made)
        try:
            vacuum = _INCREMENTAL if shrinkable else 0
            settings: dict[str, int | str] = {"page_size": page_size, "auto_vacuum": vacuum}
            settings |= {"journal_mode": "WAL", "synchronous": "OFF"}
            for name, value in settings.items():
                connection.pragma(name, value)
            with immediate(connection):
                connection.execute(script, bindings)
                connection.pragma("application_id", identity[0])
                connection.pragma("user_version", identity[1])
            truncate_wal(connection)  # closing it does so, too, but says nothing where it fails
        finally:
            connection.close()
        return publish(made, path)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made + suffix)


def identity_of(connection: Connection, schema: str) -> tuple[int, int]:
    """The application id and format version that the file carries."""
    return connection.pragma("application_id", schema=schema), connection.pragma("user_version", schema=schema)


def check_identity(connection: Connection, schema: str, expected: tuple[int, int], path: str) -> None:
    """Refuse what is not a database of ours, or is of a later format.

    Raises:
        FormatError: it is another program's, or of another version.
    """
    application_id, version = identity_of(connection, schema)
    if application_id != expected[0]:
        raise FormatError("open database", path, "it is not an edgeshard database (application_id differs)")
    if version != expected[1]:
        raise FormatError(
            "open database",
            path,
            f"it has format {version}, this edgeshard reads format {expected[1]}; use that version",
        )
