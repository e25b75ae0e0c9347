"""Connect to a server, run transactions, and send rows. Errors are `ServerError`s, never psycopg's.

This module and `edgeshard.postgres.address` are the only users of psycopg, which they import when they need it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgeshard.errors import PostgresUnsuitableError
from edgeshard.postgres import address, refused_connection
from edgeshard.postgres.address import Address
from edgeshard.postgres.encoding import COPY_HEAD, COPY_TAIL
from edgeshard.postgres.sqlstate import ServerError

if TYPE_CHECKING:
    import psycopg

#: A server may use a stricter isolation instead: see `own_tables.lock_streams`.
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"

_BEGIN_READ_ONLY: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

#: PostgreSQL's own settings, for one transaction only, because a pool gives the connection to others afterwards.
#: Whatever the server's defaults are, a commit is durable when it is acknowledged, and invisible before. The
#: server's end of the connection waits no longer than ours, because it would keep our locks for as long.
_SETTINGS: Final = (
    "; SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = '60s'"
    "; SET LOCAL tcp_keepalives_idle = 30; SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 3"
)

#: The oldest PostgreSQL that a push accepts; YugabyteDB reports 11 or later.
_VERSION_MIN: Final = 110_000

#: The most parameters of a statement.
_PARAMETERS_MAX: Final = 65_535

#: The most rows of one INSERT; more are not faster.
_INSERT_ROWS: Final = 1_000


class Server:
    """A connection to a server.

    Args:
        where: the database.

    Raises:
        PostgresError: it cannot be reached, or a push cannot use it.
    """

    def __init__(self, where: Address) -> None:
        self.address = where
        self._psycopg = address.load_psycopg()
        self._connection: psycopg.Connection[Any] = self._connect()
        try:
            self._check_version()
            self._is_citus = self.is_postgresql and self._has_function("citus_version")
        except BaseException:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        # a pooler between us and the server would lose prepared statements, and they would not be faster
        options = {"autocommit": True, "prepare_threshold": None, "client_encoding": "utf8"}
        try:
            connection: psycopg.Connection[Any] = self._psycopg.connect(self.address.dsn, **options)
        except self._psycopg.Error as error:
            state = error.sqlstate or refused_connection.find_sqlstate(self._psycopg, self.address.dsn)
            # our own words come first, and say the same
            message = str(error).removeprefix("connection failed: ").removeprefix("connection is bad: ")
            failure = ServerError(state, self.address.redact(message))
            raise self.address.explain("connect to PostgreSQL", failure) from None
        return connection

    def _check_version(self) -> None:
        version = self._connection.info.server_version
        if self.is_postgresql and version < _VERSION_MIN:
            cause = f"it is PostgreSQL {version // 10_000}, but a push needs {_VERSION_MIN // 10_000} or later"
            raise PostgresUnsuitableError("connect to PostgreSQL", self.address.display, cause)

    @property
    def is_postgresql(self) -> bool:
        """Return whether it is PostgreSQL itself (as Citus is), and not another server that speaks its protocol."""
        info = self._connection.info
        is_other = info.parameter_status("crdb_version") or "-YB-" in (info.parameter_status("server_version") or "")
        return info.vendor == "PostgreSQL" and not is_other

    def _has_function(self, name: str) -> bool:
        try:
            return bool(self.execute("SELECT 1 WHERE to_regproc($1) IS NOT NULL", (name,)))
        except ServerError as error:
            raise self.address.explain("connect to PostgreSQL", error) from error

    @property
    def is_citus(self) -> bool:
        """Return whether it is a node of a Citus cluster."""
        return self._is_citus

    @property
    def is_usable(self) -> bool:
        """Return whether the connection is still open."""
        return not self._connection.closed and not self._connection.broken

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(self._psycopg.Error):
            self._connection.close()

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            message = error.diag.message_primary or str(error)
            names = (error.diag.column_name or "", error.diag.constraint_name or "")
            raise ServerError(self._sqlstate(error), self.address.redact(message), *names) from None

    def _sqlstate(self, error: psycopg.Error) -> str | None:
        """Return the SQLSTATE of an error; psycopg rejects some values itself, without one."""
        if error.sqlstate is not None or not self.is_usable:
            return error.sqlstate
        return "22000" if isinstance(error, self._psycopg.DataError) else "XX000"

    # -- statements and transactions -----------------------------------------------------------------------------------

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with parameters ($1), or several without; return its rows, or none if it has no result."""
        with self._translate_errors():
            cursor = self._psycopg.RawCursor(self._connection)
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def execute_many(self, sql: str, many: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of several sets of values."""
        if many:
            with self._translate_errors():
                self._psycopg.RawCursor(self._connection).executemany(sql, many)

    @contextlib.contextmanager
    def transaction(self, *, read_only: bool = False, commit: bool = True) -> Iterator[None]:
        """Run the block in one transaction: commit at its end, and roll back if it raises.

        Args:
            read_only: whether it only reads, everything in one snapshot.
            commit: False rolls back at the end of the block as well.
        """
        settings = _SETTINGS if self.is_postgresql else ""
        self.execute(_BEGIN_READ_ONLY if read_only else _BEGIN + settings)
        try:
            yield
            self.execute("COMMIT" if commit else "ROLLBACK")
        except BaseException:
            self._roll_back()
            raise

    @contextlib.contextmanager
    def savepoint(self, *, keep: bool = True) -> Iterator[None]:
        """Run the block in a part of the open transaction, which is rolled back alone if the block raises.

        Constraints that the user deferred to the end of the transaction are checked at the end of the block.

        Args:
            keep: False rolls back at the end of the block as well.
        """
        defer, check = ("; SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS ALL IMMEDIATE; ")
        roll_back, is_deferrable = "ROLLBACK TO edgeshard_part; ", self.is_postgresql
        self.execute(f"SAVEPOINT edgeshard_part{defer if is_deferrable else ''}")
        try:
            yield
            self.execute(f"{check if is_deferrable else ''}{'' if keep else roll_back}RELEASE edgeshard_part")
        except Exception:
            if self.is_usable:
                self.execute(f"{roll_back}RELEASE edgeshard_part")
            raise

    def _roll_back(self) -> None:
        """End a failed transaction. If that fails, close the connection: then the server rolls back."""
        idle = self._psycopg.pq.TransactionStatus.IDLE
        with contextlib.suppress(ServerError):
            if self.is_usable and self._connection.info.transaction_status != idle:
                self.execute("ROLLBACK")
        if self._connection.info.transaction_status != idle:
            self.close()

    # -- rows ----------------------------------------------------------------------------------------------------------

    def copy(self, table: str, columns: str, batches: Iterable[bytes]) -> None:
        """Send encoded rows by COPY, which is the fastest way if the server is PostgreSQL."""
        with (
            self._translate_errors(),
            self._connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(COPY_HEAD)
            for batch in batches:
                copy.write(batch)
            copy.write(COPY_TAIL)

    def insert(self, table: str, columns: str, width: int, batches: Iterable[list[Any]]) -> None:
        """Send rows by INSERTs of many rows. A batch has the values of its rows one after the other, `width` a row."""
        step = width * max(1, min(_INSERT_ROWS, _PARAMETERS_MAX // width))
        for batch in batches:
            for at in range(0, len(batch), step):
                values = batch[at : at + step]
                self.execute(f"INSERT INTO {table} ({columns}) VALUES {_placeholders(len(values), width)}", values)


def _placeholders(count: int, width: int) -> str:
    rows = range(1, count + 1, width)
    return ", ".join("(" + ", ".join(f"${at + k}" for k in range(width)) + ")" for at in rows)
