"""attrs classes <-> tables: names, kinds of columns, and the values between them.

A record's values are converted here and nowhere else. SQLite's STRICT tables check the plain kinds for us; what SQLite
would change silently (NaN becomes NULL, a number in a text column becomes text) is refused before it gets there.
"""

from __future__ import annotations

import enum
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from edgeshard import format
from edgeshard.errors import TableError
from edgeshard.records import keys
from edgeshard.records.codecs import CONVERSIONS
from edgeshard.records.columns import Column, Table, is_column_name, is_reserved
from edgeshard.records.keys import Key

_OPTIONS = "__edgeshard_table__"

_DELETION = "__edgeshard_deletion__"

_DELETION_OF = "__edgeshard_deletion_of__"

#: Kinds whose text has another order than their values, or none: no conflict rule can compare them.
_UNORDERED = ("decimal", "json", "uuid", "blob")


@attrs.frozen
class _Options:
    name: str | None = None
    index: tuple[tuple[str, ...], ...] = ()
    key: tuple[str, ...] = ()
    conflict: str = keys.LWW
    history: bool = False
    priority: int = 0
    renamed: tuple[tuple[str, str], ...] = ()


_T = typing.TypeVar("_T", bound=type)


@typing.overload
def table(cls: _T, /) -> _T: ...


@typing.overload
def table(
    *,
    name: str | None = None,
    index: Iterable[str | Iterable[str]] = (),
    key: str | Iterable[str] = (),
    conflict: str = keys.LWW,
    history: bool = False,
    priority: int = 0,
    renamed: Mapping[str, str] | None = None,
) -> Callable[[_T], _T]: ...


def table(
    cls: _T | None = None,
    /,
    *,
    name: str | None = None,
    index: Iterable[str | Iterable[str]] = (),
    key: str | Iterable[str] = (),
    conflict: str = keys.LWW,
    history: bool = False,
    priority: int = 0,
    renamed: Mapping[str, str] | None = None,
) -> _T | Callable[[_T], _T]:
    """Say how an attrs class is stored. Optional: a plain attrs class is a table too, named in snake_case.

    Args:
        name: the table's name in SQL; by default the class's, in snake_case.
        index: columns to index in the master, each a name or several names. Shards have none: they only append.
        key: a column, or several, of which the master keeps one row each: a write takes the place of an earlier one
            with the same key, and `Shard.delete` deletes by it. Without it all rows are kept.
        conflict: which of several rows with one key is kept, whoever wrote them and in whatever order they are merged:
            "lww" the last written; "first" the first; "max:column" or "min:column" the one with the highest or lowest
            value there; "keep-all" each that was written after the last deletion.
        history: keep those that are replaced, in ``<table>_history``.
        priority: how long rows are kept where the store has a budget and drops the oldest (0 to 1000): those of tables
            with a lower one go first. Where agents disagree the highest wins. Of a table with a key it is its history
            that this concerns: the rows that count are never dropped.
        renamed: the older names of fields, ``{"old": "new"}``, for as long as agents or shards may have them; several
            old names may lead to one field. The master has one column, by the new name. Columns of a key, and the one
            that a conflict rule compares, keep their names.

    Raises:
        TableError: an index given as one bare str (a list of names is meant), no such priority, or `renamed` is no
            mapping of names.
    """
    if isinstance(index, str):
        raise TableError("declare table", "", f"index takes a list of column names: index=[{index!r}]")
    if not isinstance(renamed, (Mapping, types.NoneType)):
        raise TableError("declare table", "", 'renamed takes the older names of fields: renamed={"old": "new"}')
    options = _Options(
        name,
        tuple((item,) if isinstance(item, str) else tuple(item) for item in index),
        (key,) if isinstance(key, str) else tuple(key),
        conflict,
        history,
        _priority(priority),
        tuple((renamed or {}).items()),
    )

    def mark(cls: _T) -> _T:
        setattr(cls, _OPTIONS, options)
        return cls

    return mark if cls is None else mark(cls)


