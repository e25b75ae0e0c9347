"""Columns and tables: what a record class declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from edgeshard.records.keys import Key


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
