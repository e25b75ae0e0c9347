"""Bring what can still be read of a damaged shard into the master.

    1  nobody has the shard open: its agent's lock is taken, and the file is only read
    2  each page is read for itself (pages), and what is a row of a stream and a table that the shard knows is kept,
       in a database of our format, under the address that it always had
    3  that database is merged like any other source: the rows that the master has already are not doubled
    4  it is removed

Killed anywhere, nothing is lost and nothing doubled: it is done again. The damaged file stays as it is.

What the master then lacks, of what is known to have existed, is a gap. Nobody knows of rows after the last one that
can be read, or that was noted as given up.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import ConfigurationError, FormatError, StorageBusyError, StorageError
from edgeshard.files import folders, locks, paths, scan
from edgeshard.files.paths import lock_path
from edgeshard.format.ranges import Range, union
from edgeshard.inspect.pages import Cell, Pages, Value
from edgeshard.master import catalog, database
from edgeshard.merge import once
from edgeshard.merge.locks import merge_lock
from edgeshard.records import declare, keys
from edgeshard.records.names import NAME_PATTERN, is_column_name, is_reserved
from edgeshard.reports import Gap
from edgeshard.sources import attach
from edgeshard.sqlite import Connection, quote

_ACTION = "salvage"

_TYPES = "INTEGER|REAL|TEXT|BLOB"

_COLUMN_NAME = f"{NAME_PATTERN}|{format.TIMESTAMP}"

_COLUMN = re.compile(rf'"?({_COLUMN_NAME})"?\s+({_TYPES})', re.IGNORECASE)

_TABLE = re.compile(
    rf'CREATE\s+TABLE\s+"?{NAME_PATTERN}"?\s*\(\s*_id\s+INTEGER\s+PRIMARY\s+KEY'
    rf'((?:\s*,\s*"?(?:{_COLUMN_NAME})"?\s+(?:{_TYPES}))+)\s*\)'
    r"(?:\s*STRICT)?\s*",
    re.IGNORECASE,
)

_TRANSACTIONS = "edgeshard_transactions"

#: Pages that are looked at to find out how large they are.
_TRIED_PAGES = 200

#: A row's id alone takes five bytes on its page, and the row's place and lengths four.
_ROW_BYTES_MIN = 9

#: Of a stream's id, and of a database's.
_ID_BYTES = 16


@attrs.frozen
class SalvageReport:
    """What `Store.salvage` did.

    Attributes:
        path: the damaged shard.
        agent: whose it is; "" where that cannot be read.
        rows: rows of it that could be read.
        merged: how many of them the master did not have.
        streams: streams of it that are known.
        gaps: rows of those streams that are known to have existed, and that the master does not have.
        unassigned: rows that could be read, and whose stream or table could not, or not without doubt.
    """

    path: str
    agent: str = ""
    rows: int = 0
    merged: int = 0
    streams: int = 0
    gaps: tuple[Gap, ...] = ()
    unassigned: int = 0

    @property
    def readable(self) -> bool:
        """Whether anything of it could be read."""
        return bool(self.rows or self.streams)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, as far as is known."""
        return self.readable and not self.gaps and not self.unassigned

    def __str__(self) -> str:
        if not self.readable:
            return f"nothing of {self.path} can be read"
        line = f"salvaged {self.rows} rows of {self.streams} streams of agent {self.agent!r}, {self.merged} of them new"
        if self.gaps:
            line += f"; {sum(map(len, self.gaps))} rows missing in {len(self.gaps)} gaps"
        if self.unassigned:
            line += f"; {self.unassigned} rows of unknown origin left"
        return line

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {**attrs.asdict(self), "complete": self.complete}


@attrs.define
class _Stream:
    stream_id: bytes
    agent: str
    began_at: str
    gone: dict[tuple[int, int], bytes] = attrs.Factory(dict)

    @property
    def last_gone(self) -> int:
        return max((last for _, last in self.gone), default=0)


@attrs.frozen
class _Table:
    """A record table: its columns in the order in which they are stored, each with its kind."""

    name: str
    columns: tuple[tuple[str, str], ...]


