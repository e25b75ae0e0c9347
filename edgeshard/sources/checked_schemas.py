"""Remember which schemas were checked: almost all shards have the same one, and checking it takes a dozen statements.

What is remembered is the exact text that was checked: each line of ``sqlite_schema``, and what the source's own tables
say of its record tables. It is read anew in each transaction, and compared in full. So a schema that differs by one
character is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

import attrs

from edgeshard import format, sqlite
from edgeshard.sources.source import SourceTable
from edgeshard.sqlite import Connection, quote

#: The type, name, table and SQL of each object of a database, and whether it has a root page.
Objects = tuple[tuple[Any, ...], ...]

#: How many schemas are remembered, and the most lines and characters of one: a few MB in all.
_SCHEMAS_MAX: Final = 64

_LINES_MAX: Final = 500

_CHARS_MAX: Final = 50_000

#: What is read of a source's own tables, each line with its kind. The first says what the source is; the others, what
#: record tables it has. Those of `format.OPTIONAL_SHARD_TABLES` are optional.
_DATABASE: Final = "database"

_NOTES: Final = {
    "_edgeshard_database": f"'{_DATABASE}', role, database_id, agent_id, NULL FROM {{0}}",
    "_edgeshard_columns": "'column', table_name, column_name, type, position FROM {0}",
    format.INDEXES: "'index', table_name, columns, NULL, NULL FROM {0}",
    format.KEYS: "'key', table_name, columns, conflict, has_history FROM {0}",
    format.RENAMES: "'rename', table_name, old_name, new_name, NULL FROM {0}",
    format.PRIORITIES: "'priority', table_name, priority, NULL, NULL FROM {0}",
}


@attrs.frozen
class Checked:
    """What was found in a schema that is as it should be.

    Attributes:
        tables: its record tables.
        priorities: their priorities.
    """

    tables: tuple[SourceTable, ...]
    priorities: Mapping[str, int]


@attrs.frozen
class Recalled:
    """A schema that was checked before, in the database that has it now.

    Attributes:
        identity: the lines of ``_edgeshard_database``: role, database id, and agent.
        checked: what was found then.
    """

    identity: list[tuple[Any, ...]]
    checked: Checked


#: For the objects of each schema the names of its optional tables, and what was found for each text of the notes.
_checked: dict[Objects, tuple[frozenset[str], dict[tuple[Any, ...], Checked]]] = {}


def read_objects(connection: Connection, schema: str) -> Objects:
    """Return the objects of an attached database, as its snapshot has them now."""
    sql = f"SELECT type, name, tbl_name, sql, rootpage > 0 FROM {quote(schema)}.sqlite_schema"
    return tuple(sqlite.fetch(connection, sql))


def recall(connection: Connection, schema: str, objects: Objects) -> Recalled | None:
    """Return what was found when the schema of an attached database was checked, or None if it never was.

    Its own tables are read only if its objects were checked: then they are the ordinary tables that edgeshard makes.

    Args:
        connection: the connection to which the database is attached, in a transaction.
        schema: the name by which it is attached.
        objects: what `read_objects` returned in this transaction.
    """
    known = _checked.get(objects)
    if known is None:
        return None
    identity, notes = _read_notes(connection, schema, known[0])
    checked = known[1].get(notes)
    return None if checked is None else Recalled(identity, checked)


def remember(connection: Connection, schema: str, objects: Objects, present: Set[str], checked: Checked) -> None:
    """Remember a schema that was found to be as it should be.

    Args:
        connection: the connection to which the database is attached, in the transaction in which it was checked.
        schema: the name by which it is attached.
        objects: what `read_objects` returned in this transaction.
        present: the names of the format's optional tables that it has.
        checked: what was found.
    """
    _, notes = _read_notes(connection, schema, present)
    if not (_is_small(objects) and _is_small(notes)):
        return
    if sum(len(by_notes) for _, by_notes in _checked.values()) >= _SCHEMAS_MAX:
        _checked.clear()
    _checked.setdefault(objects, (frozenset(present), {}))[1][notes] = checked


def _read_notes(
    connection: Connection, schema: str, present: Set[str]
) -> tuple[list[tuple[Any, ...]], tuple[tuple[Any, ...], ...]]:
    """Return the lines that say what a database is, and what is noted of its tables, after its role."""
    parts = (
        f"SELECT {text.format(f'{quote(schema)}.{name}')}"
        for name, text in _NOTES.items()
        if name not in format.OPTIONAL_SHARD_TABLES or name in present
    )
    lines = sqlite.fetch(connection, f"{' UNION ALL '.join(parts)} LIMIT {_LINES_MAX + 1}")
    identity = [line[1:4] for line in lines if line[0] == _DATABASE]
    roles = [(line[0], line[1]) for line in lines if line[0] == _DATABASE]  # which tables it needs depends on its role
    return identity, (*roles, *(line for line in lines if line[0] != _DATABASE))


def _is_small(lines: Iterable[tuple[Any, ...]]) -> bool:
    """Return whether a text is short enough to be remembered, and holds no value that equals one of another type."""
    count = chars = 0
    for line in lines:
        count += 1
        if not all(value is None or type(value) in (str, int) for value in line):
            return False
        chars += sum(len(value) for value in line if isinstance(value, str))
    return count <= _LINES_MAX and chars <= _CHARS_MAX
