"""Run SQL that a user gave: one statement that reads, with its parameters, and its rows as values of Python.

All methods that take SQL go through this module, so the same mistakes get the same answers everywhere.
"""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from edgeshard import sqlite, units
from edgeshard.display import join_short, short_repr
from edgeshard.errors import QueryError, UnreadableRowError, quoted
from edgeshard.options import DecodeJson, Params
from edgeshard.records import codecs, foreign, json_values, scalars
from edgeshard.records.rows import Rows, distinct, row_maker
from edgeshard.sqlite import Bindings, Connection, Misspelled
from edgeshard.sqlite.statements import Result, StatementError, WritingStatementError, names_of, read_one

#: What SQLite can store. (Buffers count as blobs.)
_STORABLE: Final = (type(None), int, float, str, bytes, bytearray, memoryview)

NOT_TEXT: Final = (
    "a text in it is not valid UTF-8, so it was not written through edgeshard. Read it with CAST(column AS BLOB)"
)


@attrs.frozen
class Call:
    """The call that the SQL was given to, for errors.

    Attributes:
        action: what it does.
        path: the database.
        form: how it is called, with {} in the place of the parameters.
        on_write: what to do instead of writing with it.
        explain_tables: returns a sentence on what there is to read.
    """

    action: str
    path: str
    form: str
    on_write: str
    explain_tables: Callable[[Connection], str]

    def error(self, cause: str) -> QueryError:
        """Return the error for a mistake in the SQL or its parameters."""
        return QueryError(self.action, self.path, cause)

    def example(self, params: str) -> str:
        """Return how to call it with these parameters."""
        return self.form.format(params).replace(", )", ")")


def select(
    connection: Connection,
    call: Call,
    sql: str,
    params: Params,
    decode: DecodeJson = False,
    json_columns: Callable[[Connection], Collection[tuple[str, str]]] | None = None,
) -> Rows:
    """Return all rows of a statement.

    Args:
        connection: the connection, which should refuse to write.
        call: the call, for errors.
        sql: the statement.
        params: the values of its parameters.
        decode: which columns to decode as JSON.
        json_columns: returns the (table, column) of the main database's columns of JSON, in lower case.

    Raises:
        QueryError: the SQL or the parameters are mistaken.
        UnreadableRowError: a text that should be JSON is not.
        apsw.Error: the database cannot be read.
    """
    bindings = bind(call, sql, params)
    if not decode:
        try:  # the same as below, which takes 2 µs more (measured)
            result = read_one(connection, sql, bindings)
            return Rows(map(row_maker(result.names), result.rows), distinct(result.names))
        except sqlite.QUERY_MISTAKES as error:
            raise call.error(_explain(connection, call, sql, bindings, error)) from error
    with explaining_mistakes(connection, call, sql, bindings):
        known = json_columns(connection) if json_columns is not None else ()
        result = read_one(connection, sql, bindings, with_origins=True)
        values = list(result.rows)
    columns = distinct(result.names)
    found = decoded(call, attrs.evolve(result, rows=values), columns, decode, known)
    return Rows(map(row_maker(result.names), found), columns)


@contextlib.contextmanager
def explaining_mistakes(connection: Connection, call: Call, sql: str, bindings: Bindings) -> Iterator[None]:
    """Turn a mistake in the SQL, or in its parameters, into a QueryError that says what would be right.

    Run only SQL in the block.
    """
    try:
        yield
    except sqlite.QUERY_MISTAKES as error:
        raise call.error(_explain(connection, call, sql, bindings, error)) from error


def _explain(connection: Connection, call: Call, sql: str, bindings: Bindings, error: Exception) -> str:
    if isinstance(error, WritingStatementError) or sqlite.is_forbidden(error):
        return f"{error}. {call.on_write}"
    if isinstance(error, StatementError):
        return f"{error}; give exactly one statement that reads, such as a SELECT"
    if isinstance(error, UnicodeDecodeError):
        return NOT_TEXT
    if sqlite.is_binding_mistake(error):
        return _explain_bindings(connection, call, sql, bindings) or str(error)
    misspelled = sqlite.find_misspelled(connection, sql, error)
    if misspelled is None or not misspelled.is_column:
        return f"{error}. {explain_name(misspelled)}{call.explain_tables(connection)}"
    return f"{error}. {explain_name(misspelled)}".rstrip(". ")


def explain_name(misspelled: Misspelled | None) -> str:
    """Return what is to be said about a name in a statement that SQLite does not know, with a space behind; or ""."""
    if misspelled is None:
        return ""
    asked = f"Did you mean {misspelled.nearest}? " if misspelled.nearest else ""
    listed = [f"Table {table} has the columns {', '.join(names)}. " for table, names in misspelled.columns.items()]
    return asked + "".join(listed)


# -- parameters -------------------------------------------------------------------------------------------------------


def bind(call: Call, sql: str, params: Params) -> Bindings:
    """Return the parameters as SQLite takes them: converted to what columns of their types store.

    Raises:
        QueryError: the SQL is no str, or the parameters are neither a list nor a dict, or one cannot be stored.
    """
    if not isinstance(sql, str):
        raise call.error(f"the SQL must be a str, not {_kind(sql)}: {call.example('')}")
    if not isinstance(params, (tuple, list)):  # checks of abstract classes are slow
        if isinstance(params, Mapping):
            return {name: _bound(call, name, value) for name, value in params.items()}
        if isinstance(params, (str, bytes, bytearray, memoryview)) or not isinstance(params, Sequence):
            raise call.error(_explain_params(call, params))
    return tuple([_bound(call, number, value) for number, value in enumerate(params, 1)])


