"""Classify what a server answers by its SQLSTATE, never by the text of a message. Pure."""

from __future__ import annotations

from typing import Final

from edgeshard.errors import PostgresDeniedError, PostgresError, PostgresUnavailableError, PostgresUnsuitableError

_DENIED: Final = (
    "the user lacks permissions for a push: grant USAGE and CREATE on the schema, or create the tables and grant "
    "SELECT, INSERT, UPDATE and DELETE on them"
)

_READ_ONLY: Final = (
    "it is read-only: a standby, or one whose transactions are read-only; name the primary "
    "(target_session_attrs=read-write)"
)

_CANCELLED: Final = "it cancelled a statement: a user cancelled it, or it took too long; try again later"

#: https://www.postgresql.org/docs/current/errcodes-appendix.html; a whole code takes precedence over its class.
_ERRORS: Final[dict[str, tuple[type[PostgresError], str]]] = {
    "08": (PostgresUnavailableError, "the connection failed; try again later"),
    "0A": (PostgresUnsuitableError, "it lacks a feature that a push needs"),
    "25006": (PostgresUnavailableError, _READ_ONLY),
    "25P03": (PostgresUnavailableError, "it ended a transaction that took too long; try again later"),
    "28": (PostgresDeniedError, "it does not let this user in; check pg_hba.conf and the user's name"),
    "28P01": (PostgresDeniedError, "the password is wrong, or none was given; check it"),
    "3D000": (PostgresUnsuitableError, "there is no such database; create it, or correct the name"),
    "3F000": (PostgresUnsuitableError, "there is no schema to create tables in; check search_path"),
    "40": (PostgresUnavailableError, "it is too busy: transactions conflict again and again; try again later"),
    "42501": (PostgresDeniedError, _DENIED),
    "53": (PostgresUnavailableError, "it lacks resources; try again later"),
    "53100": (PostgresUnavailableError, "its disk is full; free some space there, then try again"),
    "53200": (PostgresUnavailableError, "it is out of memory; try again later"),
    "53300": (PostgresUnavailableError, "it has no connection left; try again later"),
    "55P03": (PostgresUnavailableError, "another push keeps a stream locked for too long; try again later"),
    "57": (PostgresUnavailableError, "it is being shut down; try again later"),
    "57014": (PostgresUnavailableError, _CANCELLED),
    "57P01": (PostgresUnavailableError, "it is shutting down; try again later"),
    "57P02": (PostgresUnavailableError, "it crashed, and is starting again; try again later"),
    "57P03": (PostgresUnavailableError, "it is starting, or shutting down; try again later"),
    "58": (PostgresUnavailableError, "its file system failed; check its disk"),
}

#: Serialization failures, deadlocks, a lock that was not granted: the same transaction can be tried again.
_RETRYABLE: Final = ("40", "55P03")

#: After these the connection is closed, or of no use.
_CONNECTION_LOST: Final = ("08", "57P", "25P03")

#: What has nothing to do with the rows that are sent: the connection, the user, the database, the server's state and
#: features. Anything else may be a row that does not fit. Which codes a user's trigger raises, only the user knows.
_NOT_A_ROW: Final = (
    "00", "01", "02", "03", "08", "0A", "25", "28", "3B", "3D", "3F", "40", "42501", "53", "55", "57", "58", "72", "F0",
    "HV", "XX",
)  # fmt: skip

_UNIQUE_VIOLATION: Final = "23505"

#: Another device created the same table, column or index at the same moment.
_CREATED_MEANWHILE: Final = ("42P07", "42701", "42710", "42P06", "23505", "40", "XX000")


class ServerError(Exception):
    """What a server answered, or psycopg said, when something failed.

    Attributes:
        state: the SQLSTATE, or None if the connection failed without one.
        message: the server's words in one line, without secrets.
        column: the column that it names, or "".
        constraint: the constraint or index that it names, or "".
    """

    def __init__(self, state: str | None, message: str, column: str = "", constraint: str = "") -> None:
        super().__init__(state, message)
        self.state = state
        self.message = message
        self.column = column
        self.constraint = constraint

    @property
    def is_retryable(self) -> bool:
        """Whether the same transaction can be tried again."""
        return (self.state or "").startswith(_RETRYABLE)

    @property
    def is_connection_lost(self) -> bool:
        """Whether the connection is of no more use. The outcome of a COMMIT is then unknown."""
        return self.state is None or self.state.startswith(_CONNECTION_LOST)

    @property
    def is_unclear(self) -> bool:
        """Whether it may be anything: Citus says this for whatever a worker answers to a COPY."""
        return self.state == "XX000"

    @property
    def is_row_rejected(self) -> bool:
        """Whether a row may have caused it, if it is the answer to a statement that sends rows."""
        return self.state is not None and not self.state.startswith(_NOT_A_ROW)

    @property
    def is_about_definitions(self) -> bool:
        """Whether a table or column may be missing. A function of a user's trigger may also say this."""
        return (self.state or "").startswith("42")

    @property
    def is_data_exception(self) -> bool:
        """Whether a type cannot store a value."""
        return (self.state or "").startswith("22")

    @property
    def is_limit_exceeded(self) -> bool:
        """Whether a row was too large for the server, or for an index."""
        return self.state == "54000"

    @property
    def is_duplicate(self) -> bool:
        """Whether a unique index refuses a row: the user's, or the primary key if the ranges do not name the row."""
        return self.state == _UNIQUE_VIOLATION

    @property
    def is_created_meanwhile(self) -> bool:
        """Whether another device may just have created the same thing."""
        return (self.state or "").startswith(_CREATED_MEANWHILE)

    @property
    def is_undefined_table(self) -> bool:
        """Whether there is no such table."""
        return self.state == "42P01"

    @property
    def is_definition_rejected(self) -> bool:
        """Whether the server cannot define the table in this way."""
        return (self.state or "")[:2] in ("42", "54", "0A") and self.state != "42501"


def meaning(state: str | None) -> tuple[type[PostgresError], str]:
    """Return our error for a SQLSTATE, and its cause in words. No SQLSTATE means that the connection failed."""
    for length in (5, 2):
        found = _ERRORS.get((state or "08000")[:length])
        if found is not None:
            return found
    return PostgresError, "it refused a statement of a push"
