"""Compare the rows of a PostgreSQL database with the master's, and name what differs by address.

Compared is what the database should have: rows that the master has, and that the database's ranges name. So rows that
the master pruned or erased, and rows that were rejected or never pushed, are no differences. Other masters push there
too, so a version of a key that is gone there is no difference if another version of the key, or a tombstone, is there;
nor is the reason why a version is in the history, which depends on the changes that a database had by then.

Windows of some thousand rows are compared one after the other, so that neither side needs much memory: first the number
of rows of each stream, and for a deep check their checksum. Only where these differ, the addresses, or the checksums of
single rows, are read. A checksum is over a row as COPY sends it in binary format, which PostgreSQL's send functions
return as well.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard.errors import ConfigurationError, PostgresUnsuitableError, SchemaConflictError
from edgeshard.format.ranges import Range, intersect, subtract, union
from edgeshard.master.streams import Stream
from edgeshard.postgres import citus, encoding, names, own_tables, plan, prepare, server_tables, values
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.jsonb_text import jsonb_text
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.reader import MasterReader, NotTextError
from edgeshard.postgres.schema import Table
from edgeshard.postgres.schema_changes import TableChanges
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.postgres.values import Row
from edgeshard.records import keys
from edgeshard.reports import CHANGED, DELETED, DIFFERENCES_MAX, EXTRA, LOST, CompareReport, Difference
from edgeshard.sqlite import quote

_ACTION: Final = "compare with"

#: Seqs in one window.
_WINDOW: Final = 20_000

#: The function that returns a value as COPY's binary format has it.
_SEND: Final = {
    "boolean": "boolsend",
    "integer": "int8send",
    "real": "float8send",
    "text": "textsend",
    "blob": "byteasend",
    "datetime": "timestamptz_send",
    "date": "date_send",
    "decimal": "numeric_send",
    "uuid": "uuid_send",
    "json": "jsonb_send",
    "timestamp": "int8send",
}

#: The rows of a window, in a table whose name is filled in.
_IN_WINDOW: Final = (
    "FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS r(stream, first, last) "
    "JOIN {} t ON t._stream = r.stream AND t._seq BETWEEN r.first AND r.last"
)

#: (stream id, seq) of a row.
_RowAddress = tuple[bytes, int]


def compare(
    path: Path, dsn: str, *, deep: bool = False, should_stop: Callable[[], bool] = lambda: False
) -> CompareReport:
    """Compare a master with a database; see `Store.verify_against`.

    Raises:
        ConfigurationError: the DSN is not valid, psycopg is not installed, or there was no push to it yet.
        PostgresError: PostgreSQL cannot be reached, or refuses.
        StorageError: the master cannot be read.
    """
    address = parse_dsn(dsn)
    server = Server(address)
    try:
        citus.ensure_suitable(server)
        if deep and not server.is_postgresql:
            cause = "only PostgreSQL itself can compute checksums of rows; compare with deep=False"
            raise PostgresUnsuitableError(_ACTION, address.display, cause)
        database_id = own_tables.identity(server)
        if database_id is None:
            cause = "nothing was pushed to this database yet; push to it first"
            raise ConfigurationError(_ACTION, address.display, cause)
        with MasterReader(path) as master:
            return _Comparison(server, master, deep, should_stop).run(database_id)
    except ServerError as error:
        raise address.explain(_ACTION, error) from error
    finally:
        server.close()


@attrs.define
class _Comparison:
    """One comparison at work."""

    server: Server
    master: MasterReader
    deep: bool
    should_stop: Callable[[], bool]
    counts: dict[str, int] = attrs.Factory(lambda: dict.fromkeys((DELETED, CHANGED, EXTRA, LOST), 0))
    differences: list[Difference] = attrs.Factory(list)
    unchecked: int = 0

    def run(self, database_id: bytes) -> CompareReport:
        """Compare everything."""
        began = time.monotonic()
        held = own_tables.all_held(self.server)  # first: what is pushed or merged meanwhile is not compared
        streams = self.master.streams()
        tables = self.master.tables()
        self._find_lost(streams, held, self.master.receipt(database_id))
        fits = {table.name: _Fit.of(self.server, table) for table in tables}
        pieces = _named_there(streams, held)
        rows, stopped = plan.count_seqs(pieces), False
        while pieces and not stopped:
            window, pieces = plan.take_chunk(pieces, _WINDOW, None)
            for table in prepare.filled_tables(self.master, window, tables):
                self._compare_table(window, table, fits[table.name], tables)
            stopped = self.should_stop()
        return CompareReport(
            self.server.address.display,
            rows - plan.count_seqs(pieces),
            plan.count_seqs(plan.missing(streams, held)),
            self.counts,
            tuple(self.differences),
            self.unchecked,
            tuple(sorted(name for name, fit in fits.items() if self.deep and fit.exists and fit.is_behind)),
            self.deep,
            time.monotonic() - began,
            stopped and bool(pieces),
        )

    def _add(self, kind: str, table: str, stream: Stream, seqs: Iterable[Range]) -> None:
        for item in seqs:
            self.counts[kind] += len(item)
            if len(self.differences) < DIFFERENCES_MAX:
                self.differences.append(
                    Difference(stream.agent_id, stream.stream_id.hex(), item.first, item.last, table, kind)
                )

    def _find_lost(
        self, streams: Iterable[Stream], held: plan.RangesByStream, receipt: Mapping[bytes, Sequence[Range]]
    ) -> None:
        """Find the rows that the database's ranges named after the last push, and name no longer."""
        for stream in streams:
            before = receipt.get(stream.stream_id)
            if before:
                here = [Range(block.first, block.last) for block in stream.blocks]
                self._add(LOST, "", stream, intersect(here, subtract(before, held.get(stream.stream_id, ()))))

    def _compare_table(self, window: Sequence[Piece], table: Table, fit: _Fit, tables: Sequence[Table]) -> None:
        """Compare the rows of one table in a window."""
        ids = {piece.stream.stream_no: piece.stream.stream_id for piece in window}
        is_deep = self.deep and fit.exists and not fit.is_behind
        ours = self.master.rows_by_stream(table, plan.id_ranges(window))
        sums = self._sums(window, fit.table, ids) if is_deep else {}
        there = _aggregates(self.server, window, fit, deep=is_deep)
        expected = {ids[number]: (rows, sums.get(ids[number], 0)) for number, rows in ours.items()}
        different = {each for each in expected.keys() | there.keys() if expected.get(each) != there.get(each)}
        if not different:
            return
        part = [piece for piece in window if piece.stream.stream_id in different]
        streams = {piece.stream.stream_id: piece.stream for piece in part}
        here = set(self._addresses(part, table, ids))
        found = _addresses(self.server, part, fit)
        missing = here - found
        if table.key is not None or table.history_of or _is_companion(table, tables):
            missing = self._not_superseded(missing, part, table, tables)
        else:
            self._add_addresses(EXTRA, table.name, streams, found - here)
        self._add_addresses(DELETED, table.name, streams, missing)
        if is_deep:
            self._add_addresses(CHANGED, table.name, streams, self._changed(part, fit, ids, here & found))

    def _add_addresses(
        self, kind: str, table: str, streams: Mapping[bytes, Stream], found: Iterable[_RowAddress]
    ) -> None:
        by_stream: dict[bytes, list[Range]] = {}
        for stream_id, seq in sorted(found):
            by_stream.setdefault(stream_id, []).append(Range(seq, seq))
        for stream_id, seqs in by_stream.items():
            self._add(kind, table, streams[stream_id], union(seqs))

    # -- rows of the master --------------------------------------------------------------------------------------------

    def _rows(self, pieces: Sequence[Piece], table: Table) -> Iterator[list[Row]]:
        """Yield the rows of a table in batches, without those that are no valid text."""
        for id_range in plan.id_ranges(pieces):
            first = id_range.first
            while first <= id_range.last:
                try:
                    for _, rows in self.master.batches(table, Range(first, id_range.last), list):
                        yield rows
                    break
                except NotTextError as error:
                    first = error.row_id + 1

    def _addresses(self, pieces: Sequence[Piece], table: Table, ids: Mapping[int, bytes]) -> Iterator[_RowAddress]:
        for rows in self._rows(pieces, attrs.evolve(table, sent=())):
            for number, seq in rows:
                yield ids[number], seq

    def _digests(
        self, pieces: Sequence[Piece], table: Table, ids: Mapping[int, bytes]
    ) -> Iterator[tuple[_RowAddress, Row, int | None]]:
        """Yield each row with its checksum, or None if PostgreSQL cannot store it as it is."""
        pack = encoding.compile_packer(table.sent_types)
        has_json = [column_type == "json" for column_type in table.sent_types]
        for rows in self._rows(pieces, table):
            for row in rows:
                digest = None
                try:
                    (converted,) = values.convert_rows(table.sent, [row])
                    if any(has_json):
                        converted = (*converted[:2], *map(_as_jsonb, converted[2:], has_json))
                    digest = _digest(pack([converted], ids))
                except (values.UnfitValueError, *values.INVALID_VALUE):
                    pass
                yield (ids[row[0]], row[1]), row, digest

    def _sums(self, window: Sequence[Piece], table: Table, ids: Mapping[int, bytes]) -> dict[bytes, int]:
        sums: dict[bytes, int] = {}
        for (stream_id, _), _, digest in self._digests(window, table, ids):
            sums[stream_id] = sums.get(stream_id, 0) + (digest or 0)
        return sums

    # -- what differs --------------------------------------------------------------------------------------------------

    def _changed(
        self, pieces: Sequence[Piece], fit: _Fit, ids: Mapping[int, bytes], both: set[_RowAddress]
    ) -> Iterator[_RowAddress]:
        """Yield those of the rows that both sides have whose values differ."""
        sql = f"SELECT t._stream, t._seq, {_digest_sql(fit.table)} {_IN_WINDOW.format(quote(fit.table.pg_name))}"
        there = {(stream.bytes, seq): digest for stream, seq, digest in self.server.execute(sql, _bindings(pieces))}
        for address, row, digest in self._digests(pieces, fit.table, ids):
            if address not in both:
                continue
            if digest is None:
                self.unchecked += 1
            elif digest != there.get(address) and self._is_changed(fit.table, row, ids):
                yield address

    def _is_changed(self, table: Table, row: Row, ids: Mapping[int, bytes]) -> bool:
        """Return whether the server, too, finds that a row differs: JSON may have another form and the same meaning."""
        if "json" not in table.sent_types:
            return True
        parameters = encoding.to_parameters(table.sent_types, values.convert_rows(table.sent, [row]), ids)
        differ = " OR ".join(
            f"{quote(column.name)} IS DISTINCT FROM ${number}::{values.PG_TYPES[column.type]}"
            for number, column in enumerate(table.sent, 3)
        )
        sql = f"SELECT 1 FROM {quote(table.pg_name)} WHERE _stream = $1 AND _seq = $2 AND ({differ})"
        return bool(self.server.execute(sql, parameters))

    def _not_superseded(
        self, missing: set[_RowAddress], pieces: Sequence[Piece], table: Table, tables: Sequence[Table]
    ) -> set[_RowAddress]:
        """Return those of the missing rows of a keyed table that nothing there has superseded."""
        (owner,) = (each for each in tables if each.key is not None and table.pg_name in each.pg_family)
        if owner.key is None or table.pg_name == names.table_name(keys.deleted_name(owner.name)):
            return set()  # tombstones are collected there, once they may be
        if owner.key.history:  # a version that was superseded is there
            for relative in tables:
                if relative.pg_name in (owner.pg_name, owner.pg_history) and missing:
                    missing = missing - _addresses(self.server, pieces, _Fit.of(self.server, relative))
            return missing
        superseding = [names.table_name(keys.deleted_name(owner.name))]
        if owner.key.conflict != keys.KEEP_ALL:
            superseding.append(owner.pg_name)
        left = set(missing)
        fit = _Fit.of(self.server, table).table
        by_key = [column for column in fit.sent if column.name in map(names.column_name, owner.key.columns)]
        ids = {piece.stream.stream_no: piece.stream.stream_id for piece in pieces}
        for rows in self._rows(pieces, attrs.evolve(fit, sent=tuple(by_key))):
            for row in rows:
                address = (ids[row[0]], row[1])
                if address in left:
                    (converted,) = values.convert_rows(by_key, [row])
                    key = encoding.to_parameters([column.type for column in by_key], [converted], ids)[2:]
                    if any(_has_key(self.server, name, by_key, key) for name in superseding):
                        left.discard(address)
        return left