@attrs.define
class _Found:
    """What the shard says of itself, as far as it can be read."""

    agent: str = ""
    streams: dict[int, _Stream] = attrs.Factory(dict)
    tables: dict[str, _Table] = attrs.Factory(dict)
    table_of_page: dict[int, str] = attrs.Factory(dict)
    keys: dict[str, tuple[str, str, int]] = attrs.Factory(dict)
    rows_max: int = 0
    renames: set[tuple[str, str, str]] = attrs.Factory(set)
    priorities: dict[str, int] = attrs.Factory(dict)


def salvage(root: Path, path: str | os.PathLike[str]) -> SalvageReport:
    """Bring what can be read of a damaged shard into a store's master; see `Store.salvage`."""
    real = os.path.realpath(path)
    if scan.find_database(real) is None:
        raise ConfigurationError(_ACTION, real, "there is no such file")
    folders.make_folder(root)
    with (
        sqlite.translate_errors(_ACTION, real),
        _without_its_agent(root, real),
        tempfile.TemporaryDirectory(prefix="salvage-", dir=root) as folder,
    ):
        rescued = os.path.realpath(Path(folder) / "rescued.db")
        found, report = _read(root, real, rescued)
        return _merge(root, rescued, found, report) if found.streams else report


@contextlib.contextmanager
def _without_its_agent(root: Path, path: str) -> Iterator[None]:
    """Keep the shard's agent out.

    Raises:
        StorageBusyError: it has the shard open.
    """
    lock = lock_path(path)
    if os.path.dirname(path) != os.path.realpath(paths.shards(root)) and not lock.exists():
        yield  # a copy, or carried here
        return
    held = locks.lock(lock)
    if held is None:
        raise StorageBusyError(_ACTION, path, "its agent has it open; stop that first")
    try:
        yield
    finally:
        held.release()


def _read(root: Path, path: str, rescued: str) -> tuple[_Found, SalvageReport]:
    """Make a database of our format of what can be read.

    Closing a file drops the locks that this process has on it through SQLite: a merger in another thread must not have
    it open.
    """
    merging = merge_lock(root, -1, lambda: False)
    try:
        with _opened(path) as pages:
            found = _described(pages, path)
            rows, unassigned = _rescue(pages, found, rescued) if found.streams else (0, 0)
    finally:
        if merging is not None:
            merging.release()
    return found, SalvageReport(path, found.agent, rows, 0, len(found.streams), (), unassigned)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Pages]:
    with contextlib.ExitStack() as stack:
        database_file = _open_file(stack, path) or io.BytesIO()
        log = _open_file(stack, paths.wal(path))
        # where the header says how large pages are, they are the same
        yield max((Pages(database_file, log, size) for size in format.SHARD_PAGE_SIZES), key=_whole_rows)


def _whole_rows(pages: Pages) -> int:
    """How many rows are whole on its first pages, if these are as large as it takes them to be."""
    return sum(len(pages.cells(number)) for number in range(1, min(pages.count, _TRIED_PAGES) + 1))


def _open_file(stack: contextlib.ExitStack, path: str) -> BinaryIO | None:
    if not os.path.isfile(path):  # a FIFO would wait for its writer
        return None
    return stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb"))


# -- what the shard says of itself ------------------------------------------------------------------------------------


@attrs.define
class _Notes:
    """What the rows of the shard's own tables say, before any of it is believed."""

    texts: dict[str, tuple[int, str]] = attrs.Factory(dict)
    kinds: dict[tuple[str, str], str] = attrs.Factory(dict)
    gone: list[tuple[int, int, int, bytes]] = attrs.Factory(list)


