"""Which SQLSTATE is which error of ours, and what a push does about it. Pure; never by the text of a message."""

from __future__ import annotations

from typing import Final

from edgeshard.errors import PostgresDeniedError, PostgresError, PostgresUnavailableError, PostgresUnsuitableError

_DENIED: Final = (
    "the user may not do what a push does: USAGE and CREATE on the schema, or tables that are ready-made, with SELECT, "
    "INSERT, UPDATE and DELETE on them"
)

_READ_ONLY: Final = (
    "it only reads: it is a standby, or its transactions are read-only; name the primary "
    "(target_session_attrs=read-write)"
)

#: https://www.postgresql.org/docs/current/errcodes-appendix.html; a whole code decides before its class.
_MEANING: Final[dict[str, tuple[type[PostgresError], str]]] = {
    "08": (PostgresUnavailableError, "the connection failed"),
    "0A": (PostgresUnsuitableError, "it lacks something that a push needs"),
    "25006": (PostgresUnavailableError, _READ_ONLY),
    "25P03": (PostgresUnavailableError, "it ended a transaction that took too long"),
    "28": (PostgresDeniedError, "it does not let this user in; look at pg_hba.conf and at the user's name"),
    "28P01": (PostgresDeniedError, "the password is wrong, or none was given"),
    "3D000": (PostgresUnsuitableError, "there is no such database"),
    "3F000": (PostgresUnsuitableError, "there is no schema to make tables in; look at search_path"),
    "40": (PostgresUnavailableError, "others keep it too busy: transactions conflict again and again"),
    "42501": (PostgresDeniedError, _DENIED),
    "53": (PostgresUnavailableError, "it lacks resources"),
    "53100": (PostgresUnavailableError, "its disk is full"),
    "53200": (PostgresUnavailableError, "it is out of memory"),
    "53300": (PostgresUnavailableError, "it has no connection left"),
    "55P03": (PostgresUnavailableError, "another push keeps a stream locked for too long"),
    "57": (PostgresUnavailableError, "it was told to stop"),
    "57014": (PostgresUnavailableError, "it cancelled a statement: somebody asked for it, or it took too long"),
    "57P01": (PostgresUnavailableError, "it is shutting down"),
    "57P02": (PostgresUnavailableError, "it crashed, and starts again"),
    "57P03": (PostgresUnavailableError, "it is starting, or shutting down"),
    "58": (PostgresUnavailableError, "its file system failed"),
}

#: Transactions that are to be tried again as they are: serialization failures, deadlocks, a lock that was not given.
_AGAIN: Final = ("40", "55P03")

#: After these the connection is gone, or of no use.
_LOST: Final = ("08", "57P", "25P03")

#: A row that cannot be stored, whoever sends it: data exceptions, constraints and triggers of the user's, limits.
_OF_A_ROW: Final = ("22", "23", "54", "42804", "09", "P0001")

#: ... but not this one: the ranges say that the row is not there.
_UNIQUE: Final = "23505"

#: Somebody else made the same table, column or index at the same moment.
_MADE_MEANWHILE: Final = ("42P07", "42701", "42710", "42P06", "23505", "40", "XX000")


def meaning(state: str | None) -> tuple[type[PostgresError], str]:
    """The error of ours for a SQLSTATE, and its cause in words; without one the connection failed."""
    for length in (5, 2):
        found = _MEANING.get((state or "08000")[:length])
        if found is not None:
            return found
    return PostgresError, "it refused a statement of ours"


def is_again(state: str | None) -> bool:
    """Whether the transaction should be tried once more, as it is."""
    return bool(state) and str(state).startswith(_AGAIN)


def is_lost(state: str | None) -> bool:
    """Whether the connection is of no more use; what became of a COMMIT is then unknown."""
    return state is None or state.startswith(_LOST)


def is_of_a_row(state: str | None) -> bool:
    """Whether a row is the reason."""
    return bool(state) and str(state).startswith(_OF_A_ROW) and state != _UNIQUE


def is_doubled(state: str | None) -> bool:
    """Whether a row is there that the ranges do not name."""
    return state == _UNIQUE


def is_made_meanwhile(state: str | None) -> bool:
    """Whether somebody else may have made just now what was to be made."""
    return bool(state) and str(state).startswith(_MADE_MEANWHILE)


def is_no_table(state: str | None) -> bool:
    """Whether there is no such table."""
    return state == "42P01"


def is_of_a_definition(state: str | None) -> bool:
    """Whether a definition of a table cannot be made, and the table itself is the reason."""
    return bool(state) and str(state)[:2] in ("42", "54", "0A") and state != "42501"
