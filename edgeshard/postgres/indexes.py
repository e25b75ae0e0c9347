"""Define the indexes that a push creates. None of them makes a row fail. Pure.

An index is a B-tree over whole columns, as in the master, because that serves every query. But PostgreSQL refuses a row
whose entry in a B-tree exceeds a third of a page (2,704 bytes), and texts, bytes, JSON and numerics have no such limit.
When a row does not fit into an index, the push replaces that index by one over the *starts* of these columns, which any
row fits into. Servers that have no such limit, such as CockroachDB, keep all indexes as they are.

The query that settles keyed tables (`conflicts`) compares both the starts and the whole values, so that it can use
either form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edgeshard.sqlite import quote

#: The most columns of an index there (INDEX_MAX_KEYS).
COLUMNS_MAX: Final = 32

#: How many characters or bytes all starts of an index have together. A character takes up to 4 bytes, and the headers
#: of 32 columns take less than 300.
_STARTS_LENGTH: Final = 512

#: SQL for the start of a value, of each type of PostgreSQL whose values have no limit that a B-tree could bear.
_STARTS: Final = {
    "text": "left({}, {})",
    "bytea": "substr({}, 1, {})",
    "jsonb": "left({}::text, {})",
    "numeric": "left({}::text, {})",
}


def has_limit(pg_types: Iterable[str]) -> bool:
    """Return whether no value of these types is too large for an index."""
    return _STARTS.keys().isdisjoint(pg_types)


def start(value: str, pg_type: str, index_columns: int) -> str:
    """Return SQL for the start of a value as an index over starts has it; the value itself if its type has a limit.

    Args:
        value: SQL for the value.
        pg_type: its type.
        index_columns: how many columns the index was declared with.
    """
    if pg_type not in _STARTS:
        return value
    return _STARTS[pg_type].format(value, _STARTS_LENGTH // min(index_columns, COLUMNS_MAX))


def create_index(name: str, pg_table: str, columns: Sequence[str], pg_types: Mapping[str, str], *, starts: bool) -> str:
    """Return the statement that creates an index.

    Args:
        name: its name.
        pg_table: the table.
        columns: its columns. The first 32 of a longer index find nearly the same rows.
        pg_types: the type of each column.
        starts: whether it is over the starts of the columns, or else over the whole columns.
    """
    columns = columns[:COLUMNS_MAX]
    terms = [quote(column) for column in columns]
    if starts:
        terms = [start(term, pg_types[column], len(columns)) for column, term in zip(columns, terms, strict=True)]
        terms = [f"({term})" for term in terms]
    return f"CREATE INDEX IF NOT EXISTS {quote(name)} ON {quote(pg_table)} ({', '.join(terms)})"