@attrs.frozen
class _Fit:
    """A table, and whether the server's is fit for a comparison.

    Attributes:
        table: the master's table, with the columns that its rows fill there.
        exists: whether the server has it.
        is_behind: whether the next push changes it.
    """

    table: Table
    exists: bool
    is_behind: bool = False

    @classmethod
    def of(cls, server: Server, table: Table) -> _Fit:
        exists = bool(server_tables.pg_types(server, table.pg_name))
        try:
            fit, changes = server_tables.changes_for(server, table, has_own_tables=True)
        except SchemaConflictError:
            return cls(table, exists, is_behind=True)
        # which change superseded a version first is known by each side as far as it had these changes by then
        fit = attrs.evolve(fit, sent=tuple(column for column in fit.sent if column.type != "reason"))
        return cls(fit, exists, is_behind=changes != TableChanges() and not _adds_only_indexes(changes))


def _adds_only_indexes(changes: TableChanges) -> bool:
    return set(changes.statements) <= set(changes.indexes.values()) and not changes.learned


def _named_there(streams: Iterable[Stream], held: plan.RangesByStream) -> list[Piece]:
    """Return the rows that the master has, and that the database's ranges name."""
    streams = list(streams)
    absent = {
        stream.stream_id: subtract(
            [Range(block.first, block.last) for block in stream.blocks], held.get(stream.stream_id, ())
        )
        for stream in streams
    }
    return plan.missing(streams, absent)


