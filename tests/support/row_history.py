"""A store's history at random: every row is accounted for, and no row is deleted that the master never had.

A device with two agents and a hub. Merges are whole or killed before they truncate; rows are pruned, superseded and
collected; masters and shards are put back from copies; shards are lost; and others claim rows of an agent's stream.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
from hypothesis import strategies as st

import edgeshard
from edgeshard import format, sqlite
from edgeshard.master import database
from edgeshard.merge.merger import Merger
from edgeshard.sqlite import Connection, quote
from tests.support import claims
from tests.support.keyed_model import Lww
from tests.support.stores import contradictions, entries_without_stream, new_store, numbers, shard_path
from tests.support.tombstones import collect
from tests.support.wall_clock import Wall

AGENTS = ("a", "b")

Address = tuple[bytes, int]

_AGENT, _STORE, _FEW = st.sampled_from(AGENTS), st.sampled_from(["device", "hub"]), st.integers(1, 4)

_CLAIM = st.sampled_from(["rows", "superseded rows", "shard"])

_WRITE = st.tuples(st.just("write"), _AGENT, _FEW)
_MERGE = st.tuples(st.just("merge"), _STORE)

STEP = st.one_of(
    *[_WRITE] * 3,
    st.tuples(st.just("reopen"), _AGENT),
    st.tuples(st.just("change"), _AGENT, st.sampled_from("pq"), st.booleans()),
    *[_MERGE] * 2,
    st.tuples(st.just("merge_killed")),
    st.tuples(st.just("carry"), _STORE, st.booleans()),
    st.tuples(st.just("prune"), _STORE, st.integers(0, 4)),
    st.tuples(st.just("collect"), _STORE),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("put_back_master"), st.booleans()),
    st.tuples(st.just("copy_shard"), _AGENT),
    st.tuples(st.just("put_back_shard"), _AGENT, st.booleans()),
    st.tuples(st.just("lose_shard"), _AGENT),
    st.tuples(st.just("claim"), _AGENT, _FEW, _CLAIM),
)

STEPS = st.lists(STEP, max_size=12)

#: A history in which another database's rows are pruned before the agent's own rows come.
FORGED = st.tuples(_FEW, _FEW, _CLAIM).map(
    lambda drawn: [
        ("reopen", "a"),
        ("write", "a", drawn[0]),
        ("claim", "a", drawn[1], drawn[2]),
        ("prune", "device", 0),
        ("merge", "device"),
    ]
)

#: A history in which rows that the master had pruned before an older copy of it was put back come again from the hub.
RESTORED = st.tuples(_FEW, _FEW).map(
    lambda drawn: [
        *_opening("a", 1),
        ("snapshot",),
        *_opening("a", drawn[0]),
        *_opening("b", drawn[1]),
        ("carry", "hub", False),
        ("prune", "device", 1),
        ("put_back_master", True),
        ("carry", "device", False),
        *_opening("b", 1),
        ("prune", "device", 1),
        *_opening("b", 1),
    ]
)


def _opening(agent: str, rows: int) -> list[tuple[Any, ...]]:
    return [("reopen", agent), ("write", agent, rows), ("reopen", agent), ("merge", "device")]


class History:
    """A device, a hub, and what is known of each acknowledged row of the device's agents.

    Attributes:
        acked: the numbers of the rows that were acknowledged; only rows of agent_data have one.
        had: those that the device's master has had.
        lost: those that were thrown away with a shard's file, before a master had them.
        superseded, collected, pruned: how many rows were counted as such at most.
    """

    def __init__(self, folder: Path, wall: Wall) -> None:
        self.folder, self.wall = folder, wall
        self.stores = {name: new_store(folder / name) for name in ("device", "hub")}
        self.device = self.stores["device"]
        self.open: dict[str, edgeshard.Shard] = {}
        self.names = itertools.count()
        self.acked: set[int] = set()
        self.had: set[int] = set()
        self.lost: set[int] = set()
        self.copies: dict[str, Path] = {}
        self.newer: Path | None = None
        self.older: Path | None = None
        self.seen: Counter[str] = Counter()
        for store in self.stores.values():
            store.merge()

    def step(self, step: tuple[Any, ...]) -> None:
        """Take a step, and check every row."""
        getattr(self, f"do_{step[0]}")(*step[1:])
        self.had |= self.acked & set(numbers(self.device))
        self.check_states("hub" if "hub" in step else "device")
        self.check_no_row_is_lost()

    def close(self) -> None:
        """Close the shards."""
        for shard in self.open.values():
            shard.close()
        self.open.clear()

    # -- steps --------------------------------------------------------------------------------------------------------

    def shard(self, agent: str) -> edgeshard.Shard:
        if agent not in self.open:
            self.open[agent] = self.device.shard(agent)
        return self.open[agent]

    def do_reopen(self, agent: str) -> None:
        if agent in self.open:
            self.open.pop(agent).close()

    def do_write(self, agent: str, rows: int) -> None:
        for _ in range(rows):
            number = next(self.names) + 1
            self.shard(agent).write({"n": number})
            self.acked.add(number)

    def do_change(self, agent: str, key: str, is_deletion: bool) -> None:
        self.wall.us.now_us += 1
        if is_deletion:
            self.shard(agent).delete(Lww, key, 1)
        else:
            self.shard(agent).write(Lww(key, 1, next(self.names)))

    def do_merge(self, name: str) -> None:
        self.stores[name].merge()

    def do_merge_killed(self) -> None:
        """Commit, and be killed before the first truncation."""
        with mock.patch.object(Merger, "_truncate_or_remove", return_value=None):
            self.device.merge()

    def do_carry(self, name: str, as_bundle: bool) -> None:
        source = self.stores["hub" if name == "device" else "device"]
        path = source.master_path
        if as_bundle:
            path = self.folder / f"bundle{next(self.names)}.db"
            source.export(path)
        self.merge_alone(name, path)

    def merge_alone(self, name: str, path: Path) -> None:
        """Merge another database, while the store's own shards wait."""
        with mock.patch.object(Merger, "_due", return_value=[]):
            self.stores[name].merge([path])

    def do_prune(self, name: str, keep_rows: int) -> None:
        self.stores[name].prune(keep_rows=keep_rows)

    def do_collect(self, name: str) -> None:
        self.wall.advance(11)
        collect(self.stores[name])

    def do_snapshot(self) -> None:
        self.older = self.folder / f"snapshot{next(self.names)}.db"
        self.device.snapshot(self.older)

    def do_put_back_master(self, is_newer_merged: bool) -> None:
        if self.older is None:
            return
        newer = self.folder / f"newer{next(self.names)}.db"
        self.device.snapshot(newer)
        for path in self.device.root.glob("master.db*"):
            path.unlink()
        shutil.copy(self.older, self.device.master_path)
        if is_newer_merged:
            self.merge_alone("device", newer)

    def do_copy_shard(self, agent: str) -> None:
        path = shard_path(self.device, agent)
        if path.exists():
            folder = self.folder / f"copy{next(self.names)}"
            folder.mkdir()
            copy_database(path, folder / "shard.db")
            self.copies[agent] = folder / "shard.db"

    def do_put_back_shard(self, agent: str, is_carried: bool) -> None:
        """Put a copy of a shard in its place, or next to it under another name."""
        if agent in self.copies:
            name = f"carried-{next(self.names)}" if is_carried else agent
            self.do_lose_shard(name)
            copy_database(self.copies[agent], shard_path(self.device, name))

    def do_lose_shard(self, agent: str) -> None:
        self.do_reopen(agent)
        path = shard_path(self.device, agent)
        if path.exists():
            self.lost |= numbers_in_shard(path) - self.had
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)

    def do_claim(self, agent: str, rows: int, kind: str) -> None:
        """Let another database have other rows under the agent's addresses, or say that it superseded them."""
        if not shard_path(self.device, agent).exists() or not self.shard(agent).stream:
            return
        folder, stream = self.folder / f"forger{next(self.names)}", self.shard(agent).stream
        if kind == "shard":
            copy_database(
                claims.forged_shard(folder, agent, stream, rows),
                shard_path(self.device, f"{agent}-{next(self.names)}"),  # it comes before the agent's own
            )
            self.device.merge()
        else:
            claim = claims.superseded_rows if kind == "superseded rows" else claims.forged_rows
            self.merge_alone("device", claim(folder, agent, stream, rows))

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check_no_row_is_lost(self) -> None:
        """Check that a row that the master never had is in a shard, unless its file was thrown away."""
        in_shards: set[int] = set()
        for path in self.shards():
            in_shards |= numbers_in_shard(path)
        missing = self.acked - self.had - self.lost - in_shards
        assert not missing, f"rows {missing} were deleted from their shard, and the master never had them"

    def shards(self) -> list[Path]:
        return sorted((self.device.root / "shards").glob("*.db"))

    def check_states(self, name: str) -> None:
        """Check the counts of `status` and `verify` against a look at each row."""
        store = self.stores[name]
        status, verified = store.status(), store.verify()
        readable = [shard.name for shard in status.shards if shard.pending_rows is not None]
        pending: set[Address] = set()
        elsewhere = noted_addresses(store.root / "removed-shards.db")
        for shard in readable:
            pending |= addresses_in_shard(store.root / "shards" / shard)
            elsewhere |= truncated_addresses(store.root / "shards" / shard)
        with_shards = states_of_each_row(store.master_path, pending, elsewhere)
        assert status.states.as_dict() == _as_dict(with_shards)
        assert verified.states.as_dict() == _as_dict(states_of_each_row(store.master_path, set(), elsewhere))
        assert () == contradictions(verified)
        assert [] == entries_without_stream(store.master_path)
        assert sum(map(len, status.gaps)) == status.states.missing == status.master.missing_rows
        assert verified.rows == verified.states.present == status.master.rows
        assert sum(verified.pruned.values()) == verified.states.pruned + verified.states.collected
        assert status.pending_rows == status.states.pending
        for state, rows in status.states.as_dict().items():
            self.seen[state] = max(self.seen[state], rows)
        self.seen["retired"] = max(self.seen["retired"], status.master.retired_streams)


