"""Steps of participants that lie: they make shards, masters and bundles that are not what they claim to be.

They may claim anything about the streams of honest agents, and write anything into streams of their own. They do not
bring other rows under the addresses of honest rows: without signatures nobody could tell which of the two came from the
agent, and whichever comes first is kept.
"""

from __future__ import annotations

import datetime
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import attrs

import edgeshard
from edgeshard.errors import EdgeshardError
from edgeshard.exchange import encoding
from edgeshard.exchange.inventory import Inventory
from edgeshard.format.ranges import Range
from edgeshard.sources import checksum
from tests.support.fleets import contents
from tests.support.fleets.carrying import copy_files
from tests.support.fleets.fleet import STORES, Fleet, Image
from tests.support.fleets.model import Held
from tests.support.fleets.shapes import Pick
from tests.support.fleets.steps import step

#: Numbers that no sound database has where they are put.
_ABSURD = (-1, 0, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1)
_TIMESTAMPS = (7_258_118_400_000_000, 7_258_118_399_999_999, 7_258_118_400_000_001, 2**62, -5)

# -- how to lie -------------------------------------------------------------------------------------------------------


def _role(path: Path) -> str:
    with contents.opened(path) as connection:
        return str(contents.fetch(connection, "SELECT role FROM _edgeshard_database")[0][0])


def _forged(fleet: Fleet, pick: Pick, roles: tuple[str, ...], change: Callable[[apsw.Connection], Any]) -> bool:
    """Change a copy of an honest database; return whether there was one."""
    honest = [path for path in fleet.databases() if path not in fleet.hostile and _role(path) in roles]
    honest = [path for path in honest if fleet.held[path].last]
    if not honest:
        return False
    image = copy_files(fleet, pick(honest), with_log=True)
    fleet.hostile.add(image.path)
    is_bundle = _role(image.path) == "bundle"
    connection = apsw.Connection(str(image.path))
    try:
        connection.execute("PRAGMA foreign_keys = OFF")
        change(connection)
        if not is_bundle:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()
    if is_bundle:
        _seal(image.path)
    return True


def _seal(path: Path) -> None:
    """Give a changed bundle the right checksum."""
    with contents.opened(path) as connection:
        ((old,),) = contents.fetch(connection, "SELECT sha256 FROM _edgeshard_checksum")
    new = checksum.digest(iter([path.read_bytes()]), old)
    path.write_bytes(path.read_bytes().replace(old, new))


def _any_stream(connection: apsw.Connection, pick: Pick) -> int:
    return int(
        pick(sorted(number for (number,) in contents.fetch(connection, "SELECT stream_no FROM _edgeshard_streams")))
    )


def _ids_of_masters(fleet: Fleet) -> list[bytes]:
    found = []
    for path in fleet.masters():
        with contents.opened(path) as connection:
            found += [value for (value,) in contents.fetch(connection, "SELECT database_id FROM _edgeshard_database")]
    return found


def _stranger(fleet: Fleet, *records: Any) -> Path:
    """Return the shard of a participant that nobody knows, with these records."""
    number = next(fleet.names)
    store = edgeshard.Store(fleet.folder / f"stranger{number}")
    with store.shard(f"stranger{number}") as shard:
        for record in records:
            shard.write(record)
        path = Path(shard.path)
    folder = fleet.folder / f"copy{number}"
    folder.mkdir()
    moved = folder / path.name
    path.rename(moved)
    fleet.held[moved] = Held(is_tainted=True)
    fleet.hostile.add(moved)
    fleet.images.append(Image(moved, store.root / "shards" / path.name))
    fleet.say(f"  {fleet.name(moved)}: {[type(record).__name__ for record in records]}")
    return moved


def _class(name: str, fields: dict[str, type], **options: Any) -> Any:
    made = attrs.make_class("Stranger", {field: attrs.field(type=kind) for field, kind in fields.items()}, frozen=True)
    return edgeshard.table(name=name, **options)(made)


# -- claims about the rows of others ----------------------------------------------------------------------------------


@step(2, hostile=True)
def forge_truncations(fleet: Fleet, pick: Pick) -> Any:
    """Claim that rows of an honest stream were truncated because some master holds them."""
    last, owner = pick((3, 100, *_ABSURD)), pick([secrets.token_bytes(16), *_ids_of_masters(fleet)])

    def change(connection: apsw.Connection) -> None:
        number = _any_stream(connection, pick)
        connection.execute("DELETE FROM _edgeshard_truncations WHERE stream_no = ?", (number,))
        connection.execute("INSERT INTO _edgeshard_truncations VALUES (?, 1, ?, ?)", (number, last, owner))

    return _forged(fleet, pick, ("shard", "master", "bundle"), change)