def table_of(cls: type) -> Table:
    """The table that an attrs class declares.

    Raises:
        TableError: it is no attrs class, or a name or type of it cannot be stored; says which, and what can.
    """
    if not attrs.has(cls):
        raise TableError(
            "declare table", "", f"{cls.__name__} is not an attrs class; records are attrs instances or dicts"
        )
    if (kept := vars(cls).get(_DELETION_OF)) is not None:
        return _deletions(table_of(kept))
    options = vars(cls).get(_OPTIONS, _Options())
    name = options.name or _snake_case(cls.__name__)
    _check_name(name, f"table {name!r}")
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise TableError(
            "declare table", "", f"{cls.__name__} has an annotation that cannot be resolved: {error}"
        ) from error
    columns = tuple(_column(cls, field.name, hints.get(field.name)) for field in attrs.fields(cls))
    if not columns:
        raise TableError("declare table", "", f"{cls.__name__} has no fields")
    folded = {column.name.lower() for column in columns}
    if len(columns) > format.COLUMNS_MAX:
        raise TableError("declare table", "", f"{cls.__name__} has more than {format.COLUMNS_MAX} fields")
    if len(folded) < len(columns):
        raise TableError("declare table", "", f"{cls.__name__} has two fields that differ only in case; SQL folds case")
    _check_indexes(cls, options.index, {column.name for column in columns})
    key = _key(cls, options, {column.name: column for column in columns})
    if options.priority and key is not None and not key.history:
        cause = (
            f"{cls.__name__}: rows of a table with a key are never dropped: priority is of its history, and it has none"
        )
        raise TableError("declare table", "", cause)
    _check_renamed(cls, options.renamed, {column.name for column in columns})
    _check_fixed(name, key, options.renamed)
    return Table(name, columns, options.index, key, priority=options.priority, renames=options.renamed)