def _explain_params(call: Call, params: object) -> str:
    advice = "give a list of values, or a dict of them by name"
    if isinstance(params, (set, frozenset)):
        return f"the parameters are {_kind(params)}, which has no order; {advice}: {call.example('[...]')}"
    if params is None or isinstance(params, (*_STORABLE, *codecs.CONVERSIONS)):
        what = f"the parameters are one value, {short_repr(params)}"
        return f"{what}; {advice}: {call.example(f'[{short_repr(params)}]')}"
    return f"the parameters are {_kind(params)}; {advice}: {call.example('list(...)')}"


def _bound(call: Call, name: str | int, value: Any) -> Any:
    if value.__class__ is str and value.isascii():  # most are, and need not be converted
        return value
    plain = foreign.to_python(value.value if isinstance(value, enum.Enum) else value)
    try:
        for base in (int, float, str):  # what a subclass stores is held to the same rules
            if isinstance(plain, base) and type(plain) not in (base, bool):
                plain = base(plain)
        stored = codecs.bindable((plain,))[0]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise call.error(f"parameter {name} = {scalars.shown(value)}: {error}") from error
    if not isinstance(stored, _STORABLE):
        cause = f"parameter {name} = {scalars.shown(value)}: no column stores {_kind(value)}; convert it first"
        raise call.error(cause)
    return stored


def _kind(value: object) -> str:
    name = scalars.type_name(value)
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _explain_bindings(connection: Connection, call: Call, sql: str, bindings: Bindings) -> str:
    """Return why the parameters are not those of the statement; "" if that cannot be determined."""
    parameters = sqlite.describe(connection, sql).parameters
    names = [name for name in parameters if name is not None]
    if isinstance(bindings, Mapping):
        if len(names) < len(parameters):
            example = call.example(f"[{join_short(map(short_repr, bindings.values()), len(bindings))}]")
            return f"the statement has ?, whose values are given in a list, not in a dict: {example}"
        missing = [name for name in names if name not in bindings]
        if missing:
            example = call.example("{" + join_short((f'"{name}": ...' for name in names), len(names)) + "}")
            return f"parameter {missing[0]!r} has no value: {example}"
        return ""
    if len(bindings) == len(parameters):
        return ""
    example = call.example(f"[{join_short(['...'] * len(parameters), len(parameters))}]" if parameters else "")
    return f"the statement has {units.count(len(parameters), 'parameter')}, but got {len(bindings)}: {example}"


# -- JSON -------------------------------------------------------------------------------------------------------------


def decoded(
    call: Call, result: Result, columns: Sequence[str], decode: DecodeJson, known: Collection[tuple[str, str]]
) -> Iterator[tuple[Any, ...]]:
    """Return the rows of a result with its columns of JSON decoded.

    Args:
        call: the call, for errors.
        result: the result, with origins.
        columns: the names of its columns.
        decode: which columns to decode.
        known: the (table, column) of the main database's columns of JSON, in lower case.

    Raises:
        QueryError: `decode` names a column that there is not.
        UnreadableRowError: a text that should be JSON is not; raised with that row.
    """
    positions = _json_positions(call, result, columns, decode, known)
    return (_decoded(call, row, number, columns, positions) for number, row in enumerate(result.rows, 1))


def _json_positions(
    call: Call, result: Result, columns: Sequence[str], decode: DecodeJson, known: Collection[tuple[str, str]]
) -> list[int]:
    """Return the positions of the columns to decode."""
    if not isinstance(decode, (bool, str, list, tuple, set, frozenset)):
        raise call.error(f"json= is True, or a list of names of columns, not {short_repr(decode)}")
    wanted: Collection[str] = () if isinstance(decode, bool) else [decode] if isinstance(decode, str) else decode
    for name in wanted:
        if name not in columns:
            raise call.error(f"json names {quoted(name)}, but the columns are {join_short(columns, len(columns))}")
    origins = zip(columns, result.origins, names_of(result.origins), strict=True)
    return [
        position
        for position, (column, origin, name) in enumerate(origins)
        if column in wanted
        or (origin.declared_type or "").upper() == "JSON"
        or (name is not None and name[0] == "main" and name[1:] in known)
    ]


def _decoded(
    call: Call, row: tuple[Any, ...], number: int, columns: Sequence[str], positions: Sequence[int]
) -> tuple[Any, ...]:
    values = list(row)
    for position in positions:
        if isinstance(values[position], str):
            try:
                values[position] = json.loads(values[position], parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) and _is_shallow(values[position]):
                    raise  # the caller has used up the stack
                cause = (
                    f"{columns[position]} of row {number} of the result = {scalars.shown(values[position])}: it is not "
                    f"JSON that Python reads ({error}). Leave out json= to get the text"
                )
                raise UnreadableRowError(call.action, call.path, cause) from error
    return tuple(values)


def _is_shallow(text: str) -> bool:
    return json_values.depth_of(text) <= json_values.DEPTH_MAX


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
