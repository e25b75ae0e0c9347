"""Columns and tables: what a record class declares."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from edgeshard import format
from edgeshard.records.keys import Key

#: The names that columns and record tables may have, as a regular expression that can be part of a longer one.
NAME_PATTERN: Final = "[A-Za-z][A-Za-z0-9_]{0,99}"

_NAME = re.compile(NAME_PATTERN)


def is_column_name(name: str) -> bool:
    """Return whether a column may have this name: up to 100 ASCII letters, digits and _, beginning with a letter."""
    return _NAME.fullmatch(name) is not None


def is_reserved(name: str) -> bool:
    """Return whether a name begins like those of the format's own tables or of SQLite's."""
    return name.lower().startswith((format.PREFIX, "sqlite_"))


@attrs.frozen
class Column:
    """A column of a record table: its kind (a key of ``format.STORED_AS``) and the conversions to and from storage."""

    name: str
    type: str
    optional: bool = False
    encode: Callable[[Any], Any] | None = attrs.field(default=None, eq=False, repr=False)
    decode: Callable[[Any], Any] | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class Table:
    """What an attrs class says about its table.

    Attributes:
        name: its name in SQL.
        columns: what the class's fields become.
        indexes: the columns of each index that a master should have.
        key: what makes it a keyed table; None: all its rows are kept.
        deletes_from: the keyed table whose rows its own rows delete, by their key; None: it is no such table.
        priority: how long its rows are kept where a budget has rows dropped.
    """

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    key: Key | None = None
    deletes_from: Table | None = None
    priority: int = 0
    renames: tuple[tuple[str, str], ...] = ()

    @property
    def is_timestamped(self) -> bool:
        """Whether each row of it says when it was written."""
        return self.key is not None or self.deletes_from is not None