def _as_dict(counted: Counter[str]) -> dict[str, int]:
    names = [field.name for field in attrs.fields(edgeshard.reports.RowStates)]
    return {name: counted[name] for name in names} | {"total": counted.total()}


def copy_database(source: Path, target: Path) -> None:
    """Copy a database and its WAL."""
    for suffix in ("", "-wal"):
        if Path(f"{source}{suffix}").exists():
            shutil.copy(f"{source}{suffix}", f"{target}{suffix}")


def _connected(path: Path) -> Connection:
    return sqlite.connect(str(path), writable=False)


def numbers_in_shard(path: Path) -> set[int]:
    """Return the numbers of the rows of agent_data in a shard that are not truncated."""
    connection = _connected(path)
    try:
        if "agent_data" not in _record_tables(connection):
            return set()
        gone = _truncated(connection)
        rows = sqlite.fetch(connection, "SELECT _id, data ->> 'n' FROM agent_data")
        return {n for row_id, n in rows if format.seq_of(row_id) > gone.get(format.stream_no_of(row_id), 0)}
    finally:
        connection.close()


def addresses_in_shard(path: Path) -> set[Address]:
    """Return the addresses of the rows in a shard that are not truncated."""
    connection = _connected(path)
    try:
        streams, gone = dict(sqlite.fetch(connection, _STREAMS)), _truncated(connection)
        found = set()
        for table in _record_tables(connection):
            for (row_id,) in sqlite.fetch(connection, f"SELECT _id FROM {quote(table)}"):
                number, seq = format.stream_no_of(row_id), format.seq_of(row_id)
                if seq > gone.get(number, 0):
                    found.add((streams[number], seq))
        return found
    finally:
        connection.close()


