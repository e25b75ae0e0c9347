"""The one door to psycopg: connecting, transactions, COPY, and what its errors mean.

No other module imports psycopg, and this one does so as it connects: an edge device without the extra ``postgres``
goes without it. Decisions are taken by SQLSTATE. Nothing that is shown or raised holds a password: a place is shown as
user@host:port/database, and what libpq says is searched for every secret that we know of.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from edgeshard.errors import ConfigurationError, EdgeshardError, PostgresError, PostgresUnsuitableError
from edgeshard.postgres import sqlstate
from edgeshard.postgres.values import COPY_HEAD, COPY_TAIL

if TYPE_CHECKING:
    import psycopg


#: What is set where neither the DSN nor the environment says otherwise: a peer that went away without a word is noticed
#: within a minute or so.
_PATIENCE: Final = {
    "connect_timeout": "15",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "application_name": "edgeshard",
}

#: Whatever isolation a server gives instead, or on top, is enough: see `remote.lock_streams`.
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"

_BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

#: PostgreSQL's own settings, for a transaction alone: in a pool others get the connection afterwards. Whatever the
#: server's default, a commit is durable there when it is acknowledged, and nobody sees it before. And the server's end
#: is as patient as ours, since it would keep our locks for as long.
_SETTINGS: Final = (
    "; SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = '60s'"
    "; SET LOCAL tcp_keepalives_idle = 30; SET LOCAL tcp_keepalives_interval = 10; SET LOCAL tcp_keepalives_count = 3"
)

#: The oldest PostgreSQL that is tried; YugabyteDB says that it is 11 or later.
_VERSION_MIN: Final = 110_000

#: Parameters that a statement can have.
_PARAMETERS_MAX: Final = 65_535

#: Rows of one INSERT at most; more win nothing.
_INSERT_ROWS: Final = 1_000

#: A URL with an @ after its path began, and what a port can be.
_ASTRAY: Final = re.compile(r"\w+://[^/?]*/[^?]*@")

_PORTS: Final = re.compile(r"[0-9,]*")

#: libpq's options that nobody may see.
_SECRET: Final = re.compile("password|secret|scram_.*_key")

#: How long finding out why a server refuses a connection may take, in seconds.
_DIAGNOSIS_S: Final = 5.0

#: Where libpq's trace shows the SQLSTATE with which a server refuses a connection.
_REFUSED: Final = re.compile(rb'\tErrorResponse\t S "[A-Z]+" V "[A-Z]+" C "([0-9A-Z]{5})"')


class ServerError(Exception):
    """The server refused a statement, or the connection was lost.

    Attributes:
        state: the SQLSTATE; None: the connection failed.
        said: what the server says, in one line, without secrets.
    """

    def __init__(self, state: str | None, said: str) -> None:
        super().__init__(state, said)
        self.state = state
        self.said = said


def library() -> Any:
    """The module psycopg.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        cause = f"this needs psycopg 3; pip install 'edgeshard[postgres]' ({error})"
        raise ConfigurationError("connect to PostgreSQL", "", cause) from error
    return psycopg


# -- where to ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Address:
    """What a DSN, the PG* variables and a service file say together.

    Attributes:
        dsn: what libpq is given.
        shown: user@host:port/database; no more than that is ever shown.
        secrets: what must not be shown.
    """

    dsn: str = attrs.field(repr=False)
    shown: str
    secrets: tuple[str, ...] = attrs.field(repr=False)

    def redacted(self, text: str) -> str:
        """The text in one line, without any secret."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    def explain(self, action: str, error: ServerError) -> PostgresError:
        """Our error for a server's."""
        kind, cause = sqlstate.meaning(error.state)
        said = f"{error.state}: {error.said}" if error.state else error.said
        return kind(action, self.shown, f"{cause} ({said})")


