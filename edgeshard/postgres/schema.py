"""Which statements a table of PostgreSQL still needs before rows of the master's table can go there. Pure.

Names are in lower case there: SQLite folds case, and so do names in PostgreSQL that nobody quotes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.postgres import schema_drift
from edgeshard.postgres.values import TYPES
from edgeshard.records import keys, types
from edgeshard.records.keys import Key, companions
from edgeshard.sqlite import quote

#: Of our tables there; a server with another one is for a later edgeshard.
FORMAT: Final = 1

#: The bytes of a name; PostgreSQL cuts a longer one off without an error.
_NAME_MAX: Final = 63

KEY: Final = ("_stream", "_seq")

#: Our own tables there. Nothing in them that a distributed database lacks: no sequences, triggers or foreign keys.
TABLES: Final[Mapping[str, str]] = {
    "edgeshard_database": "one integer PRIMARY KEY, id uuid NOT NULL, format integer NOT NULL",
    "edgeshard_streams": "stream uuid PRIMARY KEY, agent_id text NOT NULL, began_at text NOT NULL, "
    "last_seq bigint NOT NULL",
    "edgeshard_ranges": "stream uuid NOT NULL, first bigint NOT NULL, last bigint NOT NULL, "
    "PRIMARY KEY (stream, first)",
    "edgeshard_columns": "table_name text NOT NULL, column_name text NOT NULL, type text NOT NULL, "
    "PRIMARY KEY (table_name, column_name)",
    "edgeshard_indexes": "name text PRIMARY KEY",
}

#: Which tables have a key. Made with the first of them: databases of earlier pushes have none.
KEYS: Final = "edgeshard_keys"

_KEYS_TABLE: Final = (
    f"CREATE TABLE IF NOT EXISTS {KEYS} (table_name text PRIMARY KEY, columns text NOT NULL, conflict text NOT NULL, "
    # false: it had rows before it had a key, and of these all versions are there still
    "is_settled boolean NOT NULL)"
)


@attrs.frozen
class Table:
    """A record table of the master.

    Attributes:
        name: its name there.
        columns: its columns in order, each with its kind.
        indexes: the columns of each of its indexes.
        key: what makes it a keyed table; None: it is none.
        renames: older names of columns, in lower case, each with the name that it has now.
        history_of: the keyed table whose history it is, as it is called there; "": it is none.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    key: Key | None = None
    renames: tuple[tuple[str, str], ...] = ()
    history_of: str = ""

    @property
    def there(self) -> str:
        """Its name in PostgreSQL."""
        return self.name.lower()

    @property
    def family(self) -> tuple[str, ...]:
        """The names, there, of the table and of what belongs to it where it is keyed."""
        return (self.there,) if self.key is None else (self.there, *companions({self.there: self.key}))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of its columns, in order."""
        return tuple(kind for _, kind in self.columns)


@attrs.frozen
class Found:
    """A table as PostgreSQL has it.

    Attributes:
        columns: the type of each column, with its precision where that is not the type's own.
        key: the columns of its primary key, in order.
        indexes: the names of those that were made by us once, of all tables.
        waiting: the older names of columns that are there by both, where rows have a value by the older one alone.
        rounded: the columns of integers with some that a real would round.
        version_key: its key, as an earlier push noted it; None: none did.
    """

    columns: Mapping[str, str]
    key: tuple[str, ...]
    indexes: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    rounded: frozenset[str] = frozenset()
    version_key: Key | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is such a table at all."""
        return bool(self.columns)


@attrs.frozen
class Need:
    """What a table needs: statements, the columns that they make, the indexes, and what changes of columns.

    Attributes:
        renamed: the columns that get another name, (old, new).
        widened: the columns that get another kind.
    """

    statements: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    indexes: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    widened: tuple[tuple[str, str], ...] = ()


