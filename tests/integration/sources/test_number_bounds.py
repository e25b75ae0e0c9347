"""Every number, and every time, that a source may state is checked where it is read: it harms that source alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import ConfigurationError, DamagedError, FormatError
from edgeshard.exchange import inventory
from edgeshard.sources import checksum
from edgeshard.sqlite import quote
from tests.support.forms import short_and_full
from tests.support.hostile_shards import edit
from tests.support.keyed_schema_versions import plain, version
from tests.support.processes import sql
from tests.support.schema_versions import write
from tests.support.stores import new_store, numbers, shard_path

INT_MAX, INT_MIN = 2**63 - 1, -(2**63)

#: What no number of ours ever is.
WRONG: list[Any] = [INT_MAX, INT_MIN, -1, "text", None, 1.5, b"blob"]

#: Values that are only wrong for some numbers.
LARGE: list[Any] = [2**62, format.SEQ_MAX + 1, format.STREAM_NO_MAX + 1, format.TIMESTAMP_MAX + 1]


@attrs.frozen
class Number:
    """A column that a source states.

    Attributes:
        table: the table.
        column: the column.
        harmless: values that are never read, or that mean something.
        roles: the roles of the databases that have it.
    """

    table: str
    column: str
    harmless: Callable[[Any], bool] = lambda value: False
    roles: tuple[str, ...] = (format.SHARD, format.MASTER, format.BUNDLE)


def _never_read(value: Any) -> bool:
    return True


def _integer(value: Any) -> bool:
    return isinstance(value, int)


def _seq(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= format.SEQ_MAX


def _timestamp(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= format.TIMESTAMP_MAX


_MASTERS = (format.MASTER, format.BUNDLE)

NUMBERS = [
    Number("_edgeshard_database", "generation", _never_read),
    Number("_edgeshard_database", "next_id", _never_read),
    Number("_edgeshard_database", "notes_known", _never_read),
    # a number that no row refers to says that the source has rows of a stream that it does not list
    Number("_edgeshard_streams", "stream_no"),
    # a text that is not a time is not believed, and the rows are merged
    Number("_edgeshard_streams", "began_at", lambda value: not isinstance(value, (bytes, type(None)))),
    # a shard's own last_seq is never read
    Number("_edgeshard_streams", "last_seq", _seq, roles=_MASTERS),
    Number("_edgeshard_ranges", "first", roles=_MASTERS),
    Number("_edgeshard_ranges", "last", _seq, roles=_MASTERS),
    Number("_edgeshard_blocks", "first", roles=_MASTERS),
    Number("_edgeshard_blocks", "last", roles=_MASTERS),
    # rows may lie anywhere, but not these
    Number("_edgeshard_blocks", "first_id", roles=_MASTERS),
    Number("_edgeshard_truncations", "first"),
    Number("_edgeshard_truncations", "last", _seq),
    # no row that is copied is in a transaction elsewhere
    Number("_edgeshard_transactions", "first_id", _integer),
    # an end beyond the rows that are copied is cut there; the ids of a shard's rows begin at 2^32
    Number("_edgeshard_transactions", "last_id", lambda value: _integer(value) and value > 2**33, (format.SHARD,)),
    Number("_edgeshard_transactions", "last_id", lambda value: _integer(value) and value > 99, _MASTERS),
    Number("_edgeshard_keys", "has_history"),
    Number("_edgeshard_keys", "last_timestamp", _never_read),
    # priorities out of range are ignored
    Number("_edgeshard_priorities", "priority", _integer),
    Number("_edgeshard_pruned_ranges", "first", roles=_MASTERS),
    Number("_edgeshard_pruned_ranges", "last", _seq, roles=_MASTERS),
    Number("_edgeshard_pruned_ranges", "pruned_at", roles=_MASTERS),
    Number("_edgeshard_superseded", "rows", roles=_MASTERS),
    Number("agent_data", "_id"),
    # where a row belongs says its block, not the row itself
    Number("agent_data", "_stream", _never_read, roles=_MASTERS),
    Number("agent_data", "_seq", _never_read, roles=_MASTERS),
    Number("sample", "_timestamp", _timestamp),
]

GOOD = version(k=str, a=int)

REPLACED = plain(None, {"name": "replaced", "key": "k"}, k=str)

WEIGHTY = plain(None, {"name": "weighty", "priority": 7}, a=int)


def _device(folder: Path) -> edgeshard.Store:
    """Return a store with a shard and a master that have a row in each table of the format."""
    store = edgeshard.Store(folder)
    for n in range(2):  # the first stream of the shard is truncated, the second is not
        with store.shard("device") as shard:
            shard.write_many([GOOD("p", n), GOOD("p", n + 2), REPLACED("r"), REPLACED("r"), WEIGHTY(n)])
            shard.write_many([{"n": -1}, {"n": -2}])
        if n == 0:
            store.merge(keep_empty=True)
            store.prune(keep_rows=0, table="weighty")
            shutil.copy(shard_path(store, "device"), folder / "copy.db")
    return store


def _templates(folder: Path) -> dict[str, Path]:
    store = _device(folder / "device")
    shard = folder / "shard.db"
    sql(shard_path(store, "device"), "pragma wal_checkpoint(truncate)")
    shutil.copy(shard_path(store, "device"), shard)
    store.merge()
    edited = {format.SHARD: shard, format.MASTER: store.master_path, format.BUNDLE: folder / "bundle.db"}
    for role in (format.SHARD, format.MASTER):
        connection = apsw.Connection(str(edited[role]))
        stream = connection.execute("SELECT max(stream_no) FROM _edgeshard_streams").fetchall()[0][0]
        if role == format.MASTER:
            # rows of a stream that was truncated for another master, as it is once these are missing here
            connection.execute("INSERT INTO _edgeshard_streams VALUES (99, 'device', randomblob(16), '2026-01-01T00:00:00+00:00', 9)")  # fmt: skip
            stream = 99
        connection.execute("INSERT OR IGNORE INTO _edgeshard_truncations VALUES (?, 1, 1, randomblob(16))", (stream,))
        connection.close()
    store.export(edited[format.BUNDLE])
    return edited


def _forge(path: Path, number: Number, value: Any, *, sealed: bool) -> bool:
    """Put the value into the last row of the column; return False if SQLite cannot store it there."""
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("synchronous", "OFF")
        # other streams than those of all the other forgeries
        connection.execute("UPDATE _edgeshard_streams SET stream_id = randomblob(16)")
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.pragma("writable_schema", True)
        for old, new in ((" STRICT, ", " "), (" STRICT", ""), (" NOT NULL", "")):
            connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = ?", (old, new, number.table))  # fmt: skip
        connection.execute("UPDATE sqlite_schema SET sql = sql")  # STRICT and NOT NULL are read anew by the next one
    finally:
        connection.close()
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("synchronous", "OFF")
        rows = connection.execute(f"SELECT count(*) FROM {quote(number.table)}").fetchall()[0][0]
        assert rows, f"{path.name} has no row in {number.table}"
        where = f"{quote(number.column)} = (SELECT max({quote(number.column)}) FROM {quote(number.table)})"
        connection.execute(f"UPDATE {quote(number.table)} SET {quote(number.column)} = ? WHERE {where}", (value,))
        if sealed:
            mark = b"\1" * checksum.SUM_BYTES
            connection.execute("UPDATE _edgeshard_checksum SET sha256 = ?", (mark,))
    except (apsw.ConstraintError, apsw.MismatchError):
        return False
    finally:
        connection.close()
    if sealed:
        checksum.seal(str(path), mark)
    return True


def _forgeries(folder: Path, role: str, values: list[Any]) -> Iterator[tuple[Path, Number, Any]]:
    """Yield a copy of the role's database for each number and each value."""
    template = _templates(folder)[role]
    for number in NUMBERS:
        for value in values if role in number.roles else ():
            path = folder / f"{number.table}-{number.column}-{type(value).__name__}-{value!r:.20}.db"
            shutil.copy(template, path)
            if _forge(path, number, value, sealed=role == format.BUNDLE):
                yield path, number, value


