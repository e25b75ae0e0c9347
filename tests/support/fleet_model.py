"""A fleet and its model: devices with agents, hubs, bundles and copies of files, merged into one another in any way.

`Fleet` does each step with real files, and predicts the result with sets: which rows a database holds, and up to which
seq of each stream it knows that rows exist. After each merge the target must hold exactly the predicted values and
report exactly the predicted gaps, and its sources must be unchanged, byte by byte.

Each step makes its choices with a function `pick`, which picks one item of a sequence with hypothesis or `random`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import attrs

import edgeshard
from edgeshard import format, sqlite
from edgeshard.exchange.inventory import Inventory
from edgeshard.format import blocks
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import receipts, row_states
from edgeshard.records import declare
from edgeshard.reports import Gap
from edgeshard.sqlite import quote
from tests.support.in_memory import IN_MEMORY
from tests.support.stores import contradictions, new_store, shard_path

_T = TypeVar("_T")

Pick = Callable[[Sequence[_T]], _T]
#: A row's stream and seq.
Address = tuple[str, int]
#: A row's table, and its values that are not NULL, by column.
Row = tuple[str, dict[str, Any]]

STORES = ("boat", "van", "hub", "root")
AGENTS = ("a", "b")

# -- records of several shapes ----------------------------------------------------------------------------------------


def _sample(**fields: Any) -> Any:
    return attrs.make_class("Sample", {name: attrs.field(type=kind) for name, kind in fields.items()}, frozen=True)


OldSample = _sample(n=int, text=str)
#: What a later version of the program writes into the same table.
NewSample = edgeshard.table(index=["n"])(_sample(extra=float, n=int))


@attrs.frozen
class Photo:
    """A record with its own table."""

    n: int
    pixels: bytes


def record(number: int, kind: int) -> tuple[Any, Row]:
    """Return a record of one of the shapes, and the row that every database must have of it."""
    if kind == 0:
        padding = "x" * (3_000 if number % 7 == 0 else 3)
        data = {"n": number, "padding": padding}
        return data, ("agent_data", {"data": data})
    if kind == 1:
        return OldSample(number, f"text {number}"), ("sample", {"n": number, "text": f"text {number}"})
    if kind == 2:
        return NewSample(number / 4, number), ("sample", {"n": number, "extra": number / 4})
    return Photo(number, b"%d" % number), ("photo", {"n": number, "pixels": b"%d" % number})


SHAPES = {"agent_data": edgeshard.AgentData, "photo": Photo}


def columns_of(kind: int) -> dict[tuple[str, str], str]:
    """Return the types of the columns that a record of this shape needs, by table and column."""
    cls = (edgeshard.AgentData, OldSample, NewSample, Photo)[kind]
    table = declare.table_of(cls)
    return {(table.name, column.name): column.type for column in table.columns}


# -- what a database holds --------------------------------------------------------------------------------------------


@attrs.frozen
class Content:
    """The content of a master without the numbers that it assigns itself: equal for masters that hold the same rows."""

    rows: dict[Address, Row]
    streams: dict[str, tuple[str, str, int]]
    ranges: dict[str, list[Range]]
    gaps: tuple[Gap, ...]
    transactions: set[tuple[Address, Address]]
    columns: dict[tuple[str, str], str]
    indexes: set[tuple[str, str]]


def content(path: Path) -> Content:
    """Read the content of a master."""
    connection = sqlite.connect(str(path), writable=False)
    try:
        with sqlite.read_snapshot(connection):
            return _content(connection)
    finally:
        connection.close()


def _content(connection: sqlite.Connection) -> Content:
    rows: dict[Address, Row] = {}
    addresses: dict[int, Address] = {}
    columns = {
        (table, name): kind for table, name, kind, _ in sqlite.fetch(connection, "select * from _edgeshard_columns")
    }
    for table in {table for table, _ in columns}:
        names = [name for of, name in columns if of == table]
        listed = ", ".join(f"t.{quote(name)}" for name in names)
        sql = (
            f"select _id, lower(hex(stream_id)), _seq, {listed} from {quote(table)} t "
            "join _edgeshard_streams on stream_no = _stream"
        )
        for row_id, stream, seq, *values in sqlite.fetch(connection, sql):
            assert (stream, seq) not in rows, f"row {seq} of stream {stream} is doubled"
            found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            rows[stream, seq] = (table, found)
            addresses[row_id] = (stream, seq)
    streams = {
        stream_id.hex(): (agent, began_at, last_seq)
        for agent, stream_id, began_at, last_seq in sqlite.fetch(
            connection, "select agent_id, stream_id, began_at, last_seq from _edgeshard_streams"
        )
    }
    ranges: dict[str, list[Range]] = {}
    sql = "select lower(hex(stream_id)), first, last from _edgeshard_ranges join _edgeshard_streams using(stream_no)"
    for stream, first, last in sqlite.fetch(connection, f"{sql} order by 1, 2"):
        ranges.setdefault(stream, []).append(Range(first, last))
    transactions = {
        (addresses[first], addresses[last])
        for first, last in sqlite.fetch(connection, "select first_id, last_id from _edgeshard_transactions")
    }
    indexes = set(sqlite.fetch(connection, "select table_name, columns from _edgeshard_indexes"))
    gaps = tuple(row_states.gaps(connection, (bytes.fromhex(stream) for stream in streams)))
    return Content(rows, streams, ranges, gaps, transactions, columns, indexes)


@attrs.define
class Held:
    """What a database must hold according to the model.

    Attributes:
        rows: the seqs of each stream; for a master this is also all that it ever held, because nothing is pruned here.
        last: the highest seq of each stream that it knows to exist.
        columns: the types of its columns, by table and column.
        indexes: the indexes that its tables should have.
    """

    rows: dict[str, set[int]] = attrs.Factory(dict)
    last: dict[str, int] = attrs.Factory(dict)
    columns: dict[tuple[str, str], str] = attrs.Factory(dict)
    indexes: set[tuple[str, str]] = attrs.Factory(set)

    def add(self, other: Held) -> None:
        """Add what a merge of the other into this one must bring."""
        for stream, last in other.last.items():
            self.last[stream] = max(last, self.last.get(stream, 0))
            self.rows.setdefault(stream, set()).update(other.rows.get(stream, set()))
        self.columns.update(other.columns)
        self.indexes |= other.indexes

    def copy(self) -> Held:
        """Return a copy."""
        rows = {stream: set(seqs) for stream, seqs in self.rows.items()}
        return Held(rows, dict(self.last), dict(self.columns), set(self.indexes))

    def count(self) -> int:
        """Return how many rows it holds."""
        return sum(map(len, self.rows.values()))

    def ranges(self) -> dict[str, list[Range]]:
        """Return the rows as as few ranges as possible."""
        return {stream: union(Range(seq, seq) for seq in seqs) for stream, seqs in self.rows.items() if seqs}


def held_by_file(path: Path) -> Held:
    """Return what the file of a shard or master holds without its WAL, as SQLite reads it.

    It reads a copy: a database must not be read here next to the WAL of another.
    """
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(shutil.copy(path, folder))
        connection = sqlite.connect(str(alone), writable=True)
        try:
            return _held(connection)
        finally:
            connection.close()


def _held(connection: sqlite.Connection) -> Held:
    if sqlite.scalar(connection, "select role from _edgeshard_database") != format.SHARD:
        found = _content(connection)
        last = {stream: last for stream, (_, _, last) in found.streams.items()}
        rows = {stream: {seq for of, seq in found.rows if of == stream} for stream in last}
        return Held(rows, last, found.columns, found.indexes)
    result = Held()
    streams = dict(sqlite.fetch(connection, "select stream_no, lower(hex(stream_id)) from _edgeshard_streams"))
    result.columns = {
        (table, name): kind for table, name, kind, _ in connection.execute("select * from _edgeshard_columns")
    }
    if sqlite.has_table(connection, "_edgeshard_indexes"):
        result.indexes = set(sqlite.fetch(connection, "select table_name, columns from _edgeshard_indexes"))
    gone = dict(sqlite.fetch(connection, "select stream_no, max(last) from _edgeshard_truncations group by stream_no"))
    for number, last in gone.items():
        result.last[streams[number]], result.rows[streams[number]] = last, set()
    for table in {table for table, _ in result.columns}:
        for (row_id,) in sqlite.fetch(connection, f"select _id from {quote(table)}"):
            number, seq = format.stream_no_of(row_id), format.seq_of(row_id)
            if seq > gone.get(number, 0):
                result.rows.setdefault(streams[number], set()).add(seq)
                result.last[streams[number]] = max(seq, result.last.get(streams[number], 0))
    return result


# -- the fleet --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Image:
    """A copy of a database's files.

    Attributes:
        path: the copy.
        original: what it was copied from.
    """

    path: Path
    original: Path


class Fleet:
    """Four stores, their agents, and copies of their files, each step checked against the model.

    Attributes:
        written: the acknowledged rows, by address.
        held: what each database must hold.
        images: copies of database files.
        removed: for each store, the last seq of each stream of its shards that merges removed.
        documents: inventories of stores, in the order in which they were taken.
        is_lossy: whether rows were thrown away that may have been the only copy.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgeshard-fleet-", dir=IN_MEMORY))
        self.stores = {name: new_store(self.folder / name) for name in STORES}
        self.open: dict[Path, edgeshard.Shard] = {}
        self.written: dict[Address, Row] = {}
        self.agents: dict[str, str] = {}
        self.transactions: set[tuple[Address, Address]] = set()
        self.seen: dict[Address | str, Any] = {}
        self.held: dict[Path, Held] = {}
        self.removed: dict[str, dict[str, int]] = {}
        self.images: list[Image] = []
        self.is_lossy = False
        self.merges = 0
        self.merges_with_gaps = 0
        self.bundles = 0
        self.documents: list[Inventory] = []
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)

    def remove(self) -> None:
        """Close all handles, and delete the files."""
        for shard in self.open.values():
            shard.close()
        shutil.rmtree(self.folder)

    def databases(self) -> list[Path]:
        """Return all databases that could be merged now."""
        return sorted(self.held)

    def shards(self) -> list[Path]:
        """Return the shards of all stores."""
        return [path for path in self.databases() if path.parent.name == "shards"]

    def masters(self) -> list[Path]:
        """Return the masters that exist."""
        return [store.master_path for store in self.stores.values() if store.master_path in self.held]

    # -- agents -------------------------------------------------------------------------------------------------------

    def write(self, pick: Pick[Any]) -> None:
        """Let an agent write a row, or several in one transaction, of any tables."""
        store, agent = self.stores[pick(STORES[:3])], pick(AGENTS)
        path = shard_path(store, agent)
        kinds = [pick(range(4)) for _ in range(pick((1, 1, 2, 3, 5)))]
        made = [record(next(self._numbers), kind) for kind in kinds]
        if path not in self.open:
            self.open[path] = store.shard(agent)
        shard = self.open[path]
        if len(made) == 1:
            last = shard.write(made[0][0])
        else:
            with shard.transaction():
                last = [shard.write(item) for item, _ in made][-1]
        self._acknowledge(path, agent, shard.stream, last, [row for _, row in made])
        for kind in kinds:
            self.held[path].columns.update(columns_of(kind))
            if kind == 2:
                self.held[path].indexes.add(("sample", '["n"]'))

    def _acknowledge(self, path: Path, agent: str, stream: str, last: int, rows: list[Row]) -> None:
        first = last - len(rows) + 1
        self.agents[stream] = agent
        held = self.held.setdefault(path, Held())
        for seq, row in enumerate(rows, first):
            self.written[stream, seq] = row
            held.rows.setdefault(stream, set()).add(seq)
        held.last[stream] = last
        if len(rows) > 1:
            self.transactions.add(((stream, first), (stream, last)))

    def close(self, pick: Pick[Any]) -> None:
        """Let an agent close its shard."""
        if self.open:
            self.open.pop(pick(sorted(self.open))).close()

    # -- files --------------------------------------------------------------------------------------------------------

    def copy(self, pick: Pick[Any]) -> None:
        """Copy the files of a database, live or not, with its WAL or without."""
        if self.held:
            self._copy(pick(self.databases()), with_log=pick((True, True, False)))

    def _copy(self, path: Path, *, with_log: bool) -> Image:
        folder = self.folder / f"copy{next(self._names)}"
        folder.mkdir()
        image = Image(Path(shutil.copy(path, folder)), path)
        if with_log and Path(f"{path}-wal").exists():
            shutil.copy(f"{path}-wal", folder)
        self.held[image.path] = self.held[path].copy() if with_log else held_by_file(image.path)
        self.images.append(image)
        return image

    def snapshot(self, pick: Pick[Any]) -> None:
        """Take a snapshot of a master."""
        if self.masters():
            path = pick(self.masters())
            made = self.folder / f"snapshot{next(self._names)}.db"
            edgeshard.Store(path.parent).snapshot(made)
            self.held[made] = self.held[path].copy()
            self.images.append(Image(made, path))

    def put_back(self, pick: Pick[Any]) -> None:
        """Replace a shard or a master by an older copy; keep what was there, or not."""
        if not self.images:
            return
        image = pick(self.images)
        path = image.original
        if path in self.open:
            self.open.pop(path).close()
        if path in self.held:
            if pick((True,) * 9 + (False,)):
                self._copy(path, with_log=True)
            else:
                self.is_lossy = True
        if path.parent.exists():
            self._place(image, path)

    def plant(self, pick: Pick[Any]) -> None:
        """Carry a copy of a shard to another store, which merges and truncates it as its own."""
        copies = [image for image in self.images if image.original.parent.name == "shards"]
        if copies:
            folder = self.stores[pick(STORES[:3])].root / "shards"
            folder.mkdir(parents=True, exist_ok=True)
            self._place(pick(copies), folder / f"carried-{next(self._names)}.db")

    def _place(self, image: Image, path: Path) -> None:
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        for name in ("", "-wal"):
            if Path(f"{image.path}{name}").exists():
                shutil.copy(f"{image.path}{name}", f"{path}{name}")
        self.held[path] = self.held[image.path].copy()

    # -- bundles, and what they are made by ---------------------------------------------------------------------------

    def say_ranges(self, pick: Pick[Any]) -> None:
        """Take a store's inventory, to be used later."""
        if self.masters():
            self.documents.append(self._ranges(pick(self.masters())))

    def _ranges(self, path: Path) -> Inventory:
        said = edgeshard.Store(path.parent).ranges()
        assert {stream.hex(): list(held) for stream, held in said.streams.items()} == self.held[path].ranges()
        return said

    def receipt(self, pick: Pick[Any]) -> None:
        """Record an inventory in another store as a receipt."""
        if self.documents:
            said, path = pick(self.documents), pick(self.masters())
            if said.database_id != edgeshard.Store(path.parent).ranges().database_id:
                edgeshard.Store(path.parent).receipt(said, trust=True)

    def export(self, pick: Pick[Any]) -> None:
        """Export a bundle of all rows, or of those that another store lacks by an inventory, which may be old by now."""
        if not self.masters():
            return
        path = pick(self.masters())
        by = pick(("nothing", "document", "receipt"))
        peers = self._receipts(path)
        unwanted: Mapping[bytes, Sequence[Range]] = {}
        options: dict[str, Any] = {}
        if by == "document" and self.documents:
            options["ranges"] = pick(self.documents)
            unwanted = options["ranges"].streams
        elif by == "receipt" and peers:
            peer = pick(sorted(peers))
            options["since_hub"], unwanted = peer.hex(), peers[peer]
        self._export(path, unwanted, options)

    def _receipts(self, path: Path) -> dict[bytes, dict[bytes, list[Range]]]:
        """Return what each peer has, or had, by a master's receipts: never more than the peer's inventories said in all."""
        connection = sqlite.connect(str(path), writable=False)
        try:
            noted = {
                peer.database_id: receipts.ever_held_by(connection, peer.database_id)
                for peer in receipts.peers(connection)
            }
        finally:
            connection.close()
        for peer, streams in noted.items():
            said = [document.streams for document in self.documents if document.database_id == peer]
            for stream, held in streams.items():
                assert [] == subtract(held, [part for streams_said in said for part in streams_said.get(stream, ())])
        return noted

    def _export(self, path: Path, unwanted: Mapping[bytes, Sequence[Range]], options: dict[str, Any]) -> int:
        bundle = self.folder / f"bundle{next(self._names)}.db"
        report = edgeshard.Store(path.parent).export(bundle, **options)
        held = self.held[path].copy()
        for stream, left_out in unwanted.items():
            seqs = {seq for part in left_out for seq in range(part.first, part.last + 1)}
            held.rows[stream.hex()] = held.rows.get(stream.hex(), set()) - seqs
        held.rows = {stream: held.rows.get(stream, set()) for stream in held.last}
        self.held[bundle] = held
        self.bundles += 1
        assert (held.count(), self.held[path].count() - held.count()) == (report.rows, report.left_out)
        self.check(bundle)
        return report.rows

    # -- merges -------------------------------------------------------------------------------------------------------

    def drain(self, pick: Pick[Any]) -> None:
        """Merge the own shards of a store."""
        self.merge_into(pick(STORES[:3]), [], keep_empty=pick((False, True)))

    def merge(self, pick: Pick[Any]) -> None:
        """Merge any databases into any store, even its own master, or one database twice."""
        if self.held:
            sources = [pick(self.databases()) for _ in range(pick((1, 1, 2, 4)))]
            self.merge_into(pick(STORES), sources, chunk_bytes=pick((1, 500, blocks.CHUNK_BYTES)))

    def merge_into(
        self, name: str, sources: Sequence[Path], *, keep_empty: bool = False, chunk_bytes: int = blocks.CHUNK_BYTES
    ) -> None:
        """Merge, and compare everything with the model."""
        store = self.stores[name]
        target = store.master_path
        own = [path for path in self.shards() if path.parent.parent == store.root]
        before = self.held.get(target, Held(columns=columns_of(0)))
        expected = before.copy()
        for path in (*own, *sources):
            if path != target:
                expected.add(self.held[path])
        # an older master that was put back learns from a note next to it what removed shards had
        for stream, last in self.removed.get(name, {}).items():
            expected.last[stream] = max(last, expected.last.get(stream, 0))

        def check_commit(*_: int) -> None:
            self.check_transactions(target)

        with (
            mock.patch.object(blocks, "CHUNK_BYTES", chunk_bytes),
            self.unchanged({path for path in sources if path not in own and path != target}),
        ):
            report = store.merge(sources, keep_empty=keep_empty, progress=check_commit)
        self.merges += 1
        self.merges_with_gaps += bool(report.gaps)
        self.held[target] = expected
        self._drained(own, self.removed.setdefault(name, {}))
        assert () == report.quarantined
        assert report.gaps == self.gaps(expected)
        assert report.rows == expected.count() - before.count()
        self.check(target)

    def _drained(self, own: Sequence[Path], removed: dict[str, int]) -> None:
        """Check that the store's own shards are truncated or removed; note what removed ones had."""
        for path in own:
            if path.exists():
                self.held[path].rows = {stream: set() for stream in self.held[path].rows}
            else:
                for stream, last in self.held.pop(path).last.items():
                    removed[stream] = max(last, removed.get(stream, 0))

    def settle(self) -> None:
        """Merge everything into every store, and check that all rows are there once."""
        for path in list(self.open):
            self.open.pop(path).close()
        somewhere = {(stream, seq) for held in self.held.values() for stream, seqs in held.rows.items() for seq in seqs}
        for name in STORES:
            self.merge_into(name, [])
        self.merge_into("root", self.databases())
        for name in STORES[:3]:
            self.merge_into(name, [self.stores["root"].master_path])
        root = content(self.stores["root"].master_path)
        assert root.rows.keys() == somewhere
        if not self.is_lossy:
            assert (self.written.keys(), ()) == (root.rows.keys(), root.gaps)
        for store in self.stores.values():
            assert root == content(store.master_path)
            assert () == contradictions(store.verify(deep=True))
        self._check_that_nothing_is_left_to_carry()

    def _check_that_nothing_is_left_to_carry(self) -> None:
        """Check that nobody has rows for the root once everything is everywhere and the root has said so."""
        said = self._ranges(self.stores["root"].master_path)
        self.documents.append(said)
        for name in STORES[:3]:
            self.stores[name].receipt(said, force=True, trust=True)
            assert 0 == self._export(self.stores[name].master_path, said.streams, {"since_hub": said.database_id.hex()})

    # -- what must hold -----------------------------------------------------------------------------------------------

    def gaps(self, held: Held) -> tuple[Gap, ...]:
        """Return the rows that a database knows to exist but never held."""
        found = [
            Gap(self.agents[stream], stream, part.first, part.last)
            for stream, last in held.last.items()
            for part in subtract([Range(1, last)], held.ranges().get(stream, []))
        ]
        return tuple(sorted(found, key=lambda gap: (gap.agent, gap.stream, gap.first)))

    def check(self, path: Path) -> None:
        """Check that a master holds what the model says, as it was written."""
        found, held = content(path), self.held[path]
        assert found.ranges == held.ranges()
        assert {stream: (agent, last) for stream, (agent, _, last) in found.streams.items()} == {
            stream: (self.agents[stream], last) for stream, last in held.last.items()
        }
        assert found.gaps == self.gaps(held)
        assert found.rows.keys() == {(stream, seq) for stream, seqs in held.rows.items() for seq in seqs}
        assert found.transactions == {both for both in self.transactions if both[0] in found.rows}
        assert (found.columns, found.indexes) == (held.columns, held.indexes)
        for address, row in found.rows.items():
            assert row == self.seen.setdefault(address, row), f"row {address} differs between two databases"
            self.check_row(address, row)
        for stream, (_, began_at, _) in found.streams.items():
            if began_at:  # a note of a removed shard does not say when
                assert began_at == self.seen.setdefault(stream, began_at)

    def check_row(self, address: Address, row: Row) -> None:
        """Check that a row is the one that was written."""
        table, values = row
        if table == "agent_data":
            values = {"data": json.loads(values["data"])}
        assert (table, values) == self.written[address]

    def check_transactions(self, path: Path) -> None:
        """Check that a reader sees each transaction whole or not at all."""
        rows = content(path).rows.keys()
        for (stream, first), (_, last) in self.transactions:
            held = sum((stream, seq) in rows for seq in range(first, last + 1))
            assert held in (0, last - first + 1), f"of {last - first + 1} rows of a transaction {held} are there"

    @contextlib.contextmanager
    def unchanged(self, paths: set[Path]) -> Iterator[None]:
        """Check that the block changes neither these databases, nor their WALs, nor the times of either."""
        before = {path: timestamp(path) for path in paths}
        yield
        for path in paths:
            assert before[path] == timestamp(path), f"{path} was changed"


def timestamp(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files of a database, and when they were changed, without -shm, which each reader writes."""
    files = (path, Path(f"{path}-wal"), Path(f"{path}-journal"))
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files if file.exists()}


STEPS: tuple[tuple[int, Callable[[Fleet, Pick[Any]], None]], ...] = (
    (10, Fleet.write),
    (2, Fleet.close),
    (3, Fleet.drain),
    (3, Fleet.copy),
    (1, Fleet.snapshot),
    (2, Fleet.put_back),
    (2, Fleet.plant),
    (5, Fleet.merge),
    (1, Fleet.say_ranges),
    (1, Fleet.receipt),
    (3, Fleet.export),
)


def play(fleet: Fleet, pick: Pick[Any], steps: int) -> None:
    """Take steps chosen by `pick`."""
    deck = [step for weight, step in STEPS for _ in range(weight)]
    for _ in range(steps):
        pick(deck)(fleet, pick)