def needed(table: Table, found: Found) -> Need:
    """What makes PostgreSQL's table one that takes the rows of the master's.

    Raises:
        SchemaConflictError: it cannot be made so.
    """
    _check_names(table)
    fixed = keys.fixed(table.key, found.version_key)
    renamed = _renamed(table, found, fixed)
    if renamed:
        now = {dict(renamed).get(name, name): there for name, there in found.columns.items()}
        found = attrs.evolve(found, columns=now)
    widened = _check_table(table, found, fixed) if found.is_there else ()
    new = tuple((name.lower(), kind) for name, kind in table.columns if name.lower() not in found.columns)
    declared = [f"{quote(name)} {TYPES[kind]}" for name, kind in new]
    if found.is_there:
        statements = [
            *schema_drift.renaming(table.there, renamed),
            *schema_drift.widening(table.there, widened, found.columns),
        ]
        statements += [f"ALTER TABLE {quote(table.there)} ADD COLUMN {item}" for item in declared]
        statements += _moving(table, found, fixed)
    else:
        columns = ", ".join(["_stream uuid NOT NULL", "_seq bigint NOT NULL", *declared])
        statements = [f"CREATE TABLE {quote(table.there)} ({columns}, PRIMARY KEY (_stream, _seq))"]
    indexes = {index_name(table.there, index): index for index in table.indexes}
    made = tuple(name for name in indexes if name not in found.indexes)
    for name in made:
        columns = ", ".join(quote(column.lower()) for column in indexes[name])
        statements.append(f"CREATE INDEX IF NOT EXISTS {quote(name)} ON {quote(table.there)} ({columns})")
    if table.key is not None:
        statements += _key_statements(table, table.key, found)
    elif found.version_key is not None:
        raise _unknown_key(table, found.version_key)
    return Need(tuple(statements), new, made, renamed, widened)


def _key_statements(table: Table, key: Key, found: Found) -> list[str]:
    columns, rule = ", ".join(column.lower() for column in key.columns), key.conflict.lower()
    if found.version_key is None:
        # names are letters, digits and _: nothing in them needs to be escaped
        said = f"'{table.there}', '{columns}', '{rule}', {str(not found.is_there).lower()}"
        return [_KEYS_TABLE, f"INSERT INTO {KEYS} VALUES ({said}) ON CONFLICT DO NOTHING"]
    if found.version_key.folded != key.folded:
        cause = (
            f"it has the key ({columns}) with conflict {rule!r} here, and in PostgreSQL "
            f"({', '.join(found.version_key.columns)}) with {found.version_key.conflict!r}; give the class another "
            "table name"
        )
        raise conflict(table.name, cause)
    return []


def _unknown_key(table: Table, there: Key) -> SchemaConflictError:
    cause = (
        f"PostgreSQL has the key ({', '.join(there.columns)}) for it, by another master, and this one knows none: its "
        "rows would stand beside those that they should replace. Merge what was pushed there from elsewhere into this "
        "master as well, or let its agents' class have the key"
    )
    return conflict(table.name, cause)


def with_all_columns(table: Table, its: Mapping[str, str], there: Mapping[str, str]) -> Table:
    """A history with the columns, too, that its table got from other masters: their versions go to it with them.

    Args:
        table: the history.
        its: the type of each column that the keyed table has there.
        there: the type of each column that the history has there.
    """
    known = {name.lower() for name, _ in table.columns}
    known.update(old for old, new in table.renames if new not in its)  # it is about to be renamed
    more = []
    for name, type_ in its.items():
        kind = schema_drift.KIND_OF.get(type_)
        if kind is not None and name not in known and name not in KEY:
            before = schema_drift.KIND_OF.get(there.get(name, type_), kind)
            more.append((name, types.widest(before, kind) or kind))
    return attrs.evolve(table, columns=(*table.columns, *more))


def relatives(table: Table, tables: Sequence[Table]) -> list[Table]:
    """A table, and those that are needed with it: of a keyed one its deletions and its history, and the other way."""
    for owner in tables:
        if owner.key is not None and table.there in owner.family:
            return [each for each in tables if each.there in owner.family]
    return [table]