def _described(pages: Pages, path: str) -> _Found:
    found, notes = _Found(rows_max=pages.count * pages.page_bytes // _ROW_BYTES_MIN), _Notes()
    for number in range(1, pages.count + 1):
        for cell in pages.cells(number):
            if cell.row_id is None:
                _note_entry(found, notes, cell.values)
            else:
                _note_row(found, notes, cell, path)
    found.agent = found.agent or next((stream.agent for stream in found.streams.values()), "")
    found.streams = {no: stream for no, stream in found.streams.items() if stream.agent == found.agent}
    for no, first, last, where in notes.gone:
        if no in found.streams and 1 <= first <= last <= format.SEQ_MAX and len(where) == _ID_BYTES:
            found.streams[no].gone[first, last] = where
    _learn_tables(pages, found, notes)
    return found


def _note_row(found: _Found, notes: _Notes, cell: Cell, path: str) -> None:
    """Note a row of a table of the format's own that no other rows look like."""
    match cell:
        case Cell(_, ("table", str(name), str(), int(root), str(text))):
            notes.texts[name] = (root, text)
        case Cell(_, (bytes(), format.MASTER, _, int(), int())):
            raise FormatError(_ACTION, path, "it is a master; put back a snapshot, or merge its sources anew")
        case Cell(_, (bytes(), format.BUNDLE, _, int(), int())):
            raise FormatError(_ACTION, path, "it is a bundle; carry it here again, or export it again")
        case Cell(_, (bytes(), format.SHARD, str(agent), int(), int())):
            found.agent = agent
        case Cell(int(), (str(table), str(old), str(new))) if is_column_name(old) and is_column_name(new):
            found.renames.add((table, old, new))
        case Cell(int(no), (None, str(agent), bytes(stream_id), str(began_at), int())):
            if len(stream_id) == _ID_BYTES and 1 <= no <= format.STREAM_NO_MAX:
                found.streams[no] = _Stream(stream_id, agent, began_at)


def _note_entry(found: _Found, notes: _Notes, values: tuple[Value, ...]) -> None:
    """Note a row of edgeshard_columns, edgeshard_truncations, edgeshard_keys or edgeshard_priorities."""
    match values:
        case (str(table), str(columns), str(rule), int(has_history), int()) if keys.is_rule(rule):
            found.keys[table] = (columns, rule, has_history)
        case (str(table), int(priority)) if 0 < priority <= format.PRIORITY_MAX:
            found.priorities[table] = priority
        case (str(table), str(column), str(kind)) if kind in format.STORED_AS:
            notes.kinds[table, column] = kind
        case (int(no), int(first), int(last), bytes(where)):
            notes.gone.append((no, first, last, where))


def _learn_tables(pages: Pages, found: _Found, notes: _Notes) -> None:
    dicts = declare.table_of(declare.AgentData)
    found.tables[dicts.name] = _Table(dicts.name, tuple((column.name, column.type) for column in dicts.columns))
    for name, (root, text) in notes.texts.items():
        if name == _TRANSACTIONS:
            _learn_pages(pages, found, name, root)
        match = _TABLE.fullmatch(text)
        if match is None or is_reserved(name):
            continue
        declared = _COLUMN.findall(match[1])
        columns = tuple((column, notes.kinds.get((name, column), "")) for column, _ in declared)
        stored = [format.STORED_AS.get(kind) for _, kind in columns]
        if stored == [declared_as.upper() for _, declared_as in declared]:
            found.tables[name] = _Table(name, columns)
            _learn_pages(pages, found, name, root)


def _learn_pages(pages: Pages, found: _Found, name: str, root: int) -> None:
    """Which pages the tree of a table leads to; a page that two lead to belongs to neither without doubt."""
    waiting, seen = [root], set()
    while waiting:
        number = waiting.pop()
        if number not in seen:
            seen.add(number)
            found.table_of_page[number] = name if number not in found.table_of_page else ""
            waiting += pages.children(number)


# -- its rows ---------------------------------------------------------------------------------------------------------


def _rescue(pages: Pages, found: _Found, path: str) -> tuple[int, int]:
    """Make a database of our format of the rows that can be read.

    Returns:
        How many there are, and how many could not be assigned.
    """
    script = f"{format.MASTER_TABLES}INSERT INTO edgeshard_database(database_id, role) VALUES (?, ?)"
    bindings = (secrets.token_bytes(16), format.MASTER)
    sqlite.create(path, format.MASTER_PAGE_SIZE, script, bindings, format.IDENTITY)
    connection = sqlite.connect(path, writable=True)
    try:
        sqlite.set_synchronous(connection, "OFF")  # it is gone in a moment
        with sqlite.immediate(connection):
            for table in found.tables.values():
                for statement in catalog.define_columns(table.name, format.MASTER_COLUMNS, table.columns, is_new=True):
                    connection.execute(*statement)
                if table.name in found.keys and format.TIMESTAMP in dict(table.columns):
                    sql = f"INSERT INTO {format.KEYS} VALUES (?, ?, ?, ?, 0)"
                    connection.execute(sql, (table.name, *found.keys[table.name]))
            names = {name.lower() for name in found.tables}
            catalog.raise_priorities(
                connection, {name: each for name, each in found.priorities.items() if name in names}
            )
            for rename in found.renames:
                connection.execute(f"INSERT INTO {format.RENAMES} VALUES (?, ?, ?)", rename)
            kept, unassigned = _keep_rows(connection, pages, found)
            _keep_streams(connection, found, kept)
            return len(kept), unassigned
    finally:
        connection.close()


def _keep_rows(connection: Connection, pages: Pages, found: _Found) -> tuple[set[int], int]:
    """Insert the rows; their ids, and how many could not be assigned."""
    kept: dict[int, tuple[str, int]] = {}
    doubtful: set[int] = set()
    unassigned = 0
    for number in range(1, pages.count + 1):
        rows = [cell for cell in _in_order(pages.cells(number)) if _is_of_a_stream(cell, found)]
        if found.table_of_page.get(number) == _TRANSACTIONS:
            _keep_transactions(connection, rows)
            continue
        name = _table_of(number, rows, found)
        if name is None:
            unassigned += len(rows)
            continue
        table = found.tables[name]
        for cell in rows:
            row_id = _id_of(cell)
            content = (name, hash(cell.values))
            if row_id not in kept:
                kept[row_id] = content
                _insert(connection, table, row_id, cell)
            elif kept[row_id] != content:  # rows never change: one of the two is damaged, or its id is
                doubtful.add(row_id)
    for row_id in doubtful:
        connection.execute(f"DELETE FROM {quote(kept.pop(row_id)[0])} WHERE _id = ?", (row_id,))
    return set(kept), unassigned + 2 * len(doubtful)


def _keep_transactions(connection: Connection, rows: list[Cell]) -> None:
    """Note transactions, so that the rows of one that are whole come into the master together."""
    for cell in rows:
        match cell:
            case Cell(int(first_id), (None, int(last_id))) if format.stream_no_of(first_id) == format.stream_no_of(
                last_id
            ):
                connection.execute("INSERT OR IGNORE INTO edgeshard_transactions VALUES (?, ?)", (first_id, last_id))


def _in_order(cells: list[Cell]) -> list[Cell]:
    """The rows whose ids lie between those of their neighbours: what is out of order has a damaged id."""
    rows = [cell for cell in cells if cell.row_id is not None]
    wrong = {at + n for at in range(len(rows) - 1) for n in (0, 1) if _id_of(rows[at]) >= _id_of(rows[at + 1])}
    return [row for at, row in enumerate(rows) if at not in wrong]


def _id_of(cell: Cell) -> int:
    return -1 if cell.row_id is None else cell.row_id


def _is_of_a_stream(cell: Cell, found: _Found) -> bool:
    row_id = _id_of(cell)
    stream = found.streams.get(format.stream_no_of(row_id))
    # a bit of an id that changed must not make a gap of billions
    return stream is not None and 1 <= format.seq_of(row_id) <= stream.last_gone + found.rows_max


def _table_of(number: int, rows: list[Cell], found: _Found) -> str | None:
    """The table that a page's rows are of: the one whose tree leads to it, or else the only one that they all fit."""
    known = found.table_of_page.get(number)
    names = [known] if known else [*found.tables]
    fitting = [name for name in names if name and all(_fits(found, name, cell) for cell in rows)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(found: _Found, name: str, cell: Cell) -> bool:
    """Whether a row can be one of a table; it has fewer columns where its writer did not know the others yet."""
    columns = found.tables[name].columns
    if not 2 <= len(cell.values) <= len(columns) + 1 or cell.values[0] is not None:
        return False
    values = cell.values[1:]
    if all(value is None for value in values):
        return False
    if name == "agent_data" and values[0] != found.streams[format.stream_no_of(_id_of(cell))].agent:
        return False
    return all(_fits_kind(kind, value) for (_, kind), value in zip(columns, values, strict=False))


def _fits_kind(kind: str, value: Value) -> bool:
    if value is None:
        return True
    if kind == "json":
        try:
            json.loads(value if isinstance(value, str) else "")
        except (ValueError, RecursionError):
            return False
        return True
    if isinstance(value, float):
        return kind == "real" and not math.isnan(value)
    return format.STORED_AS[kind] in {int: ("INTEGER", "REAL"), str: ("TEXT",), bytes: ("BLOB",)}[type(value)]


def _insert(connection: Connection, table: _Table, row_id: int, cell: Cell) -> None:
    values = cell.values[1:]
    names = ", ".join(["_id", "_stream", "_seq", *(quote(column) for column, _ in table.columns[: len(values)])])
    marks = ", ".join("?" * (len(values) + 3))
    bindings = (row_id, format.stream_no_of(row_id), format.seq_of(row_id), *values)
    connection.execute(f"INSERT INTO {quote(table.name)}({names}) VALUES ({marks})", bindings)


def _keep_streams(connection: Connection, found: _Found, kept: Iterable[int]) -> None:
    """Note the streams, what the shard gave up of them, and which of their seqs are here."""
    seqs: dict[int, list[int]] = {number: [] for number in found.streams}
    for row_id in kept:
        seqs[format.stream_no_of(row_id)].append(format.seq_of(row_id))
    for number, stream in found.streams.items():
        runs = union(Range(seq, seq) for seq in seqs[number])
        last = max([run.last for run in runs] + [stream.last_gone])
        connection.execute(
            "INSERT OR IGNORE INTO edgeshard_streams VALUES (?, ?, ?, ?, ?)",
            (number, stream.agent, stream.stream_id, stream.began_at, last),
        )
        for run in runs:
            first_id = format.row_id(number, run.first)
            connection.execute("INSERT INTO edgeshard_ranges VALUES (?, ?, ?)", (number, run.first, run.last))
            connection.execute(
                "INSERT INTO edgeshard_blocks VALUES (?, ?, ?, ?)", (number, run.first, run.last, first_id)
            )
        for (first, last), where in stream.gone.items():
            statement = "INSERT OR IGNORE INTO edgeshard_truncations VALUES (?, ?, ?, ?)"
            connection.execute(statement, (number, first, last, where))


def run_of(run: Range) -> tuple[int, int]:
    """Its two ends."""
    return run.first, run.last


# -- into the master --------------------------------------------------------------------------------------------------


def _merge(root: Path, rescued: str, found: _Found, report: SalvageReport) -> SalvageReport:
    """Merge what was read, and tell what the master still lacks of the shard's streams."""
    merged = _count_new(paths.master(root), rescued)
    done = once.merge(root, [rescued], lock_wait_s=-1)
    for aside in done.quarantined:
        if aside.path == rescued:
            raise StorageError("merge what was salvaged from", report.path, aside.reason)
    ours = {stream.stream_id.hex() for stream in found.streams.values()}
    gaps = tuple(gap for gap in done.gaps if gap.stream in ours)
    return attrs.evolve(report, merged=merged, gaps=gaps)


def _count_new(master_path: Path, rescued: str) -> int:
    """How many rows the master does not have."""
    database.ensure_master(master_path)
    connection = database.open_master(master_path, writable=False)
    try:
        run = attach.named_source(rescued)
        with attach.attached(connection, [run]), sqlite.read_snapshot(connection):
            return run.count_rows(connection)[0]
    finally:
        connection.close()