def address(dsn: str) -> Address:
    """Read a DSN: a URL, ``key=value`` pairs, or an empty one, where all comes from the environment.

    Raises:
        ConfigurationError: it is none, or psycopg is not installed.
    """
    parser = library().pq.Conninfo
    try:
        given = _options(parser.parse(dsn.encode()))
        default = _options(parser.get_defaults())
    except (library().Error, UnicodeEncodeError):
        # libpq would quote a part of it, which may be a part of the password
        cause = "this is no DSN that libpq can read; in a URL write special characters as %XX (@ is %40, / is %2F)"
        raise ConfigurationError("connect to PostgreSQL", "", cause) from None
    said = {**default, **given}
    if "@" in said.get("host", "") or _ASTRAY.match(dsn) or not _PORTS.fullmatch(said.get("port", "")):
        # a part of the password was taken for something else, which would be shown
        cause = (
            "its port is no number, or there is an @ in its host or database; in a URL special characters of a "
            "password are written as %XX (@ is %40, / is %2F)"
        )
        raise ConfigurationError("connect to PostgreSQL", "", cause)
    added = {name: value for name, value in _PATIENCE.items() if name not in given and name not in _from_environment()}
    secrets = {value for name, value in said.items() if _SECRET.search(name)}
    full = library().conninfo.make_conninfo(dsn, **added)
    return Address(full, _shown(said), tuple(sorted(filter(None, secrets), key=len, reverse=True)))


def _options(parsed: Iterable[Any]) -> dict[str, str]:
    return {option.keyword.decode(): option.val.decode() for option in parsed if option.val}


def _from_environment() -> set[str]:
    names = {"connect_timeout": "PGCONNECT_TIMEOUT", "application_name": "PGAPPNAME"}
    return {name for name, variable in names.items() if os.environ.get(variable)}


def _shown(said: dict[str, str]) -> str:
    if said.get("service") and not said.get("host"):
        return f"service {said['service']}"
    host = said.get("host") or said.get("hostaddr") or "localhost"
    user, name = said.get("user", ""), said.get("dbname") or said.get("user", "")
    return f"{user}@{host}:{said.get('port', '5432')}/{name}"


# -- a connection -----------------------------------------------------------------------------------------------------


