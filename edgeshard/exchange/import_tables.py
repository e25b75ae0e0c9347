"""Read the tables of ordinary SQLite databases for an import.

If a table has an INTEGER PRIMARY KEY, its new rows are those with higher keys than the last one imported; digests of
the last rows (`_TAIL_ROWS`) tell whether it is still the same table. Of any other table the imported rows must still be
the first ones, unchanged: a digest of all of them says so, and the new rows are those after them.

A column of edgeshard's holds values of one type, and one of SQLite's any value. So the values are looked at first: the
type of a column is the one that all its values have, or real if they are integers and reals.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, TypedDict

import attrs

from edgeshard import format
from edgeshard.errors import ConfigurationError
from edgeshard.exchange import import_state, text_rows
from edgeshard.exchange.import_parts import BATCH_BYTES, BATCH_ROWS, Batch
from edgeshard.exchange.import_state import ImportState
from edgeshard.records import declare, names, types
from edgeshard.records.columns import DICT_COLUMNS
from edgeshard.sources import ordinary
from edgeshard.sources.ordinary import Database, Table
from edgeshard.sqlite import quote

_ACTION: Final = "import"

#: How many of the last rows with a key are compared.
_TAIL_ROWS: Final = 100

_DIGEST_CHARACTERS: Final = 16

_TYPES: Final[dict[str, type]] = {"integer": int, "real": float, "text": str, "blob": bytes}

_OTHER_FILE: Final = (
    "So it is another file, or rows were deleted, changed, or numbered anew (as VACUUM does if there is no INTEGER "
    "PRIMARY KEY). Import it as another agent; all its rows then come as new"
)

_NAMES: Final = (
    "a name has 1 to 100 letters, digits or _, begins with a letter, and not with edgeshard_; rename it in a copy of "
    "the file, and import that"
)


def why_not_importable(table: Table, name: str) -> str:
    """Return why no record table can be like this one, and what to do; "" if one can.

    Args:
        table: the table.
        name: the name that its record table gets.
    """
    if not names.is_table_name(name) or name.lower() == import_state.TABLE:
        return f"no record table can be called {name!r}; {_NAMES}"
    for column in table.column_names:
        if not names.is_column_name(column) or names.is_reserved(column):
            return f"no column of a record table can be called {column!r}; {_NAMES}"
    if not 1 <= len(table.columns) <= format.COLUMNS_MAX:
        return f"a record table has 1 to {format.COLUMNS_MAX} columns, and it has {len(table.columns)}"
    return ""


def reader(
    database: Database, table: Table, name: str, agent: str | None, known_types: Mapping[str, str]
) -> TableReader:
    """Return what reads a table.

    Args:
        database: the database.
        table: the table.
        name: the name that its record table gets.
        agent: the agent that it is imported as, if the user named one: its dicts become dicts of that agent.
        known_types: the types of the columns that the record table has already, by name in lower case.
    """
    if {column.lower() for column in table.column_names} == DICT_COLUMNS.keys():
        return _DictReader(database, table, name, agent)
    return _RowReader(database, table, name, known_types)


class TableReader:
    """Reads one table: what is the same whatever becomes of its rows; see `import_parts.Part`."""

    form = import_state.SQLITE
    target: str | type | None = None
    unfinished_line = 0

    def __init__(self, database: Database, table: Table, name: str) -> None:
        self.table = name
        self.notes: list[str] = []
        self._database = database
        self._source = table
        self._columns = table.column_names
        self._digest = hashlib.sha256()
        self._head = ""
        self._tail: list[Any] = []

    def where_is(self, place: int) -> str:
        """Return how errors name a row."""
        return ordinary.where_is(self._source, place)

    # -- is it the same table? ----------------------------------------------------------------------------------------

    def why_other(self, state: ImportState) -> str:
        """Return why the table does not begin with the rows that a state counts; "" if it does."""
        self._database.resume()
        lost = [name for name in state.columns if name not in self._columns]
        if lost:
            why = f"it has no column {lost[0]} any more. {_OTHER_FILE}"
        else:
            why = self._why_other_keys(state) if self._source.has_key else self._why_other_rows(state)
        return why and f"table {self._source.name}: {why}"

    def _why_other_rows(self, state: ImportState) -> str:
        self._digest = hashlib.sha256()
        then = hashlib.sha256()  # of the columns that there were
        project = _projection(self._columns, state.columns)
        rows = self._database.rows(self._source, self._columns, limit=state.rows)
        for place, row in enumerate(rows):
            if place == 0:
                self._head = _short_digest(row)
                if _short_digest(project(row)) != state.head:
                    break
            then.update(_bytes_of(project(row)))
            self._digest.update(_bytes_of(row))
        if then.hexdigest() != state.fingerprint:
            return f"its first {state.rows:,} rows are not the ones that were imported. {_OTHER_FILE}"
        return ""

    def _why_other_keys(self, state: ImportState) -> str:
        if not state.tail:
            return f"it had no INTEGER PRIMARY KEY when it was imported. {_OTHER_FILE}"
        project = _projection(self._columns, state.columns)
        first, last = state.tail[0][0], state.tail[-1][0]
        where = f"{self._source.rowid} BETWEEN {first} AND {last}"
        there = {row[0]: row for row in self._database.rows(self._source, self._columns, where)}
        digests = {key: _short_digest(project(row)) for key, row in there.items()}
        kept = [key for key, digest in state.tail if digests.get(key) == digest]
        changed = [key for key, digest in state.tail if digests.get(key, digest) != digest]
        self._tail = [[key, _short_digest(there[key])] for key, _ in state.tail if key in there]
        highest = self._database.highest_key_ever(self._source)
        if not kept:
            is_emptied = highest is not None and highest >= last
            if changed or (not is_emptied and self._database.is_any(self._source, f"{self._source.rowid} <= {last}")):
                return f"none of the last rows that were imported (keys {first} to {last}) is as it was. {_OTHER_FILE}"
        reused = [key for key in changed if key > max(kept, default=first)]
        if reused and highest is None:
            self.notes.append(
                f"the rows with the keys {_listed(reused)} were imported, and are not as they were: they were updated, "
                "or deleted and their keys used again. What they are now was not imported; AUTOINCREMENT would prevent "
                "that"
            )
        return ""

    # -- its rows -----------------------------------------------------------------------------------------------------

    def batches(self, state: ImportState, max_rows: int = BATCH_ROWS) -> Generator[Batch]:
        """Yield the rows after a state, in batches. While one is written, writers of the file need not wait."""
        if not state.rows:
            self._digest, self._head, self._tail = hashlib.sha256(), "", []
        elif self.notes:  # say it once
            state = attrs.evolve(state, columns=list(self._columns), tail=self._tail or state.tail)
            yield Batch((), (), state)
        self._prepare(*self._after(state))
        while True:
            records, places, refusal = self._read(state, max_rows)
            if records:
                state = self._state_after(state, records, places)
                self._database.release()
                yield Batch(records, places, state)
                is_changed = self._database.resume()
                if is_changed and not self._source.has_key and (why := self._why_other_rows(state)):
                    raise ConfigurationError(_ACTION, self._database.path, f"table {self._source.name}: {why}")
            if refusal is not None:
                raise refusal
            if not records:
                return

    def _read(self, state: ImportState, max_rows: int) -> tuple[list[Any], list[int], ConfigurationError | None]:
        """Return the records after a state, at most one batch, with their places, and why the next row is none."""
        where, offset = self._after(state)
        records: list[Any] = []
        places: list[int] = []
        size = 0
        with contextlib.closing(self._database.rows(self._source, self._columns, where, max_rows, offset)) as rows:
            try:
                for row in rows:
                    records.append(self._record_of(row))
                    places.append(row[0])
                    self._head = self._head or _short_digest(row)
                    if self._source.has_key:
                        self._tail.append([row[0], _short_digest(row)])
                    else:
                        self._digest.update(_bytes_of(row))
                    size += sum(len(value) for value in row if value.__class__ in (str, bytes))
                    if size >= BATCH_BYTES:
                        break
            except ConfigurationError as refusal:
                return records, places, refusal
        return records, places, None

    def _record_of(self, row: Sequence[Any]) -> Any:
        try:
            return self._record(row[1:])
        except ValueError as error:
            raise ConfigurationError(_ACTION, self._database.path, f"{self.where_is(row[0])}{error}") from error

    def _after(self, state: ImportState) -> tuple[str, int]:
        """Return which rows come after a state, as SQL, and how many to leave out before them."""
        if not state.rows:
            return "", 0
        return (f"{self._source.rowid} > {state.position}", 0) if self._source.rowid else ("", state.rows)

    def _state_after(self, state: ImportState, records: Sequence[Any], places: Sequence[int]) -> ImportState:
        self._tail = self._tail[-_TAIL_ROWS:]
        return attrs.evolve(
            state,
            rows=state.rows + len(records),
            position=places[-1],
            columns=list(self._columns),
            head=self._head,
            fingerprint="" if self._source.has_key else self._digest.copy().hexdigest(),
            tail=list(self._tail),
        )

    def _prepare(self, where: str, offset: int) -> None:
        """Look at all rows that are to be read, before the first one is.

        Raises:
            ConfigurationError: some cannot be imported.
        """

    def _record(self, values: Sequence[Any]) -> Any:
        """Return what is written for a row.

        Raises:
            ValueError: it cannot be; the text follows the name of the row.
        """
        raise NotImplementedError


class _RowReader(TableReader):
    """Reads a table whose rows become rows of a record table with the same columns."""

    def __init__(self, database: Database, table: Table, name: str, known_types: Mapping[str, str]) -> None:
        super().__init__(database, table, name)
        self._known_types = known_types
        self._names: tuple[str, ...] = ()

    def _prepare(self, where: str, offset: int) -> None:
        found = self._database.storage_classes(self._source, where, offset)
        hints: dict[str, Any] = {}
        for column in self._source.columns:
            known = self._known_types.get(column.name.lower())
            type_ = self._type_of(column.name, _affinity(column.declared), found[column.name], known, where, offset)
            if type_ is not None:
                hints[column.name] = type_ | None
        self._names = tuple(hints)
        self.target = declare.table(name=self.table)(TypedDict(self.table, hints))  # type: ignore[operator]

    def _type_of(
        self, name: str, affinity: str, found: frozenset[str], known: str | None, where: str, offset: int
    ) -> Any:
        """Return the type of a column; None if it has no value yet that tells.

        Raises:
            ConfigurationError: its values have several types.
        """
        present = found | ({known} if known in _TYPES else set())
        if len(present) == 1:
            return _TYPES[next(iter(present))]
        if not present:
            return _TYPES.get(affinity)
        if present == {"integer", "real"}:
            limit = types.EXACT_MAX
            large = f"typeof({quote(name)}) = 'integer' AND {quote(name)} NOT BETWEEN -{limit} AND {limit}"
            place = self._database.first_row(self._source, where, offset, large)
            if place is None:
                return float
            cause = "an integer beyond 2^53, which a float would round, in a column that has floats as well"
        else:
            usual = known if known in _TYPES else affinity if affinity in present else min(present)
            others = f"typeof({quote(name)}) NOT IN ('null', '{usual}')"
            place = self._database.first_row(self._source, where, offset, others)
            other = min(present - {usual})
            cause = f"{other}, in a column that has {usual} in other rows"
        raise ConfigurationError(
            _ACTION,
            self._database.path,
            f"{self.where_is(place or 0)}, column {name}: {cause}. A column of a record table holds values of one "
            "type; correct the value, or import a copy of the file in which the column is CAST to one type",
        )

    def _record(self, values: Sequence[Any]) -> Any:
        row = dict(zip(self._columns, values, strict=True))
        return row if len(self._names) == len(row) else {name: row[name] for name in self._names}


class _DictReader(TableReader):
    """Reads a table like agent_data, whose rows become dicts that keep their time."""

    def __init__(self, database: Database, table: Table, name: str, agent: str | None) -> None:
        super().__init__(database, table, name)
        self._agent = agent
        self._places = [[column.lower() for column in self._columns].index(name) for name in DICT_COLUMNS]

        @declare.table(name=name)
        @attrs.frozen
        class Dict:
            agent_id: str
            timestamp: datetime.datetime
            data: dict[str, Any]

        self._class = Dict
        self.target = Dict

    def _record(self, values: Sequence[Any]) -> Any:
        agent, timestamp, data = (values[place] for place in self._places)
        if not isinstance(data, (str, bytes)):
            raise ValueError(f", column data: a JSON object was expected, got {data!r:.80}")
        try:
            row = text_rows.json_row(data if isinstance(data, bytes) else data.encode())
        except text_rows.LineError as error:
            raise ValueError(f", column data: {error}") from error
        if row is None:
            raise ValueError(", column data: a JSON object was expected, and it is empty")
        if self._agent is not None:
            agent = self._agent
        elif not isinstance(agent, str):
            raise ValueError(f", column agent_id: a name was expected, got {agent!r:.80}; name the agent yourself")
        return self._class(agent, _moment(timestamp), row)


def _moment(value: Any) -> datetime.datetime:
    """Return a time that is stored as seconds since 1970 or as ISO 8601.

    Raises:
        ValueError: it is not; the text follows the name of the row.
    """
    cause = (
        f", column timestamp: seconds since 1970 or a time in ISO 8601 with its zone were expected, got {value!r:.80}"
    )
    try:
        if isinstance(value, (int, float)):
            return datetime.datetime.fromtimestamp(value, datetime.UTC)
        found = datetime.datetime.fromisoformat(value)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise ValueError(cause) from error
    if found.utcoffset() is None:
        raise ValueError(cause)
    return found


# -- columns and digests ----------------------------------------------------------------------------------------------


def _affinity(declared: str) -> str:
    """Return the type that a column is declared for, or "" if that is unclear.

    The rules are SQLite's: https://sqlite.org/datatype3.html, 3.1.
    """
    for words, found in (
        (("INT",), "integer"),
        (("CHAR", "CLOB", "TEXT"), "text"),
        (("BLOB",), "blob"),
        (("REAL", "FLOA", "DOUB"), "real"),
    ):
        if any(word in declared for word in words):
            return found
    return ""


def _projection(columns: Sequence[str], wanted: Sequence[str]) -> Any:
    """Return a function that leaves only some columns in a row, whose first value is its rowid."""
    if list(columns) == list(wanted):
        return lambda row: row
    places = [0, *(columns.index(name) + 1 for name in wanted)]
    return lambda row: tuple(row[place] for place in places)


def _bytes_of(row: tuple[Any, ...]) -> bytes:
    return repr(row).encode()


def _short_digest(row: tuple[Any, ...]) -> str:
    return hashlib.sha256(_bytes_of(row)).hexdigest()[:_DIGEST_CHARACTERS]


def _listed(keys: Sequence[int]) -> str:
    shown = ", ".join(map(str, keys[:5]))
    return f"{shown} and {len(keys) - 5} more" if len(keys) > 5 else shown