def _is_companion(table: Table, tables: Iterable[Table]) -> bool:
    return any(each.key is not None and table.pg_name in each.pg_family for each in tables)


def _as_jsonb(value: Any, is_json: bool) -> Any:
    return jsonb_text(value) if is_json and value is not None else value


def _digest(data: bytes) -> int:
    return int(hashlib.md5(data, usedforsecurity=False).hexdigest()[:15], 16)


# -- rows of the server ------------------------------------------------------------------------------------------------


def _digest_sql(table: Table) -> str:
    """Return SQL for the checksum of a row, as `_digest` computes it."""
    parts = [f"int2send({len(table.sent) + 2}::smallint) || int4send(16) || uuid_send(t._stream)"]
    parts.append("int4send(8) || int8send(t._seq)")
    for column in table.sent:
        data = f"{_SEND[column.type]}(t.{quote(column.name)})"
        parts.append(f"coalesce(int4send(octet_length({data})) || {data}, '\\xffffffff'::bytea)")
    return f"('x' || substr(md5({' || '.join(parts)}), 1, 15))::bit(60)::bigint"


def _bindings(pieces: Sequence[Piece]) -> tuple[list[uuid.UUID], list[int], list[int]]:
    return (
        [uuid.UUID(bytes=piece.stream.stream_id) for piece in pieces],
        [piece.seqs.first for piece in pieces],
        [piece.seqs.last for piece in pieces],
    )