class Server:
    """A connection to the server. It raises `ServerError`s, and nothing of psycopg's.

    Args:
        where: the server, and the database.

    Raises:
        UpstreamError: it cannot be had.
    """

    def __init__(self, where: Address) -> None:
        self.where = where
        self._psycopg = library()
        self._connection: psycopg.Connection[Any] = self._connect()
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        options = {"autocommit": True, "prepare_threshold": None, "client_encoding": "utf8"}
        try:
            # prepared statements, which poolers between us and the server lose, would win nothing
            connection: psycopg.Connection[Any] = self._psycopg.connect(self.where.dsn, **options)
        except self._psycopg.Error as error:
            state = error.sqlstate or _why_refused(self._psycopg, self.where.dsn)
            raise self._explained(ServerError(state, self.where.redacted(str(error)))) from None
        return connection

    def _explained(self, error: ServerError) -> EdgeshardError:
        return self.where.explain("connect to PostgreSQL", error)

    def _check(self) -> None:
        version = self._connection.info.server_version
        if self.is_postgresql and version < _VERSION_MIN:
            cause = f"it is PostgreSQL {version // 10_000}, and a push needs {_VERSION_MIN // 10_000} or later"
            raise PostgresUnsuitableError("connect to PostgreSQL", self.where.shown, cause)

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL itself (Citus is), and no other server that speaks its protocol."""
        info = self._connection.info
        is_other = info.parameter_status("crdb_version") or "-YB-" in (info.parameter_status("server_version") or "")
        return info.vendor == "PostgreSQL" and not is_other

    @property
    def is_usable(self) -> bool:
        """Whether it still is a connection."""
        return not self._connection.closed and not self._connection.broken

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(self._psycopg.Error):
            self._connection.close()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            said = error.diag.message_primary or str(error)
            raise ServerError(self._state_of(error), self.where.redacted(said)) from None

    def _state_of(self, error: psycopg.Error) -> str | None:
        """The SQLSTATE of an error; psycopg itself refuses some values, and says none."""
        if error.sqlstate is not None or not self.is_usable:
            return error.sqlstate
        return "22000" if isinstance(error, self._psycopg.DataError) else "XX000"

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with parameters ($1), or several without; the rows of it, if it has any."""
        with self._heard():
            cursor = self._psycopg.RawCursor(self._connection)
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def execute_many(self, sql: str, many: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of several sets of values."""
        if many:
            with self._heard():
                self._psycopg.RawCursor(self._connection).executemany(sql, many)

    @contextlib.contextmanager
    def transaction(self, *, reading: bool = False, keep: bool = True) -> Iterator[None]:
        """One transaction: committed at the end of the block, and undone where it raises.

        Args:
            reading: whether it only reads, all in one snapshot.
            keep: False: undone at its end as well.
        """
        settings = _SETTINGS if self.is_postgresql else ""
        self.execute(_BEGIN_READING if reading else _BEGIN + settings)
        try:
            yield
            self.execute("COMMIT" if keep else "ROLLBACK")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        """Leave a transaction that failed. A connection that cannot do so is closed, and the server undoes it."""
        idle = self._psycopg.pq.TransactionStatus.IDLE
        with contextlib.suppress(ServerError):
            if self.is_usable and self._connection.info.transaction_status != idle:
                self.execute("ROLLBACK")
        if self._connection.info.transaction_status != idle:
            self.close()

    def copy(self, table: str, columns: str, portions: Iterable[bytes]) -> None:
        """Copy packed rows in: the fastest way, where the server is PostgreSQL."""
        with (
            self._heard(),
            self._connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(COPY_HEAD)
            for portion in portions:
                copy.write(portion)
            copy.write(COPY_TAIL)

    def insert(self, table: str, columns: str, width: int, portions: Iterable[list[Any]]) -> None:
        """Insert rows, given as their values one after the other, by statements of many rows."""
        step = width * max(1, min(_INSERT_ROWS, _PARAMETERS_MAX // width))
        for portion in portions:
            for at in range(0, len(portion), step):
                values = portion[at : at + step]
                self.execute(f"INSERT INTO {table} ({columns}) VALUES {_places(len(values), width)}", values)


def _places(count: int, width: int) -> str:
    rows = range(1, count + 1, width)
    return ", ".join("(" + ", ".join(f"${at + k}" for k in range(width)) + ")" for at in rows)


def _why_refused(psycopg: Any, dsn: str) -> str | None:
    """The SQLSTATE with which the server refuses a connection; None where it does not get so far as to say one.

    libpq gives it to nobody. So we connect once more, and find it in libpq's trace of what the server says, which goes
    to memory alone. Where libpq cannot trace, that a password was asked for is all that can be told.
    """
    connection = psycopg.pq.PGconn.connect_start(dsn.encode())
    try:
        if not hasattr(os, "memfd_create"):
            _poll(psycopg.pq, connection, None)
            return "28P01" if connection.needs_password or connection.used_password else None
        with open(os.memfd_create("edgeshard"), "r+b") as trace:
            _poll(psycopg.pq, connection, trace.fileno())
            trace.seek(0)
            found = _REFUSED.search(trace.read())
        if found is None:
            return "28P01" if connection.needs_password else None  # libpq has none to give, and hung up
        return found[1].decode()
    finally:
        connection.finish()


def _poll(pq: Any, connection: Any, trace: int | None) -> None:
    """Go on connecting until that is done, or has failed, or takes too long."""
    waits = {pq.PollingStatus.READING: ([0], []), pq.PollingStatus.WRITING: ([], [0])}
    deadline = time.monotonic() + _DIAGNOSIS_S
    status = pq.PollingStatus.WRITING
    while status in waits and connection.status != pq.ConnStatus.BAD and time.monotonic() < deadline:
        if trace is not None:
            connection.trace(trace)  # each socket that it tries begins without
        reading, writing = ([connection.socket for _ in side] for side in waits[status])
        select.select(reading, writing, [], max(0.0, deadline - time.monotonic()))
        status = connection.connect_poll()
    if trace is not None:
        connection.untrace()
