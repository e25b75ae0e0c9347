"""A fleet on real files: four stores with agents, and everything that is carried between them; and what must hold."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import random
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import attrs

import edgeshard
from edgeshard.errors import DiskBudgetError
from edgeshard.exchange import receipts as exchange_receipts
from edgeshard.exchange.inventory import Inventory
from edgeshard.format import blocks
from edgeshard.master import pruned_ranges
from edgeshard.master import receipts as master_receipts
from edgeshard.records import hlc, machine_clock
from edgeshard.shard import shard as shard_module
from tests.support.clocks import Boottime
from tests.support.fleets import contents, disputes
from tests.support.fleets.contents import Content, Stored
from tests.support.fleets.kills import killed_at
from tests.support.fleets.model import CURRENT, HISTORY, PRUNED, SUPERSEDED, Address, Held, Row, Schema
from tests.support.fleets.shapes import DECK, DICT, DISPUTED_TABLES, Shape
from tests.support.forks import Count, Life
from tests.support.in_memory import IN_MEMORY
from tests.support.stores import entries_without_stream, new_store, shard_path

if TYPE_CHECKING:
    from tests.support.fleets.importing import Source
    from tests.support.fleets.upstream import Upstream

STORES = ("boat", "van", "hub", "root")
#: The stores that agents write to.
DEVICES = STORES[:3]
AGENTS = ("a", "b")

_LARGE_BYTES = 16 << 20

#: Changes after one that has it have it, too: then their seqs decide.
TIMESTAMP_MAX = 7_258_118_400_000_000

NOON_US = 1_795_608_000_000_000


@attrs.frozen
class Image:
    """A copy of a database's files, and what it was copied from."""

    path: Path
    original: Path

    @property
    def is_of_shard(self) -> bool:
        """Whether it is a copy of a shard."""
        return self.original.parent.name == "shards"


@attrs.define
class Wall:
    """The wall clock of all devices, which steps move both ways."""

    now_us: int = NOON_US

    def _now_us(self) -> int:
        return self.now_us

    def _now_s(self) -> float:
        return self.now_us / 1e6

    def install(self, patches: contextlib.ExitStack) -> None:
        """Let edgeshard take the time from it, except where it compares times with those of the file system."""
        wall = self

        class Datetime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.fromtimestamp(wall.now_us / 1e6, tz)

        patches.enter_context(mock.patch.object(hlc, "now_us", self._now_us))
        patches.enter_context(mock.patch.object(time, "time", self._now_s))
        patches.enter_context(mock.patch.object(machine_clock, "boottime_s", Boottime(self._now_s)))
        faked = SimpleNamespace(datetime=Datetime, UTC=datetime.UTC, timedelta=datetime.timedelta)
        for module in (shard_module, pruned_ranges, master_receipts, exchange_receipts):
            patches.enter_context(mock.patch.object(module, "datetime", faked))