def truncated_addresses(path: Path) -> set[Address]:
    """Return the addresses of the rows that a shard says some master holds, which may be a newer one than this."""
    connection = _connected(path)
    try:
        streams, gone = dict(sqlite.fetch(connection, _STREAMS)), _truncated(connection)
        return {(streams[number], seq) for number, last in gone.items() for seq in range(1, last + 1)}
    finally:
        connection.close()


def noted_addresses(path: Path) -> set[Address]:
    """Return the addresses of the rows that removed shards had brought to some master, by a store's notes."""
    if not path.exists():
        return set()
    connection = _connected(path)
    try:
        noted = sqlite.fetch(connection, "SELECT stream_id, last_seq FROM _edgeshard_removed")
        return {(stream_id, seq) for stream_id, last in noted for seq in range(1, last + 1)}
    finally:
        connection.close()


_STREAMS = "SELECT stream_no, stream_id FROM _edgeshard_streams"


def _truncated(connection: Connection) -> dict[int, int]:
    sql = "SELECT stream_no, max(last) FROM _edgeshard_truncations GROUP BY stream_no"
    return dict(sqlite.fetch(connection, sql))


def _record_tables(connection: Connection) -> list[str]:
    return [name for (name,) in sqlite.fetch(connection, "SELECT DISTINCT table_name FROM _edgeshard_columns")]