@step(2, hostile=True)
def forge_counts(fleet: Fleet, pick: Pick) -> Any:
    """Claim other numbers: of rows, of the next id, of the last seq, of merges."""
    value = pick(_ABSURD)
    sql = pick(
        (
            "UPDATE _edgeshard_database SET generation = ?1",
            "UPDATE _edgeshard_database SET next_id = ?1",
            "UPDATE _edgeshard_streams SET last_seq = ?1 WHERE stream_no = ?2",
            "UPDATE _edgeshard_streams SET last_seq = last_seq + 7 WHERE stream_no = ?2 AND ?1",
            "UPDATE _edgeshard_blocks SET first_id = ?1 WHERE stream_no = ?2",
            "UPDATE _edgeshard_blocks SET last = ?1 WHERE stream_no = ?2",
            "INSERT OR REPLACE INTO _edgeshard_ranges VALUES (?2, 1, ?1)",
            "INSERT OR REPLACE INTO _edgeshard_superseded VALUES (?2, ?1)",
            "INSERT OR REPLACE INTO _edgeshard_transactions VALUES (?2, ?1)",
        )
    )
    fleet.say(f"  {sql}: {value}")

    def change(connection: apsw.Connection) -> None:
        connection.execute(sql, (value, _any_stream(connection, pick)) if "?2" in sql else (value,))

    return _forged(fleet, pick, ("master", "bundle"), change)


@step(2, hostile=True)
def forge_prunes(fleet: Fleet, pick: Pick) -> Any:
    """Claim that honest rows were pruned, by whoever may merge this."""
    owner, last = pick([secrets.token_bytes(16), *_ids_of_masters(fleet)]), pick((3, 50, *_ABSURD))
    at, is_own = pick(("2026-01-01T00:00:00+00:00", "9999-99-99", "\x1b[31m")), pick((0, 1))

    def change(connection: apsw.Connection) -> None:
        number = _any_stream(connection, pick)
        if pick((True, False)):
            connection.execute("DELETE FROM _edgeshard_blocks WHERE stream_no = ?", (number,))
        sql = "INSERT OR REPLACE INTO _edgeshard_pruned_ranges VALUES (?, ?, ?, 1, ?, 'keep_rows', ?)"
        connection.execute(sql, (is_own, owner, number, last, at))

    return _forged(fleet, pick, ("master", "bundle"), change)


@step(1, hostile=True)
def forge_receipt(fleet: Fleet, pick: Pick) -> Any:
    """Claim in a receipt of a database that nobody has met that it holds everything."""
    if not fleet.masters():
        return False
    path = pick(fleet.masters())
    store = edgeshard.Store(path.parent)
    streams = {bytes.fromhex(stream): (Range(1, pick((5, 2**32 - 1))),) for stream in sorted(fleet.agents)}
    at = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    kind = pick(("edgeshard", "postgresql"))
    said = Inventory(secrets.token_bytes(16), at, 2**40, encoding.encode(streams), kind)
    before = _prunable(store)
    try:
        store.receipt(said)
    except EdgeshardError:
        fleet.counts["receipts refused"] += 1
    assert before == _prunable(store), "a receipt of a stranger lets rows be pruned"
    return None


def _prunable(store: edgeshard.Store) -> list[int]:
    """Return how many rows count as held by others."""
    receipted = store.prune(keep_rows=0, dry_run=True, only_receipted=True)
    return [receipted.rows, store.prune(keep_rows=0, dry_run=True, only_pushed=True).rows]


# -- tables of others -------------------------------------------------------------------------------------------------


@step(2, hostile=True)
def forge_key(fleet: Fleet, pick: Pick) -> Any:
    """Declare a key for a table in which other writers keep a log."""
    if pick((True, False)):
        photo = _class("photo", {"n": int, "pixels": bytes}, key="pixels")
        return _bring(fleet, pick, ("photo", "n"), photo(-1, b"same"), photo(-2, b"same"), {"n": -5})
    path = _stranger(fleet, {"n": -1}, {"n": -2})
    connection = apsw.Connection(str(path))
    connection.execute("ALTER TABLE agent_data ADD COLUMN _timestamp INTEGER")
    connection.execute("UPDATE agent_data SET _timestamp = 1000 + _id % 7")
    connection.execute("INSERT INTO _edgeshard_columns VALUES ('agent_data', '_timestamp', 'timestamp')")
    connection.execute(
        "CREATE TABLE _edgeshard_keys(\n"
        "    table_name TEXT PRIMARY KEY,            -- a keyed table: a master keeps the newest version of each key\n"
        "    columns TEXT NOT NULL,                  -- JSON list of the names of the key's columns\n"
        "    conflict TEXT NOT NULL,                 -- lww | first | max:column | min:column | keep-all\n"
        "    has_history INTEGER NOT NULL DEFAULT 0, -- 1: superseded versions move to <table>_history\n"
        "    last_timestamp INTEGER NOT NULL DEFAULT 0   -- the highest timestamp of its changes; masters only\n"
        ") STRICT, WITHOUT ROWID"
    )
    connection.execute("INSERT INTO _edgeshard_keys VALUES ('agent_data', '[\"agent_id\"]', 'lww', 0, 0)")
    connection.close()
    return None


