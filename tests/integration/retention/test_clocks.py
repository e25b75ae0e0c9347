"""Clocks that are wrong for a while: what is pruned, which change wins, and what people are told."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard import cli
from edgeshard.errors import ConfigurationError
from edgeshard.exchange.encoding import encode
from edgeshard.exchange.inventory import Inventory
from edgeshard.exchange.receipts import record_receipt
from edgeshard.format.ranges import Range
from edgeshard.master import database
from edgeshard.options import PruneRule
from edgeshard.reports import MergeReport
from tests.support.clocks import DAY_S, Machine
from tests.support.processes import unwrapped
from tests.support.stores import new_store

YEAR = 365.25

RULE: PruneRule = {"older_than": "30d"}


@edgeshard.table(name="config", key="name")
@attrs.frozen
class Config:
    name: str
    value: str


def add(store: edgeshard.Store, *numbers: int) -> MergeReport:
    """Write rows and merge them, by the store's rule."""
    with store.shard("a") as shard:
        shard.write_many([{"n": n} for n in numbers])
    return edgeshard.Store(store.root, prune=RULE).merge()


def numbers(store: edgeshard.Store) -> list[int]:
    return [n for (n,) in store.query("SELECT data ->> 'n' FROM agent_data ORDER BY 1")]


def prune(store: edgeshard.Store) -> int:
    """Prune by the rule; return how many rows."""
    return store.prune(older_than="30d").rows


# -- what is pruned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("years", [20, -20])
@pytest.mark.parametrize("days", [0.05, 7])
def test_one_glitch_prunes_nothing_and_the_rule_works_afterwards(
    store: edgeshard.Store, machine: Machine, years: int, days: float
) -> None:
    add(store, 0)
    machine.run(5)
    add(store, 1)
    machine.error_s = years * YEAR * DAY_S
    for part in (0, 1):
        machine.run(days * part)
        report = add(store, 2 + part)
        assert report.pruned is not None
        assert (0, 2 if years > 0 else 0) == (report.pruned.rows, report.pruned.unconfirmed)
    machine.error_s = 0.0
    assert [0, 1, 2, 3] == numbers(store)
    add(store, 4)
    assert store.verify().ok
    assert store.status().complete
    machine.run(26 - days)
    assert (1, [1, 2, 3, 4]) == (prune(store), numbers(store))  # as the true time says
    machine.run(15)
    assert (4, []) == (prune(store), numbers(store))


@pytest.mark.slow
def test_a_first_clock_that_was_ahead_does_not_stop_the_rule(store: edgeshard.Store, machine: Machine) -> None:
    machine.error_s = 20 * YEAR * DAY_S
    add(store, 0)
    machine.error_s = 0.0
    add(store, 1)
    for day in range(2, 38):
        machine.run(1)
        add(store, day)
    assert list(range(7, 38)) == numbers(store)
    assert store.status().complete


def test_rows_from_before_the_clock_was_set_get_as_old_as_measured(store: edgeshard.Store, machine: Machine) -> None:
    machine.show_1970()
    add(store, 0)
    machine.run(20)
    machine.error_s = 0.0
    assert 0 == prune(store)  # it notices that the clock is set, so it needs no further row
    machine.run(29)
    assert 0 == prune(store)
    machine.run(2)
    assert 1 == prune(store)


@pytest.mark.slow
@pytest.mark.parametrize("merges", [False, True])
def test_after_a_year_off_rows_wait_for_ten_days_even_without_new_rows(
    store: edgeshard.Store, machine: Machine, merges: bool
) -> None:
    for day in range(20):
        add(store, day)
        machine.run(1)
    machine.be_off(YEAR)
    report = add(store, 100)
    assert report.pruned is not None
    assert (0, 20) == (report.pruned.rows, report.pruned.unconfirmed)
    assert "kept 20 rows because the clock went ahead" in str(report.pruned)
    for _ in range(9):
        machine.run(1)
        if merges:
            store.merge()
            assert 0 == prune(store)
    machine.run(1.1)
    assert 11 == prune(store)
    machine.run(19.5)
    assert 8 == prune(store)  # the clock had not been right for ten days when these arrived
    machine.run(1)
    assert (2, []) == (prune(store), numbers(store))