def _aggregates(server: Server, window: Sequence[Piece], fit: _Fit, *, deep: bool) -> dict[bytes, tuple[int, int]]:
    """Return the number of rows of each stream in a window, and the sum of their checksums, or 0."""
    if not fit.exists:
        return {}
    total = f"sum({_digest_sql(fit.table)})" if deep else "0"
    sql = f"SELECT t._stream, count(*), {total} {_IN_WINDOW.format(quote(fit.table.pg_name))} GROUP BY t._stream"
    return {stream.bytes: (rows, int(found)) for stream, rows, found in server.execute(sql, _bindings(window))}


def _addresses(server: Server, pieces: Sequence[Piece], fit: _Fit) -> set[_RowAddress]:
    if not fit.exists:
        return set()
    sql = f"SELECT t._stream, t._seq {_IN_WINDOW.format(quote(fit.table.pg_name))}"
    return {(stream.bytes, seq) for stream, seq in server.execute(sql, _bindings(pieces))}


def _has_key(server: Server, name: str, columns: Sequence[Any], key: Sequence[Any]) -> bool:
    if not server_tables.pg_types(server, name):
        return False
    where = " AND ".join(
        f"{quote(column.name)} = ${number}::{values.PG_TYPES[column.type]}" for number, column in enumerate(columns, 1)
    )
    return bool(server.execute(f"SELECT 1 FROM {quote(name)} WHERE {where} LIMIT 1", key))
