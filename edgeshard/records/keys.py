"""Keyed tables: which columns are the key, and which of several versions of a row a master keeps. Pure.

A *version* is a row of the table, a *tombstone* a row of ``<table>_deleted``. Of everything that was ever written with
one key, a master keeps what the table's conflict rule ("the rule") says. That depends on the set alone, never on the
order in which it arrives:

``lww``
    the last written, version or tombstone: the one with the highest (timestamp, stream id, seq)
``first``
    the version with the lowest of these; deletions are not supported
``max:column``, ``min:column``
    the version with the highest or the lowest value in that column, NULL last; among equal ones the last written;
    deletions are not supported
``keep-all``
    the last tombstone, and each version that was written after it

What is kept of two sets of versions decides what is kept of both together, so merges may come in any order. That is why
rules that do not keep the newest support no deletion: the older version that it would uncover was not kept.

Either every class that writes to a table declares its key, or none does. A row with NULL in a column of its key, which
no class writes, has no key, and is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

LWW: Final = "lww"

FIRST: Final = "first"

KEEP_ALL: Final = "keep-all"

#: Why a version is in the history.
WAS_REPLACED: Final = "replaced"

WAS_DELETED: Final = "deleted"


@attrs.frozen
class Key:
    """The key of a keyed table.

    Attributes:
        columns: the names of the key's columns.
        conflict: which version of a key is kept.
        history: whether superseded versions go to the table's history.
    """

    columns: tuple[str, ...]
    conflict: str = LWW
    history: bool = False

    @property
    def deletes(self) -> bool:
        """Whether rows of the table can be deleted by their key."""
        return self.conflict in (LWW, KEEP_ALL)

    @property
    def fixed(self) -> frozenset[str]:
        """The columns, in lower case, that decide what is a version of what, and which version is kept.

        No agent may rename or widen one: a master that learned of it late would have kept other versions by then than
        one that knew earlier, and what they did not keep cannot be brought back.
        """
        return frozenset(column.lower() for column in (*self.columns, ranked_by(self.conflict)) if column)

    @property
    def folded(self) -> tuple[tuple[str, ...], str]:
        """The key and its conflict rule in lower case: two declarations of one table must agree on them."""
        return tuple(column.lower() for column in self.columns), self.conflict.lower()


def describe(key: Key | None) -> str:
    """Return what a message says of a table's key."""
    return "no key" if key is None else f"the key ({', '.join(key.columns)}) with conflict {key.conflict!r}"


def ranked_by(conflict: str) -> str:
    """Return the column that a conflict rule compares, or "" if it compares none."""
    rule, _, column = conflict.partition(":")
    return column if rule in ("max", "min") else ""


def fixed(*table_keys: Key | None) -> frozenset[str]:
    """Return the columns that no agent may rename or widen, according to any of these keys of a table."""
    return frozenset[str]().union(*(key.fixed for key in table_keys if key is not None))


def is_rule(conflict: str) -> bool:
    """Return whether it is a conflict rule, as far as can be said without the table's columns."""
    return conflict in (LWW, FIRST, KEEP_ALL) or bool(ranked_by(conflict))


def deleted_name(table: str) -> str:
    """Return the name of the table that holds a keyed table's tombstones."""
    return f"{table}_deleted"


def history_name(table: str) -> str:
    """Return the name of the table that holds a keyed table's superseded versions."""
    return f"{table}_history"


def changed_tables(table: str, key: Key) -> list[tuple[str, bool]]:
    """Return the tables that hold a keyed table's changes, itself first, each with whether it holds tombstones."""
    return [(table, False), (deleted_name(table), True)] if key.deletes else [(table, False)]


def current_tables(keyed: Mapping[str, Key]) -> tuple[str, ...]:
    """Return the tables that hold the current rows of keyed tables, and their tombstones."""
    return tuple(table for name, key in keyed.items() for table, _ in changed_tables(name, key))


def companions(keyed: Mapping[str, Key]) -> dict[str, str]:
    """Return the tables that belong to keyed ones: the keyed table's name by the companion's in lower case."""
    found = {}
    for name, key in keyed.items():
        if key.deletes:
            found[deleted_name(name).lower()] = name
        if key.history:
            found[history_name(name).lower()] = name
    return found


# -- which version is kept --------------------------------------------------------------------------------------------


def order(key: Key, *, ranked: str, timestamp: str, address: tuple[str, ...]) -> str:
    """Return ORDER BY terms that put the version to keep first, for SQLite and PostgreSQL.

    Args:
        key: the table's key.
        ranked: SQL for the value that the rule compares.
        timestamp: SQL for the timestamp.
        address: SQL terms that tell versions with equal timestamps apart: the stream's id, and the seq.
    """
    terms = (f"coalesce({timestamp}, 0)", *address)
    newest = ", ".join(f"{term} DESC" for term in terms)
    if key.conflict == FIRST:
        return ", ".join(terms)
    if ranked_by(key.conflict):
        direction = "DESC" if key.conflict.startswith("max:") else "ASC"
        return f"{ranked} {direction} NULLS LAST, {newest}"
    return newest


def judgement(key: Key) -> tuple[str, str]:
    """Return SQL that decides by a version's ``place`` in the `order` whether it is kept.

    Returns:
        An expression for the place of a tombstone that counts, NULL for everything else; its minimum over a key is the
        key's ``last_tombstone``. And a condition over ``place`` and ``last_tombstone``, true for what is not kept.
    """
    if key.conflict == KEEP_ALL:
        return "CASE WHEN is_tombstone THEN place END", "place > last_tombstone"
    return "CASE WHEN is_tombstone AND place = 1 THEN place END", "place > 1"
