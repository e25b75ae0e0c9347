"""Compare what was promised about each row with what is there after each crash."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NoReturn

import attrs

import edgeshard
from tests.crash.powercut.contents import Found, ViolationError
from tests.crash.powercut.disk import Crash


class Fate(enum.Enum):
    """What is known about a unit of rows."""

    BEGUN = "begun"  # it may be there or not, whole
    HELD = "held"  # it must be there
    GONE = "gone"  # it was refused, or lost in a power cut: it must never be there
    BEHIND = "behind"  # it was in a master that was replaced by an older copy


@attrs.define(eq=False)
class Unit:
    """Rows of one transaction.

    Attributes:
        agent: the agent that wrote them.
        numbers: the rows, in order.
        fate: what is known about it.
        durable: whether it survives power cuts, wherever it is.
        in_shard: whether its shard had it, or a record of its truncation, after the last crash.
        synced: whether the shard had that durably.
        noted: whether its shard has a record of its truncation.
        reported: whether a merge reported that the master has it.
        pruned: whether a prune that reported it is done. From then on the master records it as pruned, and never has it.
        address: the stream's id, and the seq of the first row; ("", 0) if the write was never acknowledged.
        last: whether its transaction also wrote (True) or deleted (False) the last row of a key; None: neither.
        key: the key.
        timestamp: the timestamp of that change; 0 if it was not even begun.
    """

    agent: str
    numbers: range
    fate: Fate = Fate.BEGUN
    durable: bool = False
    in_shard: bool = True
    synced: bool = False
    noted: bool = False
    reported: bool = False
    pruned: bool = False
    address: tuple[str, int] = ("", 0)
    last: bool | None = None
    key: str = ""
    timestamp: int = 0

    def all_seqs(self) -> set[tuple[str, int]]:
        """Return the addresses of all that it wrote."""
        return self.seqs() | (
            {(self.address[0], self.address[1] + len(self.numbers))} if self.last is not None else set()
        )

    def seqs(self) -> set[tuple[str, int]]:
        """Return the addresses of its rows."""
        return {(self.address[0], self.address[1] + k) for k in range(len(self.numbers))}

    def refuse(self) -> None:
        """Record that edgeshard refused it, or will undo it."""
        self.fate = Fate.GONE


class Oracle:
    """Accounts for every row of a trial.

    Attributes:
        units: all units that were begun.
        counts: numbers of rows, by what was acknowledged.
    """

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.counts: Counter[str] = Counter()
        self._by_number: dict[int, Unit] = {}

    # -- told by the actors -------------------------------------------------------------------------------------------

    def begin(self, agent: str, rows: int) -> Unit:
        """Record that an agent is about to write a number of rows."""
        first = len(self._by_number) + 1
        unit = Unit(agent, range(first, first + rows))
        self.units.append(unit)
        self._by_number.update(dict.fromkeys(unit.numbers, unit))
        return unit

    def acknowledge(self, unit: Unit, stream: str, first: int, *, durable: bool) -> None:
        """Record that edgeshard acknowledged the rows."""
        unit.fate, unit.address = Fate.HELD, (stream, first)
        self.counts["rows acknowledged at power" if durable else "rows acknowledged at process"] += len(unit.numbers)
        if durable:
            self.sync(unit.agent)

    def sync(self, agent: str) -> None:
        """Record that all that the agent wrote so far survives power cuts."""
        for unit in self.units:
            if unit.agent == agent and unit.fate is Fate.HELD:
                unit.durable = True
                unit.synced = unit.synced or unit.in_shard

    def report(self, numbers: Iterable[int]) -> None:
        """Record that a merge returned, and that the master had these rows at one of its own commits."""
        for unit in {self._by_number[number] for number in numbers}:
            if not unit.reported:
                unit.reported = unit.durable = True
                self.counts["rows reported as merged"] += len(unit.numbers)
            if unit.fate is Fate.BEGUN:  # its writer was killed, or is about to be told
                unit.fate = Fate.HELD

    def learn(self, rows: Mapping[int, tuple[str, int]]) -> None:
        """Record the addresses of rows in the master, which may be pruned before their writers know their addresses."""
        for number, (stream, seq) in rows.items():
            unit = self._by_number[number]
            if not unit.address[1]:
                unit.address = (stream, seq - unit.numbers.index(number))

    def prune(self, addresses: Set[tuple[str, int]]) -> None:
        """Record that a prune committed the deletion of these."""
        for unit in self.units:
            if unit.address[1] and unit.seqs() & addresses and not unit.pruned:
                unit.pruned = unit.durable = True
                unit.fate = Fate.HELD if unit.fate is Fate.BEGUN else unit.fate
                self.counts["rows pruned"] += len(unit.numbers)

    def held(self, found: Found) -> dict[int, tuple[str, int]]:
        """Return what the master has or has pruned, by number."""
        gone = {
            number: (unit.address[0], unit.address[1] + k)
            for unit in self.units
            if unit.address[1]
            for k, number in enumerate(unit.numbers)
            if (unit.address[0], unit.address[1] + k) in found.pruned
        }
        return {**gone, **(found.master or {})}

    def _check_pruned(self, found: Found) -> None:
        """Check that pruned rows are gone, and only whole transactions were pruned."""
        for unit in self.units:
            there = [number for number in unit.numbers if number in (found.master or {})]
            gone = unit.seqs() & found.pruned if unit.address[1] else set()
            if there and gone:
                _fail(unit, f"was pruned, and {there} are there")
            if unit.pruned and not gone:
                _fail(unit, "was pruned, and the master does not say so")

    # -- after a crash ------------------------------------------------------------------------------------------------

    def judge(self, found: Found, crash: Crash) -> None:
        """Compare what a crash left with what was promised, and update the fates.

        Raises:
            ViolationError: a promise was broken.
        """
        self._judge_units(found, had_power_cut=crash is not Crash.KILL)

    def _judge_units(self, found: Found, *, had_power_cut: bool) -> None:
        self._check_addresses(found)
        self._check_pruned(found)
        self._check_last(found)
        master = self.held(found)
        for unit in self.units:
            in_master = self._whole(unit, master, "the master")
            in_shard = self._whole(unit, found.shards, "the shard")
            is_there = in_shard or in_master
            if unit.fate is Fate.HELD:
                promised = unit.durable or not had_power_cut
                if promised and not is_there:
                    _fail(unit, "is lost")
                if unit.reported and not in_master:
                    _fail(unit, "was reported as merged, and is not in the master")
            elif unit.fate is Fate.GONE and is_there:
                _fail(unit, "is there again")
            if unit.fate in (Fate.BEGUN, Fate.HELD):
                unit.fate = Fate.HELD if is_there else Fate.GONE
                unit.durable = unit.durable or had_power_cut
                unit.in_shard = in_shard or unit.seqs() <= found.truncated
                unit.synced = unit.synced or (had_power_cut and unit.in_shard)
            elif unit.fate is Fate.BEHIND and had_power_cut:
                # a shard's record is as durable as the shard: what it says after a power cut, it says for good
                unit.noted = unit.noted and (unit.synced or unit.seqs() <= found.told)
                unit.synced = unit.synced or unit.noted
        for number in {*master, *found.shards} - self._by_number.keys():
            raise ViolationError(f"row {number} was never written")

    def _check_last(self, found: Found) -> None:
        """Check that the master has, for each key, what the last transaction wrote that it has or had."""
        master = self.held(found)
        newest: dict[str, Unit] = {}
        timestamps: dict[str, int] = {}
        for unit in self.units:
            if unit.last is not None and unit.numbers[0] in master:
                if unit.timestamp <= timestamps.get(unit.agent, 0):
                    _fail(unit, "was timestamped before an earlier one of its agent")
                timestamps[unit.agent] = unit.timestamp
                newest[unit.key] = max(
                    unit, newest.get(unit.key, unit), key=lambda each: (each.timestamp, each.address)
                )
        expected = {key: unit.numbers[-1] for key, unit in newest.items() if unit.last}
        if expected != (found.last or {}):
            raise ViolationError(f"of each key the last is {expected}, and the master has {found.last}")

    def _whole(self, unit: Unit, rows: dict[int, tuple[str, int]], where: str) -> bool:
        there = [number for number in unit.numbers if number in rows]
        if there and len(there) < len(unit.numbers):
            _fail(unit, f"is in {where} in part only ({there})")
        return bool(there)

    def _check_addresses(self, found: Found) -> None:
        for rows in (found.master or {}, found.shards):
            for number, address in rows.items():
                unit = self._by_number.get(number)
                if unit is None:
                    continue
                if not unit.address[1]:
                    unit.address = (address[0], address[1] - unit.numbers.index(number))
                expected = (unit.address[0], unit.address[1] + unit.numbers.index(number))
                if expected != address:
                    _fail(unit, f"has another address: {address} instead of {expected}")

    # -- an older master ----------------------------------------------------------------------------------------------

    def restored(self, found: Found) -> None:
        """Record that an older copy of the master was put back: only its rows and those in shards still exist.

        Raises:
            ViolationError: a shard lacks a record of its truncation, or a removed one was not noted.
        """
        master = self.held(found)
        for unit in self.units:
            unit.pruned = bool(unit.address[1]) and unit.seqs() <= found.pruned
            if unit.fate is Fate.HELD and unit.numbers[0] not in {*master, *found.shards}:
                unit.fate = Fate.BEHIND
                unit.noted = unit.seqs() <= found.told
                # a power cut may have taken from the shard what was not synced, and only the lost master had it
                if unit.synced and not unit.noted:
                    _fail(unit, "was truncated, or its shard removed, and nothing says so")
            if unit.numbers[0] not in master:  # its shard alone has it now, durably or not
                unit.reported, unit.durable = False, unit.synced

    # -- at the end ---------------------------------------------------------------------------------------------------

    def conclude(self, found: Found, gaps: Sequence[edgeshard.Gap]) -> None:
        """Check, after the last crash and a merge, that the master has everything that survived once, and nothing else.

        Args:
            found: what is on the disk.
            gaps: the rows that the master reports as missing.

        Raises:
            ViolationError: a promise was broken.
        """
        self._check_addresses(found)
        self._check_pruned(found)
        self._check_last(found)
        master = self.held(found)
        if found.shards:
            raise ViolationError(f"rows {sorted(found.shards)} are still in shards")
        missing = {(gap.stream, seq) for gap in gaps for seq in range(gap.first, gap.last + 1)}
        self._check_gaps(gaps)
        for unit in self.units:
            is_there = self._whole(unit, master, "the master")
            if unit.fate is Fate.HELD and not is_there:
                _fail(unit, "is not in the master")
            if unit.fate is Fate.GONE and is_there:
                _fail(unit, "is in the master, and should not be")
            if unit.noted and not is_there and not unit.seqs() <= missing:
                _fail(unit, "was left behind in a lost master, and is no gap")
            if is_there and unit.seqs() & missing:
                _fail(unit, "is in the master, and named as a gap")

    def _check_gaps(self, gaps: Iterable[edgeshard.Gap]) -> None:
        """Check that each gap consists of rows that a merger saw and that a power cut or a replaced master took."""
        lost = [unit for unit in self.units if unit.fate in (Fate.GONE, Fate.BEHIND)]
        untold = {unit.agent for unit in lost if not unit.address[1]}  # their writer was killed
        known = {address for unit in lost for address in unit.all_seqs()}
        for gap in gaps:
            unknown = [seq for seq in range(gap.first, gap.last + 1) if (gap.stream, seq) not in known]
            if unknown and gap.agent not in untold:
                raise ViolationError(f"{gap} is named as a gap, and seqs {unknown} were never lost")


def _fail(unit: Unit, what: str) -> NoReturn:
    numbers = f"{unit.numbers.start} to {unit.numbers.stop - 1}"
    raise ViolationError(f"rows {numbers} of agent {unit.agent}, at {unit.address}, {unit}: {what}")