@pytest.mark.parametrize("values", short_and_full([-1, None], WRONG + LARGE))
@pytest.mark.parametrize("role", [format.SHARD, format.MASTER, format.BUNDLE])
def test_no_number_of_a_source_harms_another(
    store: edgeshard.Store, tmp_path: Path, role: str, values: list[Any]
) -> None:
    write(store, "good", GOOD("p", 1), GOOD("p", 2), *({"n": n} for n in range(5)))
    forged = list(_forgeries(tmp_path / "forged", role, values))
    report = store.merge([path for path, _, _ in forged])
    aside = {Path(item.path).name: item.reason for item in report.quarantined}
    expected = {path.name for path, number, value in forged if not number.harmless(value)}
    assert (sorted(expected - aside.keys()), {name: aside[name] for name in aside.keys() - expected}) == ([], {})
    assert [*range(5)] == [n for n in numbers(store) if n >= 0]
    assert () == store.verify(deep=True).errors
    store.status()
    # and what is accepted is accepted by hubs, exports and prunes as well
    hub = new_store(tmp_path / "hub")
    assert () == hub.merge([store.master_path]).quarantined
    store.export(tmp_path / "all.db")
    assert () == new_store(tmp_path / "other").merge([tmp_path / "all.db"]).quarantined
    store.prune(keep_rows=3, deletions_older_than="0s")
    assert () == store.verify(deep=True).errors