@pytest.mark.slow
def test_a_device_that_wakes_for_minutes_a_day_prunes_some_days_later(store: edgeshard.Store, machine: Machine) -> None:
    for day in range(50):
        add(store, day)
        machine.be_off(1)
        assert set(range(max(0, day - 30), day + 1)) <= set(numbers(store))
    assert 7 <= numbers(store)[0] <= 20
    assert store.status().complete  # nights are no reason to look


# -- what people are told -----------------------------------------------------------------------------------------------


def test_status_says_what_awaits_confirmation_and_the_command_confirms_it(
    store: edgeshard.Store, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        return cli.main(list(arguments)), capsys.readouterr().out

    root = str(store.root)
    add(store, 0, 1)
    assert (0, True) == ((done := command("clock", root))[0], "rows become older by it" in done[1])
    machine.be_off(YEAR)
    add(store, 2)
    code, text = command("status", root)
    assert (3, True) == (code, f"edgeshard clock {root} --confirm" in unwrapped(text))
    assert "it went ahead by 365.2 days, and 2 rows will be older" in unwrapped(text)
    assert (3, True) == ((done := command("clock", root))[0], "it went ahead by 365.2 days, and 2 rows" in done[1])
    code, text = command("clock", root, "--confirm", "--dry-run")
    assert (0, True) == (code, text.startswith("would confirm the clock"))
    assert 3 == command("status", root)[0]
    code, text = command("clock", root, "--confirm", "--yes", "--json")
    report = json.loads(text)
    assert (0, True, 2, False) == (code, report["confirmed"], report["rows"], report["dry_run"])
    assert (0, 0) == (command("status", root)[0], command("clock", root)[0])
    assert (2, [2]) == (prune(store), numbers(store))


def test_a_clock_that_is_behind_what_was_confirmed_is_confirmed_as_well(
    store: edgeshard.Store, machine: Machine
) -> None:
    add(store, 0)
    machine.error_s = YEAR * DAY_S
    add(store, 1)
    store.confirm_clock()
    machine.run(12)
    machine.error_s = 0.0
    add(store, 2)
    status = store.status()
    assert status.clock is not None
    assert (False, True) == (status.complete, 365 * DAY_S < status.clock.behind_s < 366 * DAY_S)
    assert "365.2 days behind" in str(status.clock)
    store.confirm_clock()
    assert store.status().complete
    machine.run(29)
    assert ([1, 2], 1) == (numbers(store), prune(store))
    assert [2] == numbers(store)


def test_a_clock_that_was_never_set_cannot_be_confirmed(store: edgeshard.Store, machine: Machine) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    with pytest.raises(ConfigurationError, match="there is no master yet"):
        store.confirm_clock()
    assert store.clock().trusted is None
    add(store, 0)
    machine.show_1970()
    with pytest.raises(ConfigurationError, match=r"the clock shows 1970-01-01: it was never set\. Set it first"):
        store.confirm_clock()


# -- keyed tables -------------------------------------------------------------------------------------------------------


def value_at_hub(tmp_path: Path, *stores: edgeshard.Store) -> str:
    hub = new_store(tmp_path / "hub")
    for store in stores:
        store.merge()
    hub.merge([store.master_path for store in stores])
    return str(hub.query("SELECT value FROM config WHERE name = 'x'")[0].value)


def change(store: edgeshard.Store, value: str) -> None:
    with store.shard("ui") as shard:
        shard.write(Config("x", value))
    store.merge()


def test_a_first_change_before_the_clock_was_set_does_not_bind_the_later_ones(
    store: edgeshard.Store, machine: Machine, tmp_path: Path
) -> None:
    other = new_store(tmp_path / "other")
    machine.show_1970()
    change(store, "first start")
    machine.error_s = 0.0
    change(other, "yesterday's")
    machine.run(1)
    for number in range(3):
        change(store, f"today's {number}")
    assert "today's 2" == value_at_hub(tmp_path, store, other)
    assert () == store.status().master.clocks_ahead


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("is_off", [True, False])
def test_after_two_years_without_a_change_the_last_write_wins(
    store: edgeshard.Store, machine: Machine, tmp_path: Path, is_open: bool, is_off: bool
) -> None:
    other = new_store(tmp_path / "other")
    with store.shard("ui") as shard:
        shard.write(Config("x", "long ago"))
        store.merge()
        if is_off:
            machine.be_off(2 * YEAR)
        else:
            machine.run(2 * YEAR)
        change(other, "yesterday's")
        machine.run(1)
        if is_open:
            shard.write(Config("x", "today's"))
    if not is_open:
        change(store, "today's")
    assert "today's" == value_at_hub(tmp_path, store, other)


@pytest.mark.parametrize("years", [1, 20, -20])
@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("is_transaction", [True, False])
def test_a_store_goes_by_its_clock_again_after_a_glitch(
    store: edgeshard.Store, machine: Machine, tmp_path: Path, years: int, is_open: bool, is_transaction: bool
) -> None:
    other = new_store(tmp_path / "other")
    with store.shard("ui") as shard:
        machine.error_s = years * YEAR * DAY_S
        shard.write(Config("y", "in the glitch"))
        store.merge()
        machine.run(0.1)
        machine.error_s = 0.0
        if is_open and is_transaction:
            with shard.transaction():
                shard.write(Config("x", "before"))
        elif is_open:
            assert shard.write(Config("x", "before")) in (1, 2)
    if not is_open:
        change(store, "before")
    machine.run(0.1)
    change(other, "after")
    assert "after" == value_at_hub(tmp_path, store, other)
    assert store.verify().ok


def test_an_undone_transaction_after_a_glitch_leaves_timestamps_of_a_stream_in_order(
    store: edgeshard.Store, machine: Machine
) -> None:
    with store.shard("ui") as shard:
        machine.error_s = YEAR * DAY_S
        shard.write(Config("y", "in the glitch"))
        machine.error_s = 0.0
        with pytest.raises(RuntimeError), shard.transaction():
            shard.write(Config("x", "undone"))
            raise RuntimeError
        shard.write(Config("x", "kept"))
    store.merge()
    rows = store.query("SELECT _stream, _timestamp, value FROM config ORDER BY _timestamp")
    assert ["kept", "in the glitch"] == [row.value for row in rows]
    assert rows[0][0] != rows[1][0]


# -- receipts -----------------------------------------------------------------------------------------------------------

HUB = bytes(range(16))


@pytest.mark.parametrize("trust", [True, False])
def test_a_peer_whose_clock_was_ahead_once_is_doubted_once(
    store: edgeshard.Store, machine: Machine, trust: bool
) -> None:
    add(store, *range(10))
    ((stream,),) = store.query("SELECT stream_id FROM _edgeshard_streams")

    def said(last: int, generation: int, ahead_s: float = 0.0) -> Inventory:
        at = datetime.datetime.fromtimestamp(machine.true_s + ahead_s, datetime.UTC)
        return Inventory(HUB, at, generation, encode({stream: [Range(1, last)]}, {}))

    connection = database.open_master(store.master_path, writable=True)
    try:
        outcomes = [record_receipt(connection, said(4, 1, 20 * YEAR * DAY_S), trust=trust).outcome]
        for generation in (2, 3, 4):
            machine.run(1)
            outcomes.append(record_receipt(connection, said(2 * generation, generation), trust=True).outcome)
        machine.run(-2)  # an older one comes late
        outcomes.append(record_receipt(connection, said(5, 2), trust=True).outcome)
    finally:
        connection.close()
    first = ["next", "doubtful"] if trust else ["awaiting confirmation", "next"]
    assert [*first, "next", "next", "doubtful"] == outcomes
