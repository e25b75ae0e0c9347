"""A PostgreSQL database that the stores of a fleet push to, checked against the model.

Each row that a pushing master has must be in exactly one place afterwards: the server's ranges name it, or the master
records that the server rejected it, or that a user dismissed it. A row is rejected only if it, or a row of its
transaction, does not fit. What the server names is in its tables once, as it was written, or in the form that was asked
for; unless a newer version of its key replaced it there.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

import edgeshard
from edgeshard.postgres.options import OnInvalid
from tests.support.fleets import contents, disputes, unfit
from tests.support.fleets.model import CURRENT, HISTORY, PRUNED, SUPERSEDED, Address, Held
from tests.support.fleets.shapes import DISPUTED_TABLES

if TYPE_CHECKING:
    from tests.support.fleets.fleet import Fleet


@attrs.frozen
class Push:
    """How a store is pushed.

    Attributes:
        mode: what is done with characters that the server cannot store.
        retry: whether rejected rows are tried again.
    """

    mode: OnInvalid = "reject"
    retry: bool = False

    def tries_again(self, kind: str) -> bool:
        """Return whether a row that was rejected for a reason of this kind may go now."""
        return self.retry or kind == "table" or (self.mode != "reject" and kind in unfit.CHARACTERS)


@attrs.define
class Upstream:
    """What the server must hold.

    Attributes:
        dsn: the database.
        held: what became of each row that its ranges name.
        checks: the tables with a constraint that exists only there.
        repaired: the rows that are there in another form, and in which.
    """

    dsn: str
    held: Held = attrs.Factory(Held)
    checks: frozenset[str] = frozenset()
    repaired: dict[Address, OnInvalid] = attrs.Factory(dict)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        from tests.support.postgres_server import fetch

        return fetch(self.dsn, sql)

    def named(self, fleet: Fleet) -> set[Address]:
        """Return the rows of honest agents that its ranges name."""
        ranges = self.rows("SELECT replace(stream::text, '-', ''), first, last FROM edgeshard_ranges")
        return {
            (stream, seq) for stream, first, last in ranges if stream in fleet.agents for seq in range(first, last + 1)
        }

    def tables(self) -> set[str]:
        """Return the names of its tables."""
        found = self.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
        return {name for (name,) in found}


# -- after a push -----------------------------------------------------------------------------------------------------


def observe_push(fleet: Fleet, path: Path, push: Push, report: Any = None) -> None:
    """Check what a push of a master has done, and take note of it.

    Args:
        fleet: the fleet, which has a server.
        path: the master.
        push: how it was pushed.
        report: of the push; None if it was killed, and may have done only a part.
    """
    server, held = fleet.server, fleet.held[path]
    assert server is not None
    if report is None and "edgeshard_ranges" not in server.tables():
        return
    named, record = server.named(fleet), contents.rejections(path)
    new = named - server.held.state.keys()
    offered = held.those(CURRENT, HISTORY, SUPERSEDED)
    assert server.held.state.keys() <= named, "the server's ranges forget rows"
    assert new <= offered, f"rows came that the master does not have: {sorted(new - offered)[:5]}"
    is_tainted = held.is_tainted or server.held.is_tainted
    for address in new:
        _check_fits(fleet, held, address, push)
    before_rejected, before_dismissed = held.rejected, held.dismissed
    held.rejected = {each: reason for each, reason in record.rejected.items() if each[0] in fleet.agents}
    held.dismissed = {each for each in record.dismissed if each[0] in fleet.agents}
    for address in new & before_rejected.keys():
        kind, _ = before_rejected[address]
        assert push.tries_again(kind), f"row {address}, rejected for {kind}, was tried again"
    assert not new & before_dismissed, f"dismissed rows were pushed: {sorted(new & before_dismissed)[:5]}"
    causes = {each for each in offered if _is_unfit(fleet, held, each, push)}
    causes = disputes.whole_transactions(causes, fleet.transaction_of)
    tried = {each for each, (kind, _) in held.rejected.items() if each not in before_rejected or push.tries_again(kind)}
    unexplained = tried - causes if not is_tainted and report is not None else set()
    assert not unexplained, f"rows are rejected that fit: {[(each, held.rejected[each]) for each in unexplained][:5]}"
    left_out = held.rejected.keys() | held.dismissed
    both = left_out & named
    assert not both, f"rows are recorded as left out, and the server has them: {sorted(both)[:5]}"
    if report is not None:
        lost = offered - named - left_out
        assert not lost, f"rows are neither pushed nor rejected nor dismissed: {sorted(lost)[:5]}"
        assert held.dismissed == before_dismissed & offered - named
        _check_report(report, held, new, is_tainted=is_tainted)
        fleet.counts["rows rejected by the server"] += len(held.rejected.keys() - before_rejected.keys())
        fleet.counts["rejected rows that were pushed later"] += len(before_rejected.keys() & named)
    _take_over(fleet, held, new, push)
    _check_tables(fleet, held)


def _check_fits(fleet: Fleet, held: Held, address: Address, push: Push) -> None:
    row, state, server = fleet.written[address], held.state[address], fleet.server
    assert server is not None
    if state in (CURRENT, HISTORY):
        assert not unfit.has_unfit_value(row, push.mode), f"row {address} was pushed, and cannot be stored"
        assert not unfit.violates(row, state, server.checks), f"row {address} was pushed against a constraint"
        if unfit.is_repaired(row):
            server.repaired[address] = push.mode


def _is_unfit(fleet: Fleet, held: Held, address: Address, push: Push) -> bool:
    row, state, server = fleet.written[address], held.state[address], fleet.server
    assert server is not None
    if state not in (CURRENT, HISTORY):
        return False
    # whether a disputed table fits depends on who pushed first
    is_disputed = row.shape.table in DISPUTED_TABLES
    return is_disputed or unfit.has_unfit_value(row, push.mode) or unfit.violates(row, state, server.checks)


def _check_report(report: Any, held: Held, new: Collection[Address], *, is_tainted: bool) -> None:
    rejected = sum(item.rows for item in report.rejected)
    assert report.complete == (not report.rejected)
    if is_tainted:
        return
    sent = sum(held.state[address] in (CURRENT, HISTORY) for address in new)
    found = {"pushed": report.rows, "rejected": rejected, "remaining": report.remaining}
    expected = {"pushed": sent, "rejected": len(held.rejected), "remaining": len(held.rejected)}
    assert expected == found, f"a push should report {expected}, and reports {found}"


def _take_over(fleet: Fleet, held: Held, new: Collection[Address], push: Push) -> None:
    server = fleet.server
    assert server is not None
    server.held.state |= {address: held.state[address] for address in new}
    server.held.schema.add(held.schema.without(DISPUTED_TABLES))
    server.held.is_tainted = server.held.is_tainted or held.is_tainted
    server.held.settle(fleet.written)


# -- what is in the tables --------------------------------------------------------------------------------------------


def _check_tables(fleet: Fleet, pushed: Held) -> None:
    """Check that the server has each row once, in its table; tombstones that the master has collected may be gone."""
    server = fleet.server
    assert server is not None
    there = server.tables()
    found: dict[Address, tuple[str, bool, bool]] = {}
    for table in sorted(table for table in there if not table.startswith("edgeshard_")):
        for stream, seq in server.rows(f"""SELECT replace(_stream::text, '-', ''), _seq FROM "{table}" """):
            if stream in fleet.agents:
                assert (stream, seq) not in found, f"row {(stream, seq)} is doubled in PostgreSQL"
                found[stream, seq] = contents.owner_of(table)
    held = server.held
    for address in held.visible - found.keys():
        is_collected = fleet.written[address].is_tombstone and pushed.state.get(address) == PRUNED
        assert is_collected, f"PostgreSQL lacks row {address} of {fleet.written[address].shape.table}"
        held.state[address] = PRUNED
        fleet.counts["tombstones collected in PostgreSQL"] += 1
    added = found.keys() - held.visible
    assert not added, f"PostgreSQL has rows that it should not: {sorted(added)[:5]}"
    for address, (owner, is_history, is_tombstone) in found.items():
        row = fleet.written[address]
        expected = (row.shape.table, held.state[address] == HISTORY, row.is_tombstone)
        assert (owner, is_history, is_tombstone) == expected, f"row {address} is in another table than {expected}"
    for address in server.repaired.keys() & held.visible:
        _check_repaired(fleet, address)
    fleet.check_whole_transactions(set(held.state))


def _check_repaired(fleet: Fleet, address: Address) -> None:
    """Check the texts of a row that was pushed in another form."""
    server, row = fleet.server, fleet.written[address]
    assert server is not None
    mode = server.repaired[address]
    table = f"{row.shape.table}_history" if server.held.state[address] == HISTORY else row.shape.table
    for field, kind in row.shape.fields.items():
        value = row.values.get(field)
        if kind not in (str, dict) or value is None or row.is_tombstone:
            continue
        sql = f"""SELECT "{field}"::text FROM "{table}" WHERE _stream = '{address[0]}' AND _seq = {address[1]}"""
        ((found,),) = server.rows(sql)
        found = json.loads(found) if kind is dict else found
        assert found == unfit.repaired(value, mode), f"row {address}, {table}.{field}: {found!r} for {value!r} ({mode})"


# -- comparisons ------------------------------------------------------------------------------------------------------


def compare(fleet: Fleet, path: Path, *, deep: bool) -> None:
    """Compare the server with a master: nobody has changed anything there."""
    server, held = fleet.server, fleet.held[path]
    assert server is not None
    report = edgeshard.Store(path.parent).verify_against(server.dsn, deep=deep)
    fleet.counts["rows compared with PostgreSQL"] += report.rows
    if held.is_tainted or server.held.is_tainted:
        return
    # a version that another master brought as replaced never was there, even if the one that replaced it is rejected
    replaced = held.visible & server.held.those(SUPERSEDED)
    listed = {(item.kind, item.stream, seq) for item in report.differences for seq in range(item.first, item.last + 1)}
    unexplained = {(kind, (stream, seq)) for kind, stream, seq in listed if kind != "deleted"} | {
        (kind, (stream, seq)) for kind, stream, seq in listed if kind == "deleted" and (stream, seq) not in replaced
    }
    assert not unexplained, f"PostgreSQL differs: {sorted(unexplained)[:5]}"
    offered = held.those(CURRENT, HISTORY, SUPERSEDED)
    assert report.rows == len(offered & server.held.state.keys())
    assert report.remaining == len(offered - server.held.state.keys())
    both = {each for each in held.visible & server.held.visible if held.state[each] == server.held.state[each]}
    if deep and not report.behind:
        assert report.unchecked == len(both & server.repaired.keys())