class Fleet:
    """Four stores, their agents, and copies of their files, each step checked against the model.

    Attributes:
        written: the acknowledged rows, by address.
        agents: who writes each stream. A stream that is not in it is none of an honest agent.
        held: what each database must hold.
        deck: the classes that agents write, each as often as its weight says.
        fitting: which classes each open handle has found to fit the master.
        hostile: the databases that lie; of what they hold, only what is true is in `held`.
        images: copies of database files.
        sources: the files of other programs that devices import, by path.
        documents: inventories of stores, in the order in which they were taken.
        server: the PostgreSQL database that stores are pushed to, if there is one.
        pruned: the addresses that any master pruned.
        unproven: the copies of shards that the last merge of each store quarantined.
        removed: up to which seq each stream of a store's removed shards was merged: an older master lacks the rest.
        is_lossy: whether rows were thrown away that may have been the only copy.
        log: what was done, for a failure.
        counts: how often each kind of step was taken, and what else happened.
    """

    def __init__(self, form: str = "honest", without: Collection[str] = (), seed: str = "") -> None:
        self.form, self.without = form, frozenset(without)
        self.folder = Path(tempfile.mkdtemp(prefix="edgeshard-fleet-", dir=IN_MEMORY))
        self.stores = {name: new_store(self.folder / name) for name in STORES}
        self.open: dict[Path, edgeshard.Shard] = {}
        self.written: dict[Address, Row] = {}
        self.agents: dict[str, str] = {}
        self.transactions: set[tuple[Address, Address]] = set()
        self.transaction_of: dict[Address, tuple[Address, Address]] = {}
        self.deck = DECK
        self.fitting: dict[Path, tuple[edgeshard.Shard, set[Shape]]] = {}
        self.seen: dict[Any, Any] = {}
        self.held: dict[Path, Held] = {}
        self.hostile: set[Path] = set()
        self.budgets: set[str] = set()
        self.images: list[Image] = []
        self.sources: dict[Path, Source] = {}
        self.documents: list[Inventory] = []
        self.server: Upstream | None = None
        self.pruned: set[Address] = set()
        self.collected: set[Any] = set()
        self.refused: set[str] = set()
        self.unproven: dict[str, set[Path]] = {}
        self.removed: dict[str, dict[str, int]] = {}
        self.is_lossy = False
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self.numbers = itertools.count(1)
        self.names = itertools.count(1)
        self.wall = Wall()
        self._patches = contextlib.ExitStack()
        self.wall.install(self._patches)
        # ids decide which of two equal changes counts, and in which order databases are listed
        self._ids = random.Random(f"ids {seed}")
        self._patches.enter_context(mock.patch.object(secrets, "token_bytes", self._ids.randbytes))

    def remove(self) -> None:
        """Close all handles, delete the files, and give edgeshard its clock back."""
        with self._patches:
            for shard in self.open.values():
                shard.close()
            shutil.rmtree(self.folder)

    def say(self, text: str) -> None:
        """Add details to what is printed if this fleet fails."""
        self.log.append(text)

    # -- what there is ------------------------------------------------------------------------------------------------

    def databases(self) -> list[Path]:
        """Return all databases that could be merged now."""
        return sorted(self.held)

    def shards(self) -> list[Path]:
        """Return the shards of all stores."""
        return [path for path in self.databases() if path.parent.name == "shards"]

    def own_shards(self, name: str) -> list[Path]:
        """Return the shards of a store."""
        return [path for path in self.shards() if path.parent.parent == self.stores[name].root]

    def masters(self) -> list[Path]:
        """Return the masters that exist."""
        return [store.master_path for store in self.stores.values() if store.master_path in self.held]

    def name(self, path: Path) -> str:
        """Return a database's path within the fleet."""
        return str(path.relative_to(self.folder))

    def new_path(self, kind: str) -> Path:
        """Return a path for a file that does not exist yet."""
        return self.folder / f"{kind}{next(self.names)}.db"

    def close_all(self) -> None:
        """Close all handles, as before a fork."""
        for path in list(self.open):
            self.open.pop(path).close()

    def killed_at(self, number: int, work: Callable[[Count], Any]) -> Life:
        """Do work in a process that is killed before its nth SQL statement, with all handles closed."""
        self.close_all()
        seed = self._ids.random()

        def work_with_other_ids(count: Count) -> None:
            self._ids.seed(seed)
            work(count)

        return killed_at(number, work_with_other_ids)

    # -- what agents acknowledge --------------------------------------------------------------------------------------

    def shard(self, name: str, agent: str) -> edgeshard.Shard:
        """Return an agent's open shard."""
        path = shard_path(self.stores[name], agent)
        if path not in self.open:
            self.open[path] = self.stores[name].shard(agent)
        return self.open[path]

    def acknowledge(
        self, path: Path, agent: str, stream: str, first: int, changes: Sequence[tuple[Shape, dict[str, Any], bool]]
    ) -> None:
        """Record rows that a writer has acknowledged, from the seq `first` on, in one transaction."""
        self.agents[stream] = agent
        held = self.held.setdefault(path, Held())
        for seq, (shape, values, is_tombstone) in enumerate(changes, first):
            timestamp = 0
            if shape.key:
                table = f"{shape.table}_deleted" if is_tombstone else shape.table
                timestamp = contents.timestamp(path, table, stream, seq)
                last = self.seen.get(("timestamp", stream), 0)
                is_later = timestamp > last or timestamp == last == TIMESTAMP_MAX
                assert is_later, f"timestamp {timestamp} of seq {seq} follows {last}"
                self.seen["timestamp", stream] = timestamp
            self.written[stream, seq] = Row((stream, seq), agent, shape, values, is_tombstone, timestamp)
            held.state[stream, seq] = CURRENT
            held.schema.declare(shape)
        held.last[stream] = first + len(changes) - 1
        if len(changes) > 1:
            whole = ((stream, first), (stream, held.last[stream]))
            self.transactions.add(whole)
            self.transaction_of |= {(stream, seq): whole for seq in range(first, held.last[stream] + 1)}
        self.counts["rows"] += len(changes)

    # -- merges -------------------------------------------------------------------------------------------------------

    def merge_into(
        self,
        name: str,
        sources: Sequence[Path] = (),
        *,
        merge: Callable[[edgeshard.Store], Any] | None = None,
        keep_empty: bool = False,
        chunk_bytes: int = blocks.CHUNK_BYTES,
        kill_at: int = 0,
        is_watching: bool = False,
    ) -> Any:
        """Merge, and compare everything with the model.

        Args:
            name: the store.
            sources: other databases.
            merge: merges in another way than `Store.merge`; it is called with the store.
            keep_empty: see `Store.merge`.
            chunk_bytes: how much a transaction copies.
            kill_at: first merge in a process that is killed before its nth SQL statement.
            is_watching: whether shards may keep rows that the master holds.
        """
        store = self.stores[name]
        target = store.master_path
        own = self.own_shards(name)
        before = self.held.get(target) or Held(schema=_master_schema())
        merged = [path for path in dict.fromkeys([*own, *sources]) if path != target]
        honest = [path for path in merged if path not in self.hostile]
        others = {path for path in merged if path not in own}
        self.say(f"  into {name}: own {[path.name for path in own]}, and {[self.name(path) for path in sources]}")

        # one that claims that an agent truncated the first rows of a transaction brings the others alone
        noted = self._noted(name)
        tainted = [held for held in [before, *(self.held[path] for path in merged)] if held.is_tainted]
        is_honest = not (tainted or self.hostile.intersection(merged))

        def check_commit(*_: int) -> None:
            if is_honest:
                self.check_whole_transactions(contents.ranges(target))

        def merge_store(store: edgeshard.Store) -> Any:
            # a merge that was refused or killed before may have removed own shards that are named here, too
            there = [path for path in sources if path.exists()]
            return store.merge(there, keep_empty=keep_empty, progress=check_commit)

        if kill_at:
            self.close_all()
        with mock.patch.object(blocks, "CHUNK_BYTES", chunk_bytes), self.unchanged(others):
            if kill_at:
                life = self.killed_at(kill_at, lambda _: store.merge(sources, keep_empty=keep_empty))
                self.counts["mergers killed"] += life.killed
            report = self._merged(name, merge or merge_store)
        found = contents.read(target)
        unproven = self.check_quarantined(report, before.those(PRUNED) | found.pruned)
        there = disputes.kinds(found.columns)
        blocked = {path: self.blocked(path, there) for path in honest}
        divisible = {path: self._divisible(path, blocked[path], there) for path in honest}
        expected = before.copy()
        expected.hear(noted)
        for path in honest:
            expected.merge(self.held[path], blocked[path])
        for path in honest:  # what no other source has brought whole
            expected.merge(self.held[path], blocked[path] - (divisible[path] & found.held))
        self._add_what_came_of_hostile(target, expected, merged)
        expected.schema = disputes.with_tables(expected.schema, there)
        if not expected.is_tainted:
            disputes.check_kinds(before, [self.held[path] for path in honest], expected, there, self.written)
        self._check_blocked(report, blocked, divisible, expected, unproven)
        expected.settle(self.written)
        self.held[target] = expected
        self._note_erased(name, expected)
        self._check_drained(name, own, expected, unproven, blocked, is_watching=is_watching)
        is_exact = not (kill_at or merge or expected.is_tainted or name in self.budgets)
        if name in self.budgets or report.pruned is not None:
            self.observe_pruned(target, None)
        # an older master that was put back never held some of the rows that were erased since
        new = expected.state.keys() - before.state.keys() - expected.those(PRUNED)
        if is_exact and not any(self.written[address].shape.key for address in new):
            assert report.rows == len(new), f"{report.rows} rows reported, {len(new)} came"
        self.check(target)
        self.unproven[name] = unproven
        self.check_gaps(report.gaps, name)
        return report

    def _note_erased(self, name: str, expected: Held) -> None:
        """Record what was erased from a store, from this master or an older one: no merge leaves it there."""
        for address in self._honest(contents.erased(self.stores[name].root)):
            expected.state[address] = PRUNED
            expected.last[address[0]] = max(address[1], expected.last.get(address[0], 0))
            self.pruned.add(address)

    def blocked(self, path: Path, there: disputes.Kinds) -> set[Address]:
        """Return the rows of a database that one whose disputed columns have these types cannot take."""
        return disputes.blocked(self.held[path], there, self.written, self.transaction_of)

    def _divisible(self, path: Path, blocked: Set[Address], there: disputes.Kinds) -> set[Address]:
        """Return those of the blocked rows of a database that may come all the same, without their transaction.

        A database gets the rest of a transaction of which another one has pruned a row. If the pruned row comes from a
        third one later, it does not know that these rows are one transaction. Liars divide transactions as they like.
        """
        if path.parent.name == "shards" or any(each.path == path and each.is_of_shard for each in self.images):
            return set()  # a shard has its agent's transactions whole
        held = self.held[path]
        mere = blocked - disputes.unfit(held, there, self.written)
        return {
            address
            for address in mere
            if held.is_tainted or disputes.whole_transactions([address], self.transaction_of) & self.pruned
        }

    def _check_blocked(
        self,
        report: Any,
        blocked: Mapping[Path, Set[Address]],
        divisible: Mapping[Path, Set[Address]],
        expected: Held,
        unproven: Collection[Path],
    ) -> None:
        """Check that a merge reports the blocked rows of each source; some may have come from another one."""
        reported: Counter[Path] = Counter()
        for item in report.blocked:
            reported[Path(item.path)] += item.rows
        for path in (blocked.keys() | reported.keys()) - self.hostile - set(unproven):
            most = blocked[path]
            least = most - divisible.get(path, set()) - expected.state.keys()
            assert len(least) <= reported[path] <= len(most), (
                f"{reported[path]} rows of {self.name(path)} are reported as blocked; {sorted(least)} are, "
                f"and {sorted(most - least)} may be"
            )
            self.counts["rows blocked"] += reported[path]
            self.counts["merges with blocked rows"] += bool(reported[path])

    def pending(self, name: str) -> set[Address]:
        """Return the rows in a store's own shards that its master does not hold."""
        held = self.held[self.stores[name].master_path]
        own = [path for path in self.own_shards(name) if path not in self.hostile]
        return set[Address]().union(*(self.held[path].state for path in own)) - held.state.keys()

    def _merged(self, name: str, merge: Callable[[edgeshard.Store], Any]) -> Any:
        try:
            return merge(self.stores[name])
        except DiskBudgetError:
            # the master has no space for them: the rows stay where they are until there is no budget any more
            self.counts["merges refused"] += 1
            self.lift_budget(name)
            return merge(self.stores[name])

    def lift_budget(self, name: str) -> None:
        """Remove a store's disk budget; its handles keep theirs until they are closed."""
        root = self.stores[name].root
        (root / "budget.json").unlink(missing_ok=True)
        self.stores[name] = edgeshard.Store(root)
        for path in [path for path in self.open if path.parent.parent == root]:
            self.open.pop(path).close()

    def check_quarantined(self, report: Any, pruned: Set[Address] = frozenset()) -> set[Path]:
        """Check that only hostile databases are quarantined, and copies of shards whose rows the master pruned.

        Args:
            report: of the merge.
            pruned: what the master has pruned.

        Returns:
            These copies: they may keep their rows.
        """
        copies = {
            path for path in map(Path, (item.path for item in report.quarantined)) if path.parent.name == "shards"
        }
        unproven = {path for path in copies - self.hostile if self.held[path].state.keys() & pruned}
        honest = [item for item in report.quarantined if Path(item.path) not in self.hostile | unproven]
        assert not honest, f"honest databases are quarantined: {honest}"
        self.counts["quarantined"] += len(report.quarantined) - len(unproven)
        self.counts["shards with unproven rows"] += len(unproven)
        return unproven

    def _add_what_came_of_hostile(self, target: Path, expected: Held, merged: Iterable[Path]) -> None:
        """Add those rows of hostile databases that are true, and were merged."""
        liars = [path for path in merged if path in self.hostile]
        if liars:
            there = contents.ranges(target)
            for path in liars:
                part = self.held[path].copy()
                part.state = {address: state for address, state in part.state.items() if address in there}
                part.last = {stream: max(seq for of, seq in part.state if of == stream) for stream, _ in part.state}
                part.schema = Schema()
                expected.merge(part)
            expected.is_tainted = True
            expected.schema.add(contents.as_held(contents.read(target)).schema.without(DISPUTED_TABLES))

    def known_outside(self, name: str) -> Held:
        """Return what a store's notes and its shards say of rows that some master of it holds."""
        found = self._noted(name)
        for path in self.own_shards(name):
            for stream, last in contents.truncated(path).items() if path not in self.hostile else ():
                found.last[stream] = max(last, found.last.get(stream, 0))
            found.is_tainted = found.is_tainted or path in self.hostile
        return found

    def _noted(self, name: str) -> Held:
        """Return what a store's notes say outside its master: at least what its removed shards had brought.

        A merger that was killed before it could remove a shard may have noted more.
        """
        found, known = contents.noted(self.stores[name].root / "removed-shards.db"), self.removed.get(name, {})
        assert all(last <= found.get(stream, 0) for stream, last in known.items()), f"{name} notes {found}, not {known}"
        said = {stream: last for stream, last in found.items() if (stream, last) in self.written}
        is_tainted = said != found
        assert self.form == "hostile" or not is_tainted, f"{name} notes {found}"
        return Held(last=said, is_tainted=is_tainted)

    def _check_drained(
        self,
        name: str,
        own: Sequence[Path],
        expected: Held,
        unproven: Collection[Path],
        blocked: Mapping[Path, Set[Address]],
        *,
        is_watching: bool,
    ) -> None:
        """Check that the store's own shards lost no row that the master does not have, and all that it has."""
        for path in own:
            held = self.held[path]
            if not path.exists():
                lost = held.state.keys() - expected.state.keys()
                assert path in self.hostile or not lost, f"{self.name(path)} was removed with rows {sorted(lost)}"
                noted = self.removed.setdefault(name, {})
                for stream, last in held.last.items() if path not in self.hostile else ():
                    noted[stream] = max(last, noted.get(stream, 0))
                del self.held[path]
                self.hostile.discard(path)
                continue
            if path in self.hostile:
                continue
            left = contents.read(path).held
            assert left <= held.state.keys()
            lost = held.state.keys() - left - expected.state.keys()
            assert not lost, f"{self.name(path)} was truncated, and lost rows {sorted(lost)}"
            # a shard is truncated up to its first blocked row
            stays_from = dict(sorted(blocked[path], reverse=True))
            stuck = {(stream, seq) for stream, seq in left & expected.visible if seq < stays_from.get(stream, seq + 1)}
            assert is_watching or not stuck or path in unproven, f"{self.name(path)} keeps merged rows {sorted(stuck)}"
            held.state = dict.fromkeys(left, CURRENT)

    def observe_pruned(self, path: Path, count: int | None, *, tombstones: bool = False) -> set[Address]:
        """Record what a prune has deleted, as far as it may.

        Args:
            path: the master.
            count: how many rows it reports; None if it does not say.
            tombstones: whether it may delete tombstones, and nothing else.

        Returns:
            The addresses.
        """
        found, held = contents.read(path), self.held[path]
        gone = self._honest(found.pruned) - held.those(PRUNED)
        _same("gone by a prune", gone & held.visible, held.visible - found.rows.keys())
        noted_before, held.noted = held.noted, contents.noted_as_superseded(path)
        if count is not None and not held.is_tainted:
            pruned = len(gone) - (held.noted - noted_before)
            assert count == pruned, f"{count} rows reported, {pruned} are gone"
        for address in gone:
            row, state = self.written[address], held.state[address]
            if tombstones:
                # a stream of which all rows are superseded may retire
                assert row.is_tombstone or state == SUPERSEDED
                self.collected |= {row.key} if row.is_tombstone else set()
            else:
                # the seqs of superseded rows are pruned with those around them
                assert state != CURRENT or not row.shape.key, f"the current row {address} was pruned"
            held.state[address] = PRUNED
        self.pruned |= gone
        self.counts["rows pruned"] += len(gone)
        return gone

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _honest(self, addresses: Iterable[Address]) -> set[Address]:
        return {address for address in addresses if address[0] in self.agents}

    def check(self, path: Path) -> Content:
        """Check that a master or a bundle holds what the model says, as it was written."""
        found, held = contents.read(path), self.held[path]
        assert not (entries := entries_without_stream(path)), f"of streams that are not listed: {entries}"
        assert not self._honest(found.doubled), f"rows are doubled: {found.doubled}"
        _same("ever held", held.state.keys(), self._honest(found.held))
        _same("in tables", held.visible, self._honest(found.rows))
        _same("pruned", held.those(PRUNED), self._honest(found.pruned))
        self._check_rejected(path, held)
        self._check_streams(found, held)
        self._check_schema(found, held)
        for address in held.visible:
            self._check_row(address, found.rows[address], held, found)
        if not held.is_tainted:
            self.check_whole_transactions(found.held)
        return found

    def _check_rejected(self, path: Path, held: Held) -> None:
        """Check that only pushes, users and the rows' end change what is recorded as rejected."""
        if self.server is None:
            return
        found, here = contents.rejections(path), held.state.keys() - held.those(PRUNED)
        _same("rejected", held.rejected.keys() & here, found.rejected.keys() & here)
        _same("dismissed", held.dismissed & here, found.dismissed & here)

    def _check_streams(self, found: Content, held: Held) -> None:
        superseded = Counter(stream for stream, _ in held.those(SUPERSEDED))
        unknown = held.last.keys() - found.streams.keys()
        assert not unknown, f"streams {[(stream, self.agents[stream], held.last[stream]) for stream in unknown]}"
        for stream, last in held.last.items():
            agent, began_at = found.streams[stream]
            assert agent == self.agents[stream]
            if began_at:  # it is unknown once the stream has retired
                assert began_at == self.seen.setdefault(("began", stream), began_at)
            assert superseded[stream] == found.superseded.get(stream, 0), f"superseded rows of {stream}"
            if not held.is_tainted:
                assert last == found.last[stream], f"last seq of {stream}"
            assert last <= found.last[stream]
        if not held.is_tainted:
            assert found.streams.keys() == held.last.keys()

    def _check_schema(self, found: Content, held: Held) -> None:
        columns, indexes = held.schema.all_columns(), held.schema.all_indexes()
        if held.is_tainted:
            assert columns.keys() <= found.columns.keys()
            assert indexes <= found.indexes
        else:
            assert columns == found.columns
            assert indexes == found.indexes

    def _check_row(self, address: Address, stored: Stored, held: Held, found: Content) -> None:
        row = self.written[address]
        assert (stored.table, stored.is_tombstone) == (row.shape.table, row.is_tombstone), f"row {address}"
        assert stored.is_history == (held.state[address] == HISTORY), f"row {address}"
        expected = contents.expected_columns(row, held.schema)
        table = f"{stored.table}_deleted" if stored.is_tombstone else stored.table
        for column, value in stored.values.items():
            if column in expected:
                is_right = contents.is_stored_as(value, expected[column], found.columns[table, column])
                assert is_right, (
                    f"row {address}, {table}.{column}: {expected[column]!r} was written, {value!r} is there"
                )
            elif column == "_timestamp":
                assert (value or 0) == row.timestamp, f"row {address} has another timestamp"
            elif column == "timestamp":
                assert value == self.seen.setdefault(("timestamp", address), value)
            elif column != "_reason":
                assert value is None, f"row {address}, {table}.{column}: nothing was written, {value!r} is there"
        assert expected.keys() <= stored.values.keys()

    def check_whole_transactions(self, held: set[Address]) -> None:
        """Check that each transaction was merged as a whole or not at all, unless some of its rows were pruned."""
        for (stream, first), (_, last) in self.transactions:
            whole = {(stream, seq) for seq in range(first, last + 1)}
            addresses = whole - self.pruned
            if addresses != whole and not addresses <= held:
                # once a row of a transaction was pruned, those that nobody sees may come apart from the others
                addresses = addresses.difference(*(of.those(SUPERSEDED) for of in self.held.values()))
            there = len(addresses & held)
            assert there in (0, len(addresses)), f"of {len(addresses)} rows of a transaction {there} are there"

    def check_gaps(self, gaps: Iterable[Any], name: str, *, is_pending_known: bool = True) -> None:
        """Check that exactly the missing rows are reported; those that were pruned elsewhere may be.

        Args:
            gaps: the reported ones.
            name: the store.
            is_pending_known: whether the report knows what is pending; otherwise these rows may be among the gaps.
        """
        held = self.held[self.stores[name].master_path]
        if held.is_tainted:
            return
        reported = {(gap.stream, seq) for gap in gaps for seq in range(gap.first, gap.last + 1)}
        # what is blocked in a shard that is quarantined for another reason may be reported
        pending, unproven = self.pending(name), self.unproven.get(name)
        uncertain = self.pruned | (pending if unproven or not is_pending_known else set())
        _same("missing", held.missing - pending - uncertain, reported - uncertain)
        assert reported <= held.missing

    @contextlib.contextmanager
    def unchanged(self, paths: set[Path]) -> Iterator[None]:
        """Check that the block changes neither these databases, nor their WALs, nor the times of either."""
        before = {path: file_states(path) for path in paths}
        yield
        for path in paths:
            after = file_states(path)
            changed = [name for name in {**before[path], **after} if before[path].get(name) != after.get(name)]
            assert not changed, f"{changed} of {path} was changed"


def _master_schema() -> Schema:
    schema = Schema()
    schema.declare(DICT)
    return schema


def _same(what: str, expected: Iterable[Any], found: Iterable[Any]) -> None:
    expected, found = set(expected), set(found)
    lost, added = sorted(expected - found)[:5], sorted(found - expected)[:5]
    assert expected == found, f"{what}: {lost} should be there, and {added} should not"


def file_states(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files of a database, and when they were changed, without -shm, which each reader writes."""
    files = (path, Path(f"{path}-wal"), Path(f"{path}-journal"))
    states = {file.name: (_bytes(file), file.stat().st_mtime_ns) for file in files if file.exists()}
    return {name: state for name, state in states.items() if state[0]}  # a reader that was killed leaves an empty WAL


def _bytes(file: Path) -> bytes:
    """Return a file's content, or the size of a file that only seems to be large."""
    size = file.stat().st_size
    return file.read_bytes() if size < _LARGE_BYTES else b"%d" % size
