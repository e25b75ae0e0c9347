"""Keyed tables: which columns are the key, and which of several versions of a row a master keeps.

A *version* is a row of the table, a *deletion* one of ``<table>_deleted``. Of all that was ever written with one key a
master keeps what its conflict rule says, which depends on the set alone, and never on the order in which it came:

``lww``
    the last written, whether version or deletion: the one with the highest (timestamp, stream id, seq)
``first``
    the version with the lowest of these; nothing is deleted
``max:column``, ``min:column``
    the version with the highest or the lowest value there, a NULL last; of equal ones the last written; nothing is
    deleted
``keep-all``
    the last deletion, and each version that was written after it

Whatever is kept of a part of the versions and whatever is kept of another part decide together what is kept of both:
so merges may come in any order. That is why the rules that do not look for the newest know no deletion: what it would
uncover is no longer there.

Rows that were written before their class had a key have no timestamp, and are older than all that have one. A row without a
value in a column of its key has no key, and is kept.
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
    """What makes a table a keyed one.

    Attributes:
        columns: the names of the key's columns.
        conflict: which version of a key is kept.
        history: whether those that are not kept go to the table's history.
    """

    columns: tuple[str, ...]
    conflict: str = LWW
    history: bool = False

    @property
    def deletes(self) -> bool:
        """Whether rows of the table can be deleted."""
        return self.conflict in (LWW, KEEP_ALL)

    @property
    def fixed(self) -> frozenset[str]:
        """The columns, in lower case, that decide what is a version of what, and which is kept.

        No agent may rename or widen one: a master that learns of it late has by then kept other versions than one that
        knew before, and what they did not keep is gone.
        """
        return frozenset(column.lower() for column in (*self.columns, ranked_by(self.conflict)) if column)

    @property
    def folded(self) -> tuple[tuple[str, ...], str]:
        """What two declarations of the same table must agree in; SQL folds case."""
        return tuple(column.lower() for column in self.columns), self.conflict.lower()


def ranked_by(conflict: str) -> str:
    """The column that a conflict rule compares; "" where it compares none."""
    rule, _, column = conflict.partition(":")
    return column if rule in ("max", "min") else ""


def fixed(*found: Key | None) -> frozenset[str]:
    """The columns that no agent may rename or widen, by any of these keys of a table."""
    return frozenset[str]().union(*(key.fixed for key in found if key is not None))


def is_rule(conflict: str) -> bool:
    """Whether it is one of the rules, as far as that can be told without the table's columns."""
    return conflict in (LWW, FIRST, KEEP_ALL) or bool(ranked_by(conflict))


def deleted_name(table: str) -> str:
    """The table that has the deletions of a keyed one."""
    return f"{table}_deleted"


def history_name(table: str) -> str:
    """The table that has the versions of a keyed one that are not kept."""
    return f"{table}_history"


def changed_tables(table: str, key: Key) -> list[tuple[str, bool]]:
    """The tables that have changes of a keyed one, itself first, each with whether its rows are deletions."""
    return [(table, False), (deleted_name(table), True)] if key.deletes else [(table, False)]


def companions(names: Mapping[str, Key]) -> dict[str, str]:
    """The names of tables that belong to keyed ones, in lower case, each with the name of that one."""
    found = {}
    for name, key in names.items():
        if key.deletes:
            found[deleted_name(name).lower()] = name
        if key.history:
            found[history_name(name).lower()] = name
    return found


# -- which are kept ---------------------------------------------------------------------------------------------------


def order(key: Key, *, ranked: str, timestamp: str, address: tuple[str, ...]) -> str:
    """The terms that put versions in order, the one that is kept first, for SQLite and for PostgreSQL.

    Args:
        key: the table's.
        ranked: SQL for the value that the rule compares.
        timestamp: SQL for the timestamp.
        address: SQL for what tells versions of equal timestamps apart: the stream's id, and the seq.
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
    """How a version's place in that order decides: the deletion that counts for its key, and whether it is not kept.

    Returns:
        SQL for the place of a version that is such a deletion, of which the lowest of a key is its ``last_deletion``;
        and SQL, over ``place`` and that, which holds for what is not kept.
    """
    if key.conflict == KEEP_ALL:
        return "CASE WHEN is_deletion THEN place END", "place > last_deletion"
    return "CASE WHEN is_deletion AND place = 1 THEN place END", "place > 1"
