"""The limits on tables. Pure, and the same wherever a table enters.

A class is checked when it is declared, and once more, with what is there already, when a shard and a master take it. A
database that a merge, a hub or an export reads is checked against the same limits. So whatever a master has accepted,
each other database accepts from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from edgeshard import format
from edgeshard.records import keys
from edgeshard.records.keys import Key


def excess(
    columns: Iterable[str],
    indexes: Iterable[Iterable[str]] = (),
    key: Key | None = None,
    renames: Collection[tuple[str, str]] = (),
) -> str:
    """Return which limit a table exceeds, as "more than 400 columns", or "" if none.

    Args:
        columns: its columns; the format's own do not count.
        indexes: the columns of each of its indexes; that of its key does not count.
        key: its key; None for a plain table.
        renames: the renames of its columns.
    """
    declared = {column.lower() for column in columns} - format.OWN_COLUMNS.keys()
    folded = {tuple(column.lower() for column in index) for index in indexes}
    if key is not None:
        folded.discard(key.folded[0])
    for count, limit, what in (
        (len(declared), format.COLUMNS_MAX, "columns"),
        (len(folded), format.INDEXES_MAX, "indexes"),
        (len(renames), format.RENAMES_MAX, "renames"),
    ):
        if count > limit:
            return f"more than {limit} {what}"
    return ""


def excess_of_all(tables: Mapping[str, Collection[str]], keyed: Mapping[str, Key]) -> str:
    """Return by how much all tables of a master together would exceed their limits, or "" if they do not.

    Args:
        tables: the columns of each table, by its name in lower case.
        keyed: the key of each keyed table, by its name. A master has further tables for its tombstones and its history.
    """
    counts = {name: len(columns) for name, columns in tables.items()}
    for name, key in keyed.items():
        if key.deletes:
            counts[keys.deleted_name(name).lower()] = len(key.columns) + 1  # its timestamp
        if key.history:
            counts[keys.history_name(name).lower()] = counts.get(name.lower(), 0) + 1  # the reason
    columns = sum(counts.values())
    if len(counts) <= format.TABLES_MAX and columns <= format.COLUMNS_IN_ALL_MAX:
        return ""
    return (
        f"{len(counts)} tables and {columns} columns; at most {format.TABLES_MAX} and {format.COLUMNS_IN_ALL_MAX} are "
        "possible"
    )
