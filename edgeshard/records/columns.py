"""Columns and tables: what a record class declares, as values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import attrs

from edgeshard import format
from edgeshard.records.forms import Form
from edgeshard.records.json_types import JsonType
from edgeshard.records.keys import Key

#: The columns of each table of dicts, with their types.
DICT_COLUMNS: Final[Mapping[str, str]] = {"agent_id": "text", "timestamp": "datetime", "data": "json"}


def mixes_dicts(table: str, known: Collection[str], new: Collection[str]) -> str:
    """Return why rows must not go to a table because only one of both has rows of dicts, or "".

    A class that reads the table would find its fields empty in the rows of dicts.

    Args:
        table: the table's name, for the text.
        known: the names of the columns that it has, in lower case.
        new: those of the columns of the rows.
    """
    columns = [set(names) - format.OWN_COLUMNS.keys() for names in (known, new)]
    there, here = (names == DICT_COLUMNS.keys() for names in columns)
    if there == here or columns[0] | columns[1] == DICT_COLUMNS.keys():
        return ""
    of = {True: "dicts", False: "rows of a class"}
    return f"table {table} has {of[there]} there, and these are {of[here]}"


@attrs.frozen
class Column:
    """A column of a record table.

    Attributes:
        name: its name.
        type: its type, a key of ``format.STORED_AS``.
        optional: whether it may hold NULL.
        encode: returns what is stored of a value, or raises a TypeError or ValueError that says why it cannot be.
        decode: converts a stored value back; None if it stays as it is.
        has_default: whether the class has a value of its own for the field.
        is_required: False if a record may lack the field: a key of a TypedDict.
        json: how its values are stored in JSON, if the column has JSON.
        quick: the conversion that `encode` begins with, if the writer may leave it out for values of exactly its type.
    """

    name: str
    type: str
    optional: bool
    encode: Callable[[Any], Any] = attrs.field(eq=False, repr=False)
    decode: Callable[[Any], Any] | None = attrs.field(default=None, eq=False, repr=False)
    has_default: bool = attrs.field(default=False, eq=False)
    is_required: bool = attrs.field(default=True, eq=False)
    json: JsonType | None = attrs.field(default=None, eq=False, repr=False)
    quick: Callable[[Any], Any] | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class Table:
    """The table that a record class declares.

    Attributes:
        name: its name in SQL.
        columns: what the class's fields become.
        indexes: the columns of each index that a master should have.
        key: the key of a keyed table; None if all rows are kept.
        deletes_from: the keyed table whose tombstones its rows are; None for every other table.
        priority: how long its rows are kept if a disk budget has rows dropped; higher is longer.
        renames: the (old, new) names of columns that were renamed.
        form: the class; None if its rows are dicts of any keys.
    """

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    key: Key | None = None
    deletes_from: Table | None = None
    priority: int = 0
    renames: tuple[tuple[str, str], ...] = ()
    form: Form | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def is_timestamped(self) -> bool:
        """Whether each row has a timestamp: it is a version or a tombstone of a key."""
        return self.key is not None or self.deletes_from is not None