def _priority(given: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= format.PRIORITY_MAX:
        cause = f"a priority is a whole number from 0 to {format.PRIORITY_MAX}, not {given!r}"
        raise TableError("declare table", "", cause)
    return given


def _check_renamed(cls: type, renamed: tuple[tuple[str, str], ...], columns: set[str]) -> None:
    def refuse(what: str) -> TableError:
        return TableError("declare table", "", f"renamed of {cls.__name__}: {what}")

    folded = {column.lower() for column in columns}
    seen: set[str] = set()
    for old, new in renamed:
        if not isinstance(old, str):
            raise refuse(f"{old!r} is not a name")
        _check_name(old, f"renamed of {cls.__name__}, {old!r}")
        if new not in columns:
            raise refuse(f"{old!r} leads to {new!r}, which is no field of it")
        if old.lower() in folded:
            raise refuse(f"{old!r} is a field of it still (SQL folds case); an old name cannot have another meaning")
        if old.lower() in seen:
            raise refuse(f"{old!r} is there twice (SQL folds case)")
        seen.add(old.lower())


def _check_fixed(name: str, key: Key | None, renamed: tuple[tuple[str, str], ...]) -> None:
    fixed = keys.fixed(key)
    for old, new in renamed:
        if new.lower() in fixed:
            cause = (
                f"table {name}: renamed says that {new} was called {old}, and a column of its key, or of its conflict "
                f"rule, must keep its name. Call it {old}, or give the table another name"
            )
            raise TableError("declare table", "", cause)


def _key(cls: type, options: _Options, columns: Mapping[str, Column]) -> Key | None:
    def refuse(cause: str) -> TableError:
        return TableError("declare table", "", f"{cls.__name__}: {cause}")

    if not options.key:
        if options.conflict != keys.LWW or options.history:
            raise refuse("conflict and history are for tables with a key: add key=... with the names of its columns")
        return None
    if len(set(options.key)) < len(options.key):
        raise refuse("its key names a column twice")
    for name in options.key:
        if cause := _key_refusal(columns.get(name)):
            raise refuse(f"its key has {name!r}, {cause}")
    ranked = keys.ranked_by(options.conflict)
    if not keys.is_rule(options.conflict):
        rules = "'lww', 'first', 'keep-all', 'max:column' or 'min:column'"
        raise refuse(f"conflict is {rules}, not {options.conflict!r}")
    if ranked and (ranked not in columns or columns[ranked].type in _UNORDERED):
        raise refuse(f"conflict {options.conflict!r} needs a field of numbers, texts or times, and {ranked!r} is none")
    return Key(options.key, options.conflict, options.history)


def _key_refusal(column: Column | None) -> str:
    """Why a field cannot be of a key, to follow its name; "" where it can."""
    if column is None:
        return "which is no field of it"
    if column.optional or column.type == "json":
        return "which must not be Optional, a dict or a list: each row needs a key"
    if column.type == "decimal":
        # they are one number in PostgreSQL, and two texts here
        return "a Decimal, of which 1.0 and 1.00 would be two keys: make it an int, or a str that you write in one way"
    return ""


# -- deletions --------------------------------------------------------------------------------------------------------


def deletion(cls: type, values: tuple[Any, ...]) -> Any:
    """The record that deletes a row of a class's table by its key.

    Raises:
        TableError: the class has no key, or its rule knows no deletion, or these are not as many values as it has.
    """
    if (made := vars(cls).get(_DELETION)) is None:
        made = _deletion_class(cls)
        setattr(cls, _DELETION, made)
    fields = attrs.fields(made)
    if len(values) != len(fields):
        names = ", ".join(field.name for field in fields)
        cause = f"the key of {cls.__name__} is ({names}), and {len(values)} values were given"
        raise TableError("delete", "", cause)
    return made(*values)


def _deletion_class(cls: type) -> type:
    table = table_of(cls)
    if table.key is None:
        cause = f"{cls.__name__} has no key; declare it with @edgeshard.table(key=...), or prune old rows"
        raise TableError("delete", "", cause)
    if not table.key.deletes:
        cause = f"{cls.__name__} has conflict={table.key.conflict!r}, which does not ask what was written last"
        raise TableError("delete", "", f"{cause}; only 'lww' and 'keep-all' tables know deletions")
    fields = {name: attrs.field(alias=name) for name in table.key.columns}
    made: type = attrs.make_class(f"{cls.__name__}Deleted", fields, frozen=True, slots=True)
    setattr(made, _DELETION_OF, cls)
    return made


def _deletions(kept: Table) -> Table:
    if kept.key is None:
        raise AssertionError(f"table {kept.name} has no key")
    columns = {column.name: column for column in kept.columns}
    return Table(keys.deleted_name(kept.name), tuple(columns[name] for name in kept.key.columns), deletes_from=kept)


def _check_indexes(cls: type, indexes: tuple[tuple[str, ...], ...], columns: set[str]) -> None:
    if len(indexes) > format.INDEXES_MAX:
        raise TableError("declare table", "", f"{cls.__name__} has more than {format.INDEXES_MAX} indexes")
    for item in indexes:
        if not item or len(set(item)) < len(item):
            raise TableError("declare table", "", f"index {item!r} of {cls.__name__} names no column, or one twice")
        for column in item:
            if column not in columns:
                raise TableError(
                    "declare table", "", f"index of {cls.__name__} names {column!r}, which is no field of it"
                )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_name(name: str, what: str) -> None:
    if not is_column_name(name) or is_reserved(name):
        raise TableError(
            "declare table",
            "",
            f"{what}: names are letters, digits and _, begin with a letter, and not with edgeshard_ or sqlite_",
        )


def _column(cls: type, name: str, hint: Any) -> Column:
    where = f"{cls.__name__}.{name}"
    _check_name(name, where)
    if hint is None:
        raise TableError("declare table", "", f"{where} has no type annotation")
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [item for item in typing.get_args(hint) if item is not types.NoneType]
        optional = len(inner) < len(typing.get_args(hint))
        hint = inner[0] if len(inner) == 1 else hint
    kind, encode, decode = _conversion(where, hint)
    return Column(name, kind, optional, encode, decode)


def _conversion(where: str, hint: Any) -> tuple[str, Callable[[Any], Any] | None, Callable[[Any], Any] | None]:
    origin = typing.get_origin(hint) or hint
    if origin in CONVERSIONS:
        return CONVERSIONS[origin]
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return _enum_conversion(where, origin)
    raise TableError(
        "declare table",
        "",
        f"{where} has type {hint!r}; columns are bool, int, float, str, bytes, datetime, date, Decimal, UUID, "
        "an Enum, a dict or list (stored as JSON), or Optional of one of these",
    )


def _enum_conversion(where: str, cls: type[enum.Enum]) -> tuple[str, Callable[[Any], Any], Callable[[Any], Any]]:
    kinds = {type(member.value) for member in cls}
    if len(kinds) != 1 or not kinds <= {str, int, float}:
        raise TableError(
            "declare table", "", f"{where}: the values of Enum {cls.__name__} must all be str, all int or all float"
        )
    kind: str = CONVERSIONS[kinds.pop()][0]

    def encode(value: Any) -> Any:
        return cls(value).value  # a member, or the value of one

    return kind, encode, cls


@table
@attrs.frozen
class AgentData:
    """The default record: what ``shard.write`` makes of a dict.

    Attributes:
        agent_id: the agent's name, exactly as given.
        timestamp: when it was written, in seconds since 1970 by the device's clock.
        data: the dict.
    """

    agent_id: str
    timestamp: float
    data: dict[str, Any]