@pytest.mark.parametrize("is_known", [True, False])
def test_a_truncation_that_cannot_be_right_is_refused_even_if_the_master_knows_all_rows(
    is_known: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    write(store, "device", {"n": 1}, {"n": 2})
    store.merge(keep_empty=True)
    edit(shard_path(store, "device"), "UPDATE _edgeshard_truncations SET last = -1")
    target = store if is_known else new_store(tmp_path / "other")
    (refused,) = target.merge([] if is_known else [shard_path(store, "device")]).quarantined
    assert "invalid truncations" in refused.reason


@pytest.mark.parametrize("value", [*(value for value in WRONG + LARGE if not isinstance(value, bytes)), True, 10**400])
@pytest.mark.parametrize("place", ["generation", "at", "format"])
def test_no_number_of_an_inventory_is_believed_out_of_bounds(store: edgeshard.Store, place: str, value: Any) -> None:
    store.init()
    document = json.loads(store.ranges().to_json()) | {place: value}
    document["sha256"] = inventory._checksum(document, b"\0")  # of no stream
    forged = json.dumps(document).encode()
    if place == "generation" and type(value) is int and (value == INT_MAX or value in LARGE):
        inventory.parse(forged, "said")
        return
    with pytest.raises((DamagedError, FormatError, ConfigurationError)):
        inventory.parse(forged, "said")


def test_the_highest_timestamp_of_all_keeps_no_later_change_from_being_merged(store: edgeshard.Store) -> None:
    write(store, "evil", GOOD("x", 0))
    connection = apsw.Connection(str(shard_path(store, "evil")))
    connection.execute("UPDATE sample SET _timestamp = ?", (format.TIMESTAMP_MAX,))
    connection.close()
    store.merge()
    for n in range(3):
        write(store, "good", GOOD("p", n), GOOD("p", n + 10))
        assert () == store.merge().quarantined
    with store.shard("good") as shard:
        shard.delete(GOOD, "p")
        shard.write(GOOD("q", 1))
        shard.write(GOOD("q", 2))
    assert () == store.merge().quarantined
    assert [("q", 2)] == store.query("SELECT k, a FROM sample WHERE k = 'q'")
    hub = new_store(store.root / "hub")
    assert () == hub.merge([store.master_path]).quarantined