def index_name(table: str, columns: tuple[str, ...]) -> str:
    """The name of an index there; a digest keeps long ones apart."""
    name = "_".join([table, *(column.lower() for column in columns), "idx"])
    if len(name) <= _NAME_MAX:
        return name
    return f"{name[:46]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}_idx"


def conflict(table: str, cause: str) -> SchemaConflictError:
    """What to raise of a table."""
    return SchemaConflictError("push table", table, cause)


def _check_names(table: Table) -> None:
    for name in (table.name, *(column for column, _ in table.columns)):
        if len(name) > _NAME_MAX:
            cause = f"the name {name} has more than the {_NAME_MAX} characters that PostgreSQL's names can have"
            raise conflict(table.name, cause)


def _check_fixed(table: Table, fixed: frozenset[str], columns: Iterable[str], what: str) -> None:
    for column in fixed.intersection(columns):
        cause = (
            f"column {column} {what}, and its key, or its conflict rule, has it: there a column keeps its name and its "
            "type. Give the class another table name"
        )
        raise conflict(table.name, cause)


def _renamed(table: Table, found: Found, fixed: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """The columns there that only have an older name; the first of several that lead to one."""
    renamed: dict[str, str] = {}
    for old, new in table.renames:
        if old in found.columns and new not in found.columns and new not in renamed.values():
            _check_fixed(table, fixed, (old, new), f"would be renamed in PostgreSQL ({old} to {new})")
            renamed[old] = new
    return tuple(renamed.items())


def _moving(table: Table, found: Found, fixed: frozenset[str]) -> list[str]:
    """What brings values to the new name, where a column is there by both."""
    ours = {name.lower(): kind for name, kind in table.columns}
    statements = []
    for old, new in table.renames:
        if old not in found.waiting or new not in ours:
            continue
        _check_fixed(table, fixed, (old, new), f"would be renamed in PostgreSQL ({old} to {new})")
        before, kind = schema_drift.KIND_OF.get(found.columns[old], ""), ours[new]
        if types.widest(before, kind) != kind or (types.may_not_fit(before, kind) and new in found.rounded):
            cause = f"column {old} is {found.columns[old]} in PostgreSQL, with values that {new}, as it is called now"
            raise conflict(table.name, f"{cause}, and is {kind}, cannot hold; rename that column")
        statements.append(schema_drift.moving(table.there, old, new, found.columns[old], kind))
    return statements


def _check_table(table: Table, found: Found, fixed: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Refuse a table that cannot take the master's rows; the columns that get a wider kind first."""
    keyed = tuple(found.columns.get(column) for column in KEY)
    if found.key != KEY or keyed != ("uuid", "bigint"):
        cause = (
            "PostgreSQL has a table of this name that was not made by a push: its primary key is not (_stream uuid, "
            "_seq bigint). Rename that table, or push into another schema (options=-csearch_path=...)"
        )
        raise conflict(table.name, cause)
    widened = []
    for name, kind in table.columns:
        there = found.columns.get(name.lower())
        if there is None or there == schema_drift.named(kind):
            continue
        _check_fixed(table, fixed, (name.lower(),), f"is {there} in PostgreSQL, and {kind} here")
        before = schema_drift.KIND_OF.get(there, "")
        if not before or types.widest(before, kind) != kind:
            wider = ". It never gets narrower: merge what was pushed there from elsewhere into this master as well, or"
            cause = f"column {name} is {there} in PostgreSQL, and {kind} here, which needs {schema_drift.named(kind)}"
            raise conflict(table.name, f"{cause}{wider if before else ';'} rename that column")
        if types.may_not_fit(before, kind) and name.lower() in found.rounded:
            cause = (
                f"column {name} is real here, and has integers beyond 2^53 in PostgreSQL, which that would round; make "
                "the field Decimal, which holds both, or rename it"
            )
            raise conflict(table.name, cause)
        widened.append((name.lower(), kind))
    return tuple(widened)
