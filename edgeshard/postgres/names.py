"""Name tables, columns and indexes in PostgreSQL. Pure, and the same on every device.

A name is what it is in the master, in lower case: SQLite folds case, and so does PostgreSQL for names that are not
quoted. PostgreSQL cannot have all of them, though. It cuts names off after 63 bytes, without an error. A table
``pg_...`` would be hidden by PostgreSQL's catalog, and a table has columns of its own (``xmin``, ``ctid`` ...). These
names get an underscore in front, and long ones end with a digest of the whole name. No two names become one by that,
because the name of a record table or of a field begins with a letter.

An index has the name that it has in the master: ``reading by sensor``. Tables and indexes share their names in
PostgreSQL, and no table has a name with spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

#: The longest name in bytes. Names are ASCII.
NAME_MAX: Final = 63

#: Columns that each table of PostgreSQL has (oid: before version 12).
_SYSTEM_COLUMNS: Final = frozenset(["cmax", "cmin", "ctid", "oid", "tableoid", "xmax", "xmin"])

_CATALOG: Final = "pg_"

#: The hexadecimal digits of a digest.
_DIGITS: Final = 12


def table_name(name: str) -> str:
    """Return the name that a record table of the master has in PostgreSQL."""
    folded = name.lower()
    return _short(f"_{folded}") if folded.startswith(_CATALOG) or len(folded) > NAME_MAX else folded


def column_name(name: str) -> str:
    """Return the name that a column of a record table has in PostgreSQL."""
    folded = name.lower()
    return _short(f"_{folded}") if folded in _SYSTEM_COLUMNS or len(folded) > NAME_MAX else folded


def index_name(pg_table: str, columns: Iterable[str]) -> str:
    """Return the name of an index, or of a primary key, by the names of its table and columns in PostgreSQL."""
    return _short(f"{pg_table} by {', '.join(columns)}", " ")


def _short(name: str, separator: str = "_") -> str:
    if len(name) <= NAME_MAX:
        return name
    return f"{name[: NAME_MAX - 1 - _DIGITS]}{separator}{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}"
