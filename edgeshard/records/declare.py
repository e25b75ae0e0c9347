"""Read what a record class declares about its table, and refuse what cannot be stored.

`table` keeps the options of a class. `table_of` turns the class into a `Table`, step by step: its name, its columns
(from the annotations), its indexes, its key and its renames. `dict_table` is the table of dicts, under any name.
`deletion` makes the record that deletes a row by its key.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from edgeshard import format, units
from edgeshard.errors import TableError, quoted
from edgeshard.records import field_types, forms, keys, limits, names
from edgeshard.records.columns import Column, Table
from edgeshard.records.forms import Field, Form
from edgeshard.records.keys import Key

#: Class attributes: the options of a class; its table; the class of its tombstones; and in that class, the class it
#: belongs to.
_OPTIONS = "__edgeshard_table__"

_READ = "__edgeshard_read__"

_DELETION = "__edgeshard_deletion__"

_DELETION_OF = "__edgeshard_deletion_of__"

#: Types whose text sorts differently from their values, or not at all: no conflict rule can compare them.
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
    hints: Mapping[str, Any] | None = None  # the types of a class's fields, where it was declared in a function


_NO_OPTIONS = _Options()


@attrs.frozen
class _Read:
    """The table that was read of a class, and what it was read from.

    Kept in the class itself, because the table refers to the class: a mapping, even a weak one, would keep both alive.
    """

    table: Table
    options: _Options
    declaration: tuple[Any, ...]

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """Be pickled as None: a class that is sent to another process whole, as cloudpickle does, is read there."""
        return types.NoneType, ()


_Class = typing.TypeVar("_Class", bound=type)


@typing.overload
def table(cls: _Class, /) -> _Class: ...


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
) -> Callable[[_Class], _Class]: ...


def table(
    cls: _Class | None = None,
    /,
    *,
    name: str | None = None,
    index: Iterable[str | Iterable[str]] = (),
    key: str | Iterable[str] = (),
    conflict: str = keys.LWW,
    history: bool = False,
    priority: int = 0,
    renamed: Mapping[str, str] | None = None,
) -> _Class | Callable[[_Class], _Class]:
    """Declare how a class is stored: an attrs class, a dataclass, a pydantic model, a NamedTuple or a TypedDict.

    Optional: such a class is a table without it, named in snake_case.

    Args:
        name: the table's name in SQL; by default the class's, in snake_case.
        index: columns to index in the master, each a name or several names. Shards have no indexes: they only append.
        key: a column, or several. The master keeps one row for each key: a write replaces an earlier one with the same
            key, and `Shard.delete` deletes by it. Without a key all rows are kept.
        conflict: which of several rows with one key is kept, whichever agents wrote them and in any order of merging:
            "lww" the last written; "first" the first; "max:column" or "min:column" the one with the highest or lowest
            value there; "keep-all" each that was written after the last deletion.
        history: keep superseded rows in ``<table>_history``.
        priority: how long rows are kept if the store has a disk budget and drops the oldest (0 to 1000): rows of tables
            with a lower priority are dropped first. If agents disagree, the highest wins. For a table with a key it
            applies to its history: current rows are never dropped.
        renamed: the older names of fields, ``{"old": "new"}``, for as long as agents or shards may have them. Several
            old names may lead to one field. The master has one column, with the new name. Columns of a key, and the one
            that a conflict rule compares, keep their names.

    Raises:
        TableError: an index is one bare str (a list of names is meant), the priority is invalid, or `renamed` is not a
            mapping of names.
    """
    if cls is not None and not isinstance(cls, type):
        right = f"name={cls!r}" if isinstance(cls, str) else "key=..."
        raise _error(
            f"@edgeshard.table takes keywords, as in @edgeshard.table({right}), or a class, got {quoted(cls, 100)}"
        )
    if not isinstance(name, (str, types.NoneType)):
        raise _error(f'name must be a str, as in @edgeshard.table(name="readings"), got {quoted(name, 100)}')
    for what, columns in (("key", key), ("index", index)):
        if not isinstance(columns, Iterable):
            raise _error(f'{what} must be a list of column names, as in {what}=["sensor"], got {quoted(columns, 100)}')
    if isinstance(index, str):
        raise _error(f"index must be a list of column names: index=[{index!r}]")
    if not isinstance(renamed, (Mapping, types.NoneType)):
        raise _error('renamed must map older names of fields to newer ones: renamed={"old": "new"}')
    options = _Options(
        name,
        tuple((item,) if isinstance(item, str) else tuple(item) for item in index),
        (key,) if isinstance(key, str) else tuple(key),
        conflict,
        history,
        _checked_priority(priority),
        tuple((renamed or {}).items()),
    )

    def mark(cls: _Class) -> _Class:
        return _marked(cls, options, sys._getframe(1))

    return mark if cls is None else _marked(cls, options, sys._getframe(1))


def _marked(cls: _Class, options: _Options, frame: types.FrameType) -> _Class:
    """Return a class that keeps its options; `frame` is where it is declared."""
    setattr(cls, _OPTIONS, attrs.evolve(options, hints=_local_hints(cls, frame)))
    return cls


def _local_hints(cls: Any, frame: types.FrameType) -> Mapping[str, Any] | None:
    """Return the types of the fields of a class made in a function, which may name what only the function knows."""
    if "<locals>" not in getattr(cls, "__qualname__", "") or not any(
        isinstance(hint, str) for hint in getattr(cls, "__annotations__", {}).values()
    ):
        return None
    try:
        return forms.resolve_hints(cls, frame.f_locals)
    except TableError:
        return None  # `table_of` says what is wrong


def _checked_priority(priority: int) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= format.PRIORITY_MAX:
        raise _error(f"priority must be a whole number from 0 to {format.PRIORITY_MAX}, got {quoted(priority)}")
    return priority


def table_of(cls: type) -> Table:
    """Return the table that a record class declares.

    To read a class takes a tenth of the time of opening a shard for one row (measured). So it is read once, and again
    only after it was decorated again. Its annotations are resolved when it is read.

    Raises:
        TableError: the class is of no kind that can be stored, or one of its names or types; the error says which, and
            what can.
    """
    attributes = getattr(cls, "__dict__", {})
    if (keyed := attributes.get(_DELETION_OF)) is not None:
        return _tombstone_table(table_of(keyed), forms.form_of(cls))
    options: _Options = attributes.get(_OPTIONS, _NO_OPTIONS)
    declaration = forms.declaration(cls)
    read: _Read | None = attributes.get(_READ)
    if read is not None and read.options is options and forms.is_same_declaration(read.declaration, declaration):
        return read.table
    table = _read_table(cls, options)
    with contextlib.suppress(TypeError, AttributeError):  # a metaclass may refuse it; then each opening reads the class
        setattr(cls, _READ, _Read(table, options, declaration))
    return table


def _read_table(cls: type, options: _Options) -> Table:
    form = forms.form_of(cls, options.hints)
    name = options.name or names.snake_case(cls.__name__)
    _check_table_name(name, f"table {name!r}")
    columns = _columns(form)
    by_name = {column.name: column for column in columns}
    _check_indexes(cls, options.index, by_name)
    key = _key(cls, options, by_name)
    _check_companions(name, key)
    _check_renames(cls, options.renamed, by_name)
    _check_fixed(name, key, options.renamed)
    if excess := limits.excess(by_name, options.index, key, options.renamed):
        raise _error(f"{cls.__name__} has {excess}")
    return Table(name, columns, options.index, key, priority=options.priority, renames=options.renamed, form=form)


@functools.lru_cache(maxsize=256)
def dict_table(name: str) -> Table:
    """Return the table of this name for dicts of any keys. It has the same columns as `AgentData`'s.

    The last ones are kept: a process that writes one row would take a tenth of its time for this.

    Raises:
        TableError: no table can have this name.
    """
    _check_table_name(name, f"table {name!r}")
    return attrs.evolve(table_of(AgentData), name=name, form=None)


def _error(cause: str) -> TableError:
    return TableError("declare table", "", cause)


def _check_table_name(name: str, subject: str) -> None:
    _check_name(name, subject)
    if names.is_view_name(name):
        raise _error(f"{subject}: the names of a master's views end with {names.VIEW_SUFFIX}; choose another name")


def _check_name(name: str, subject: str) -> None:
    if not names.is_column_name(name) or names.is_reserved(name):
        raise _error(
            f"{subject}: a name must have 1 to 100 letters, digits or _, begin with a letter, and not begin with "
            "edgeshard_ or sqlite_; choose another"
        )


# -- columns ----------------------------------------------------------------------------------------------------------


def _columns(form: Form) -> tuple[Column, ...]:
    columns = tuple(_column(form.cls, field) for field in form.fields)
    if len({column.name.lower() for column in columns}) < len(columns):
        raise _error(f"{form.cls.__name__} has two fields that differ only in case, which SQL ignores; rename one")
    return columns


def _column(cls: type, field: Field) -> Column:
    where = f"{cls.__name__}.{field.name}"
    _check_name(field.name, where)
    found = field_types.field_type(where, field.hint)
    if found.optional and not field.is_required:
        cause = "is NotRequired and may be None, but both would be stored as NULL; declare one of the two"
        raise _error(f"{where} {cause}")
    return Column(
        field.name,
        found.column,
        found.optional or not field.is_required,
        found.encode,
        found.decode,
        has_default=field.has_default,
        is_required=field.is_required,
        json=found.json,
        quick=found.encode,
    )


# -- options ----------------------------------------------------------------------------------------------------------


def _check_indexes(cls: type, indexes: tuple[tuple[str, ...], ...], columns: Mapping[str, Column]) -> None:
    for item in indexes:
        if not item or len(set(item)) < len(item):
            raise _error(f"index {item!r} of {cls.__name__} names no column, or one twice")
        for column in item:
            if column not in columns:
                raise _error(f"index of {cls.__name__} names {column!r}, which is not one of its fields")


def _key(cls: type, options: _Options, columns: Mapping[str, Column]) -> Key | None:
    def error(cause: str) -> TableError:
        return _error(f"{cls.__name__}: {cause}")

    if not options.key:
        if options.conflict != keys.LWW or options.history:
            raise error("conflict and history are for tables with a key: add key=... with the names of its columns")
        return None
    if len(set(options.key)) < len(options.key):
        raise error("its key names a column twice")
    for name in options.key:
        if cause := _why_no_key_column(columns.get(name)):
            raise error(f"its key has {name!r}, {cause}")
    ranked = keys.ranked_by(options.conflict)
    if not keys.is_rule(options.conflict):
        rules = "'lww', 'first', 'keep-all', 'max:column' or 'min:column'"
        raise error(f"conflict must be {rules}, got {quoted(options.conflict)}")
    if ranked and (ranked not in columns or columns[ranked].type in _UNORDERED):
        raise error(f"conflict {options.conflict!r} needs a field of numbers, texts or times, which {ranked!r} is not")
    if options.priority and not options.history:
        raise error("priority needs history=True on a table with a key: its current rows are never dropped")
    return Key(options.key, options.conflict, options.history)


def _why_no_key_column(column: Column | None) -> str:
    """Return why a field cannot be part of a key, as a clause that follows its name; "" if it can."""
    if column is None:
        return "which is not one of its fields"
    if column.optional or column.type == "json":
        return "which must not be Optional, a dict or a list: each row needs a key"
    if column.type == "decimal":
        # PostgreSQL would take them for one number, SQLite for two texts
        return "a Decimal, of which 1.0 and 1.00 would be two keys: make it an int, or a str of fixed notation"
    return ""


def _check_companions(name: str, key: Key | None) -> None:
    """Refuse a key if the tables of its tombstones and its history could not have their names."""
    for companion in keys.companions({} if key is None else {name: key}):
        _check_table_name(companion, f"table {name!r}: its deletions or its history go to {companion!r}")


def _check_renames(cls: type, renamed: tuple[tuple[str, str], ...], columns: Mapping[str, Column]) -> None:
    def error(cause: str) -> TableError:
        return _error(f"renamed of {cls.__name__}: {cause}")

    fields = {name.lower() for name in columns}
    seen: set[str] = set()
    for old, new in renamed:
        if not isinstance(old, str):
            raise error(f"{old!r} is not a name")
        _check_name(old, f"renamed of {cls.__name__}, {old!r}")
        if new not in columns:
            raise error(f"{old!r} leads to {new!r}, which is not one of its fields")
        if old.lower() in fields:
            raise error(f"{old!r} is still one of its fields (SQL ignores case); an old name cannot be used again")
        if old.lower() in seen:
            raise error(f"{old!r} is there twice (SQL ignores case)")
        seen.add(old.lower())


def _check_fixed(name: str, key: Key | None, renamed: tuple[tuple[str, str], ...]) -> None:
    fixed = keys.fixed(key)
    for old, new in renamed:
        if new.lower() in fixed:
            raise _error(
                f"table {name}: renamed says that {new} was called {old}, but a column of its key or of its conflict "
                f"rule must keep its name. Call it {old}, or give the table another name"
            )


# -- tombstones -------------------------------------------------------------------------------------------------------


def deletion(cls: type, values: tuple[Any, ...]) -> Any:
    """Return the record that deletes a row of a class's table by its key: a tombstone.

    Raises:
        TableError: the class has no key, its conflict rule does not support deletions, or the number of values is not
            that of the key's columns.
    """
    if not isinstance(cls, type):
        cause = (
            f"the first argument is the class of the table, as in shard.delete(Setting, key), got {quoted(cls, 100)}"
        )
        raise TableError("delete", "", cause)
    if (deletion_class := vars(cls).get(_DELETION)) is None:
        deletion_class = _deletion_class(cls)
        setattr(cls, _DELETION, deletion_class)
    fields = attrs.fields(deletion_class)
    if len(values) != len(fields):
        columns = ", ".join(field.name for field in fields)
        cause = f"the key of {cls.__name__} is ({columns}), but got {units.count(len(values), 'value')}"
        raise TableError("delete", "", cause)
    return deletion_class(*values)


def _deletion_class(cls: type) -> type:
    table = table_of(cls)
    if table.key is None:
        cause = f"{cls.__name__} has no key; declare it with @edgeshard.table(key=...), or prune old rows"
        raise TableError("delete", "", cause)
    if not table.key.deletes:
        cause = f"{cls.__name__} has conflict={table.key.conflict!r}, which ignores what was written last"
        raise TableError("delete", "", f"{cause}; only 'lww' and 'keep-all' tables support deletions")
    fields = {name: attrs.field(alias=name) for name in table.key.columns}
    made: type = attrs.make_class(f"{cls.__name__}Deleted", fields, frozen=True, slots=True)
    setattr(made, _DELETION_OF, cls)
    return made


def _tombstone_table(keyed: Table, form: Form) -> Table:
    if keyed.key is None:
        raise AssertionError(f"table {keyed.name} has no key")
    columns = {column.name: column for column in keyed.columns}
    key_columns = tuple(columns[name] for name in keyed.key.columns)
    return Table(keys.deleted_name(keyed.name), key_columns, deletes_from=keyed, form=form)


@table
@attrs.frozen
class AgentData:
    """The default record: what ``shard.write`` makes of a dict.

    Attributes:
        agent_id: the agent's name, exactly as given.
        timestamp: when it was written, by the device's clock.
        data: the dict.
    """

    agent_id: str
    timestamp: datetime.datetime
    data: dict[str, Any]