def states_of_each_row(path: Path, pending: set[Address], elsewhere: set[Address]) -> Counter[str]:
    """Look at each known row of a master by itself, and count what became of it.

    Args:
        path: the master.
        pending: the rows in the store's shards.
        elsewhere: rows that are known to exist from what lies next to the master.
    """
    connection = database.open_master(path, writable=False)
    try:
        streams = dict(sqlite.fetch(connection, _STREAMS))
        rows = {
            (streams[number], seq)
            for table in _record_tables(connection)
            for number, seq in sqlite.fetch(connection, f"SELECT _stream, _seq FROM {quote(table)}")
        }
        in_blocks = _seqs(connection, streams, "SELECT stream_no, first, last FROM _edgeshard_blocks")
        held = _seqs(connection, streams, "SELECT stream_no, first, last FROM _edgeshard_ranges")
        noted = (
            "SELECT stream_no, first, last FROM _edgeshard_pruned_ranges "
            "WHERE database_id = (SELECT database_id FROM _edgeshard_database) AND reason {}"
        )
        collected = _seqs(connection, streams, noted.format("= 'tombstone'"))
        in_blocks_or_superseded = in_blocks | _seqs(connection, streams, noted.format("= 'superseded'"))
        pruned = _seqs(connection, streams, noted.format("NOT IN ('tombstone', 'superseded')"))
        assert rows <= in_blocks <= held
        retired = _retired_rows(connection)
        assert not {stream_id for stream_id, _ in retired} & set(streams.values())
        held |= retired
        pending, elsewhere = pending - held, elsewhere - held
        last_seqs = "SELECT stream_no, 1, last_seq FROM _edgeshard_streams WHERE last_seq > 0"
        known = _seqs(connection, streams, last_seqs) | pending | elsewhere
        counted = Counter(_state(row, rows, in_blocks_or_superseded, pending, collected, pruned) for row in known)
        return counted + _retired_states(connection, len(retired))
    finally:
        connection.close()


def _retired_rows(connection: Connection) -> set[Address]:
    listed = sqlite.fetch(connection, "SELECT stream_id, last_seq FROM _edgeshard_retired")
    return {(stream_id, seq) for stream_id, last_seq in listed for seq in range(1, last_seq + 1)}


def _retired_states(connection: Connection, rows: int) -> Counter[str]:
    """Count the rows of retired streams by state; how many were tombstones or superseded is known of groups only."""
    sql = "SELECT key, sum(value) FROM _edgeshard_retirements g, json_each(g.rows) GROUP BY key"
    counts = dict(sqlite.fetch(connection, sql))
    collected, superseded = counts.get("tombstone", 0), counts.get("superseded", 0)
    return Counter(collected=collected, superseded=superseded, pruned=rows - collected - superseded)


def _state(
    row: Address,
    rows: set[Address],
    in_blocks_or_superseded: set[Address],
    pending: set[Address],
    collected: set[Address],
    pruned: set[Address],
) -> str:
    if row in rows:
        return "present"
    if row in in_blocks_or_superseded:
        return "superseded"
    if row in pending:
        return "pending"
    if row in collected:
        return "collected"
    return "pruned" if row in pruned else "missing"


def _seqs(connection: Connection, streams: dict[int, bytes], select: str) -> set[Address]:
    return {
        (streams[number], seq)
        for number, first, last in sqlite.fetch(connection, select)
        for seq in range(first, last + 1)
    }