@step(2, hostile=True)
def forge_companion(fleet: Fleet, pick: Pick) -> Any:
    """Bring a table that has the name of another table's history, or of its tombstones, to a master that has both."""
    table, key = pick(("lww_deleted", "past_deleted", "past_history", "all_deleted")), pick(("", "row"))
    cls = _class(table, {"row": str, "col": int}, **({"key": key} if key else {}))
    return _bring(fleet, pick, (table.rpartition("_")[0], "row"), cls("p", 1), {"n": -5})


@step(2, hostile=True)
def forge_timestamps(fleet: Fleet, pick: Pick) -> Any:
    """Write changes with the highest timestamps that there are, or higher ones, under a key that nobody else uses."""
    name = pick(("lww", "past", "all"))
    choices: dict[str, dict[str, Any]] = {"lww": {}, "past": {"history": True}, "all": {"conflict": "keep-all"}}
    options = choices[name]
    cls = _class(name, {"row": str, "col": int, "value": int}, key=("row", "col"), **options)
    path = _stranger(fleet, cls("stranger", 1, 1), cls("stranger", 2, 2))
    value = pick(_TIMESTAMPS)
    fleet.say(f"  timestamps {value}")
    connection = apsw.Connection(str(path))
    connection.execute(f'UPDATE "{name}" SET _timestamp = ?', (value,))
    connection.close()


@step(1, hostile=True)
def forge_types(fleet: Fleet, pick: Pick) -> Any:
    """Bring a table with other types to a master that has it already, and that must keep its own."""
    kind = pick((str, bytes, dict, datetime.datetime))
    values = {str: "x", bytes: b"x", dict: {}, datetime.datetime: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)}
    cls = _class("photo", {"n": kind, "pixels": bytes})
    return _bring(fleet, pick, ("photo", "n"), cls(values[kind], b""), {"n": -5})


def _bring(fleet: Fleet, pick: Pick, column: tuple[str, str], *records: Any) -> Any:
    """Merge a stranger's shard into a master that has a column; it must come to no other: there it would be the first."""
    known = [name for name in STORES if column in _columns(fleet, name)]
    if not known:
        return False
    path = _stranger(fleet, *records)
    fleet.merge_into(pick(known), [path])
    fleet.images.pop()
    del fleet.held[path]
    return None


def _columns(fleet: Fleet, name: str) -> Any:
    held = fleet.held.get(fleet.stores[name].master_path)
    return held.schema.columns if held else ()


# -- files ------------------------------------------------------------------------------------------------------------


@step(1, hostile=True)
def make_sparse(fleet: Fleet, pick: Pick) -> Any:
    """Make a copy of a database as large as a disk, without using any space."""
    if not fleet.held:
        return False
    path = copy_files(fleet, pick(fleet.databases()), with_log=True).path
    fleet.hostile.add(path)
    os.truncate(path, 1 << pick((20, 28, 30)))
    return None


@step(2, hostile=True)
def damage(fleet: Fleet, pick: Pick) -> Any:
    """Cut a copy of a database, or write over its beginning."""
    if not fleet.held:
        return False
    path = copy_files(fleet, pick(fleet.databases()), with_log=pick((True, False))).path
    fleet.hostile.add(path)
    content = bytearray(path.read_bytes())
    how = pick(("cut", "cut page", "empty", "header", "foreign"))
    if how == "cut":
        content = content[: pick(range(len(content) + 1))]
    elif how == "cut page":
        content = content[: len(content) // 2 // 1024 * 1024]
    elif how == "header" and content:
        content[pick(range(100))] ^= 1 << pick(range(8))
    else:
        content = bytearray() if how == "empty" else bytearray(b"not a database\n" * 500)
    path.write_bytes(content)
    fleet.say(f"  {how}")
    return None
