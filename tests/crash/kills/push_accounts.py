"""Account for every row that devices wrote: pushed exactly once, or rejected, or dismissed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from tests.crash.kills.push_devices import REPAIRED, Address, Devices, Transaction, Written
from tests.support import citus_double
from tests.support.postgres_server import fetch

#: Where the rows of each table may be in PostgreSQL, and what is read of them there.
_TABLES = {
    "agent_data": "(data ->> 'n')::bigint, '', data ->> 'text'",
    "sample": "n, '', text",
    "version": "n, k, text",
    "version_deleted": "null, k, null",
    "setting": "n, k, text",
    "setting_history": "n, k, text",
    "setting_deleted": "null, k, null",
}


@attrs.frozen
class Account:
    """What became of the rows.

    Attributes:
        written, pushed, rejected, dismissed: how many rows; those that a newer version superseded count as pushed.
        repaired: how many rows came with replaced or escaped characters.
        keys: how many keys PostgreSQL has.
        certain: of how many of them, or of their deletions, only one version was possible.
    """

    written: int = 0
    pushed: int = 0
    rejected: int = 0
    dismissed: int = 0
    repaired: int = 0
    keys: int = 0
    certain: int = 0

    def __add__(self, other: Account) -> Account:
        pairs = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return Account(*(one + another for one, another in pairs))


def check_between(devices: Devices) -> None:
    """Check what must hold at any time.

    Each transaction is in PostgreSQL's ranges whole or not at all, and only if it may be; a key has one change at most.
    """
    held = devices.held()
    for transaction in devices.transactions:
        _is_inside(transaction, held)
    there = devices.tables()
    for table in ("version", "setting"):
        changes = " union all ".join(f"select k from {each}" for each in {table, f"{table}_deleted"} & there)
        if changes:
            assert not fetch(devices.dsn, f"select k from ({changes}) changes group by k having count(*) > 1")


def finish(devices: Devices, *, inserts: bool) -> Account:
    """Push what is left, account for every row, push rejected rows in every way, and account for all rows again.

    Returns:
        What became of the rows before rejected ones were pushed in every way.
    """
    devices.revive_workers()
    devices.settle()
    devices.permit("reject")
    for store in devices.stores:
        store.push(devices.dsn, inserts=inserts, distribute=devices.is_cluster)
    account = _check(devices)
    devices.accept()
    devices.permit("replace")
    for store in devices.stores:
        report = store.push(
            devices.dsn, inserts=inserts, on_invalid="replace", retry_rejected=True, distribute=devices.is_cluster
        )
        assert {("nul", "k")} >= {(item.kind, item.column) for item in report.rejected}
    _check(devices)
    held = devices.held()
    for transaction in devices.transactions:
        has_key = any(row.fault == "key" for row in transaction.rows)
        assert transaction.is_dismissed or has_key or _is_inside(transaction, held), f"not pushed: {transaction}"
    if devices.is_cluster:
        _check_distribution(devices)
    return account


def _is_inside(transaction: Transaction, held: set[Address]) -> bool:
    """Return whether the database has a transaction; check that it does not have a part of it."""
    there = transaction.addresses & held
    assert there in (set(), transaction.addresses), f"a part of a transaction was pushed: {transaction}"
    if there:
        assert transaction.may_pass, f"a transaction arrived with a row that PostgreSQL cannot store: {transaction}"
        assert not transaction.is_dismissed, f"a transaction that was dismissed was pushed: {transaction}"
    return bool(there)


def _check(devices: Devices) -> Account:
    """Check everything after a push of each device."""
    held = devices.held()
    inside = [each for each in devices.transactions if _is_inside(each, held)]
    outside = [each for each in devices.transactions if not _is_inside(each, held)]
    assert held == _addresses(inside), "ranges of rows that nobody wrote"
    good = [transaction for transaction in outside if not transaction.faults]
    assert not good, f"a transaction was blocked: {good[0]}"
    for number, store in enumerate(devices.stores):
        expected = [each for each in outside if each.device == number]
        assert _addresses(expected) == devices.listed(number), "rejected rows are not listed, or others are"
        dismissed = _addresses(each for each in expected if each.is_dismissed)
        assert dismissed == devices.listed(number, is_dismissed=True), "other rows are dismissed"
        report = store.verify_against(devices.dsn, deep=True)
        assert (True, len(_addresses(expected)), ()) == (report.ok, report.remaining, report.behind), (
            f"{report}: {report.differences}"
        )
    repaired = _check_rows(devices, inside)
    keys, certain = _check_keys(devices, inside)
    left = len(_addresses(each for each in outside if each.is_dismissed))
    return Account(
        sum(len(each.rows) for each in devices.transactions),
        len(held),
        len(_addresses(outside)) - left,
        left,
        repaired,
        keys,
        certain,
    )


def _addresses(transactions: Iterable[Transaction]) -> set[Address]:
    return {row.address for transaction in transactions for row in transaction.rows}


def _rows_there(devices: Devices) -> dict[str, dict[Address, tuple[int | None, str, str | None]]]:
    """Return number, key and text of the rows of each table in PostgreSQL."""
    found: dict[str, dict[Address, Any]] = {}
    for table in _TABLES.keys() & devices.tables():
        listed = fetch(devices.dsn, f"select replace(_stream::text, '-', ''), _seq, {_TABLES[table]} from {table}")
        found[table] = {(stream, seq): tuple(rest) for stream, seq, *rest in listed}
    return {table: found.get(table, {}) for table in _TABLES}


def _check_rows(devices: Devices, inside: list[Transaction]) -> int:
    """Check that rows are in the right table once, as they were written; return how many were repaired."""
    written = {row.address: row for transaction in inside for row in transaction.rows}
    places: dict[Address, list[str]] = {}
    repaired = 0
    for table, rows in _rows_there(devices).items():
        for address, (n, key, text) in rows.items():
            row = written[address]
            places.setdefault(address, []).append(table)
            if not row.is_deletion:
                assert (row.n, row.key) == (n, key), f"{row} was changed to {(n, key, text)}"
                assert text in REPAIRED.get(row.text, (row.text,)), f"{row} was changed to {text!r}"
                repaired += row.text in REPAIRED
            else:
                assert (row.key, f"{row.table}_deleted") == (key, table)
    for address, row in written.items():
        found = places.get(address, [])
        assert len(found) <= 1, f"{row} is in {found}"
        if row.table in ("agent_data", "sample"):
            assert found == [row.table], f"{row} is in {found}"
        elif row.table == "setting" and not row.is_deletion:
            assert found in (["setting"], ["setting_history"]), f"{row} is in {found}"
        else:  # a version, or a deletion, that was superseded is nowhere
            assert found in ([], [f"{row.table}_deleted" if row.is_deletion else row.table]), f"{row} is in {found}"
    return repaired


def _check_keys(devices: Devices, inside: list[Transaction]) -> tuple[int, int]:
    """Check that each key has its last change and no other; return how many have a row, and of how many it is certain.

    If the last change of a key on a device was rejected, an earlier one may have arrived before it was superseded.
    """
    there, keys, certain = _rows_there(devices), 0, 0
    written = {row.address: row for transaction in inside for row in transaction.rows}
    for table in ("version", "setting"):
        by_key: dict[str, list[Written]] = {}
        for each in (table, f"{table}_deleted"):
            for address in there[each]:
                by_key.setdefault(written[address].key, []).append(written[address])
        keys += len({written[address].key for address in there[table]})
        arrived = _last_changes(inside, table)
        by_device = [
            _last_changes([each for each in devices.transactions if each.device == number], table)
            for number in range(len(devices.stores))
        ]
        for key in arrived.keys() | by_key.keys():
            lasts = [last[key] for last in by_device if key in last]
            pushed = [last for last in lasts if last.address in written]
            newest = max(pushed, key=lambda row: row.n, default=None)
            found = by_key.get(key, [])
            assert len(found) <= 1, f"{table}: {key} has {found}"
            if newest is not None:
                assert found, f"{table}: {key} has nothing, but {newest} arrived"
                assert newest.n <= found[0].n <= arrived[key].n, f"{table}: {key} has {found}, but {newest} arrived"
                certain += newest == arrived[key]
    return keys, certain


def _last_changes(transactions: Iterable[Transaction], table: str) -> dict[str, Written]:
    """Return the last change of each key."""
    rows = (row for transaction in transactions for row in transaction.rows if row.table == table)
    return {row.key: row for row in sorted(rows, key=lambda row: row.n)}


def _check_distribution(devices: Devices) -> None:
    """Check that each table was distributed once, with the rows that it had, and that edgeshard_keys is everywhere."""
    made = citus_double.calls(devices.dsn)
    expected = [("distributed by _stream", table) for table in devices.tables()] + [("reference", "edgeshard_keys")]
    assert sorted(expected) == sorted((call, table) for call, table, _ in made if call != "truncated")
    older = {table for call, table, is_new in made if call == "distributed by _stream" and not is_new}
    assert older <= {table for call, table, _ in made if call == "truncated"}
