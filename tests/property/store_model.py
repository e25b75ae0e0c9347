"""A model of a store, dicts and sets, stepped against the real thing by hypothesis.

Agents write, close, die and come back; shards are copied, restored and carried to another store; merges are complete,
die before or after their commit, or meet a writer between the commit and the truncation; masters merge into each other.

The model knows of each row, by a number that no other row has, whether a master must have it in the end:

* `acked`: rows that were acknowledged. Nothing else may ever appear, and nothing twice.
* `lost`: rows that a user threw away, by restoring an older copy over rows that no master had yet.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import edgeshard
from edgeshard.errors import RecordError
from edgeshard.master import extents
from edgeshard.merge import truncate
from tests.support.records import NOON, Reading
from tests.support.stores import contradictions, new_store, shard_path

AGENTS = ("a", "b")
STORES = ("left", "right")
agents = st.sampled_from(AGENTS)
stores = st.sampled_from(STORES)
#: A row more than one page of a shard, now and then.
paddings = st.sampled_from(["", "", "x" * 3000])


class Killed(BaseException):
    """Stands for the end of a process at a point of the code."""


class StoreMachine(RuleBasedStateMachine):
    """Two stores; the agents live in the left one, the right one gets copies."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edgeshard-model-"))
        self.stores = {name: new_store(self.folder / name) for name in STORES}
        self.open: dict[str, edgeshard.Shard] = {}
        self.numbers = itertools.count()
        self.acked: set[int] = set()
        self.lost: set[int] = set()
        self.in_shard: dict[str, set[int]] = {agent: set() for agent in AGENTS}  # acked and in the agent's file
        self.backups: dict[str, tuple[Path, set[int]]] = {}
        self.images = itertools.count()

    # -- agents -------------------------------------------------------------------------------------------------------

    def shard(self, agent: str) -> edgeshard.Shard:
        if agent not in self.open:
            self.open[agent] = self.stores["left"].shard(agent)
        return self.open[agent]

    def ack(self, agent: str, *numbers: int) -> None:
        self.acked.update(numbers)
        self.in_shard[agent].update(numbers)

    def record(self, number: int, padding: str = "") -> Any:
        return {"n": number, "p": padding} if number % 3 else Reading(str(number), 1.0, NOON)

    @rule(agent=agents, padding=paddings)
    def write(self, agent: str, padding: str) -> None:
        number = next(self.numbers)
        self.shard(agent).write(self.record(number, padding))
        self.ack(agent, number)

    @rule(agent=agents, count=st.integers(0, 8), padding=paddings)
    def write_many(self, agent: str, count: int, padding: str) -> None:
        numbers = list(itertools.islice(self.numbers, count))
        assert count == self.shard(agent).write_many(self.record(number, padding) for number in numbers)
        self.ack(agent, *numbers)

    @rule(agent=agents, count=st.integers(1, 5), fails=st.booleans(), inner_fails=st.booleans())
    def transaction(self, agent: str, count: int, fails: bool, inner_fails: bool) -> None:
        numbers = list(itertools.islice(self.numbers, count))
        inner = next(self.numbers)
        shard = self.shard(agent)
        try:
            with shard.transaction():
                for number in numbers:
                    shard.write(self.record(number))
                try:
                    with shard.transaction():
                        shard.write(self.record(inner))
                        if inner_fails:
                            raise KeyError
                except KeyError:
                    pass
                if fails:
                    raise ValueError
        except ValueError:
            return
        self.ack(agent, *numbers, *([] if inner_fails else [inner]))

    @rule(agent=agents, many=st.booleans())
    def write_what_cannot_be_stored(self, agent: str, many: bool) -> None:
        bad = {"n": {1}}
        try:
            if many:
                self.shard(agent).write_many([self.record(next(self.numbers)), bad])
            else:
                self.shard(agent).write(bad)
        except RecordError:
            return
        raise AssertionError("a set was stored as JSON")

    @rule(agent=agents)
    def close(self, agent: str) -> None:
        if agent in self.open:
            self.open.pop(agent).close()

    @rule(agent=agents)
    def kill(self, agent: str) -> None:
        """The files stay as they are at this moment, the log uncopied; the handle is gone."""
        if agent in self.open:
            image = self.image(agent)
            self.open.pop(agent).close()
            self.put_back(agent, image)

    # -- files --------------------------------------------------------------------------------------------------------

    def image(self, agent: str) -> Path:
        """A copy of the shard and its log, as they are."""
        image = self.folder / f"image{next(self.images)}"
        image.mkdir()
        for path in shard_path(self.stores["left"], agent).parent.glob(f"{agent}.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, image)
        return image

    def put_back(self, agent: str, image: Path) -> None:
        folder = shard_path(self.stores["left"], agent).parent
        for path in folder.glob(f"{agent}.db*"):
            path.unlink()
        for path in image.iterdir():
            shutil.copy(path, folder)

    @rule(agent=agents)
    def back_up(self, agent: str) -> None:
        if shard_path(self.stores["left"], agent).exists():
            self.backups[agent] = (self.image(agent), set(self.in_shard[agent]))

    @precondition(lambda self: self.backups)
    @rule(agent=agents)
    def restore(self, agent: str) -> None:
        if agent in self.backups:
            self.close(agent)
            image, rows = self.backups[agent]
            self.put_back(agent, image)
            self.lost |= self.in_shard[agent] - rows - self.anywhere_but(agent)
            self.lost -= rows
            self.in_shard[agent] = set(rows)

    def anywhere_but(self, agent: str) -> set[int]:
        """Rows that are safe although this agent's file goes: in a master, or in a copy that one will merge."""
        in_masters = {number for store in self.stores.values() for number in numbers(store)}
        return in_masters | getattr(self, "carried", set())

    @rule(agent=agents)
    def carry(self, agent: str) -> None:
        """A copy of the shard goes to the other store, as a shard there."""
        if shard_path(self.stores["left"], agent).exists():
            self.close(agent)
            there = self.stores["right"].root / "shards"
            there.mkdir(parents=True, exist_ok=True)
            name = f"{agent}-{next(self.images)}.db"
            for path in self.image(agent).iterdir():  # with its log: its agent may have been killed
                shutil.copy(path, there / path.name.replace(f"{agent}.db", name))
            self.carried: set[int] = getattr(self, "carried", set()) | self.in_shard[agent]

    # -- merges -------------------------------------------------------------------------------------------------------

    @rule(name=stores)
    def merge(self, name: str) -> None:
        self.merged(self.stores[name].merge())

    @rule(name=stores)
    def merge_killed_before_its_commit(self, name: str) -> None:
        def kill(*_: Any) -> Any:
            raise Killed

        with mock.patch.object(extents, "add_ranges", kill):
            self.try_merge(name)

    @rule(name=stores, shards=st.integers(0, 1))
    def merge_killed_before_a_truncation(self, name: str, shards: int) -> None:
        real, calls = truncate.truncate, itertools.count()

        def kill(*arguments: Any) -> Any:
            if next(calls) >= shards:
                raise Killed
            return real(*arguments)

        with mock.patch.object(truncate, "truncate", kill):
            self.try_merge(name)

    @rule(agent=agents)
    def merge_meets_a_writer_before_the_truncation(self, agent: str) -> None:
        real, shard = truncate.truncate, self.shard(agent)

        def late(*arguments: Any) -> Any:
            number = next(self.numbers)
            shard.write(self.record(number))
            self.ack(agent, number)
            return real(*arguments)

        with mock.patch.object(truncate, "truncate", late):
            self.merged(self.stores["left"].merge())

    @rule(agent=agents, name=stores)
    def merge_a_shard_as_a_source(self, agent: str, name: str) -> None:
        if shard_path(self.stores["left"], agent).exists():
            self.merged(self.stores[name].merge([shard_path(self.stores["left"], agent)]))

    @rule(name=stores)
    def merge_the_other_master(self, name: str) -> None:
        other = self.stores["right" if name == "left" else "left"]
        if other.master_path.exists():
            self.merged(self.stores[name].merge([other.master_path]))

    def try_merge(self, name: str) -> None:
        with contextlib.suppress(Killed):
            self.stores[name].merge()

    def merged(self, report: edgeshard.MergeReport) -> None:
        assert () == report.quarantined
        for store in self.stores.values():
            found = numbers(store)
            assert len(found) == len(set(found)), "a row is doubled"
            assert set(found) <= self.acked, "a row appeared that was not acknowledged"

    # -- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            for agent in list(self.open):
                self.close(agent)
            left, right = self.stores["left"], self.stores["right"]
            left.merge()
            right.merge([left.master_path])
            report = left.merge([right.master_path])
            self.merged(report)
            missing = self.acked - self.lost - set(numbers(left))
            assert not missing, f"rows are lost: {missing}"
            assert numbers(left) == numbers(right)
            for store in (left, right):
                assert () == contradictions(store.verify())
            assert () == report.gaps, "rows are missing by the store's own account"
        finally:
            shutil.rmtree(self.folder)


def numbers(store: edgeshard.Store) -> list[int]:
    """The numbers of all rows in a master, of both tables."""
    if not store.master_path.exists():
        return []
    has_readings = store.query("select 1 from _edgeshard_columns where table_name = 'reading'")
    union = " union all select cast(sensor as integer) from reading" if has_readings else ""
    return sorted(number for (number,) in store.query(f"select data ->> 'n' as n from agent_data{union}"))
