"""The end of a fleet: everything is merged into every store, and every promise is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import edgeshard
from tests.support.fleets import contents, disputes, importing
from tests.support.fleets.carrying import export_bundle, inventory_of, record_receipt
from tests.support.fleets.fleet import DEVICES, STORES, Fleet
from tests.support.fleets.model import CURRENT, HISTORY, PRUNED, SUPERSEDED, Held, Row, kept
from tests.support.fleets.shapes import DISPUTED_TABLES, SHAPES, Shape
from tests.support.stores import contradictions, new_store

#: How many databases one merge names.
_SOURCES = 50


def settle(fleet: Fleet) -> None:
    """Merge everything into every store, and check that everything is as it must be."""
    fleet.close_all()
    for name in sorted(fleet.budgets):
        fleet.lift_budget(name)
    _import_the_rest(fleet)
    # a database that claims something false may be quarantined, and nobody need get the rows that only it still has
    somewhere = set().union(*(held.state.keys() for path, held in fleet.held.items() if path not in fleet.hostile))
    for name in STORES:
        fleet.merge_into(name)
    databases = fleet.databases()
    for start in range(0, len(databases), _SOURCES):
        fleet.merge_into("root", [path for path in databases[start : start + _SOURCES] if path in fleet.held])
    root = fleet.stores["root"].master_path
    for name in DEVICES:
        fleet.merge_into(name, [root])
    _carry_what_the_root_blocks(fleet)
    _check_nothing_is_lost(fleet, somewhere)
    for store in fleet.stores.values():
        importing.check_once(fleet, store.master_path)
        _check_keys(fleet, store.master_path)
        _check_reports(fleet, store)
    _check_reading(fleet, fleet.stores["root"])
    _check_that_merging_again_changes_nothing(fleet)
    _check_export(fleet)
    if "export" not in fleet.without:
        _check_that_nothing_is_left_to_carry(fleet)


def _import_the_rest(fleet: Fleet) -> None:
    """Import all files once more, after their stores were given all that there is."""
    for source in fleet.sources.values():
        fleet.merge_into(source.store, fleet.databases())
        if importing.run_import(fleet, source):
            lost = set(range(len(source.lines))) - {*source.rows.values()}
            assert not lost, f"lines {sorted(lost)} of {source.path.name} were never imported"


def _carry_what_the_root_blocks(fleet: Fleet) -> None:
    """Merge into each store what only other databases than the root have for it, until nothing comes any more."""
    for _ in range(len(STORES)):
        sources = {name: _with_rows_for(fleet, name) for name in STORES}
        if not any(sources.values()):
            return
        for name in STORES:
            fleet.merge_into(name, [path for path in sources[name] if path in fleet.held])


def _with_rows_for(fleet: Fleet, name: str) -> list[Path]:
    target = fleet.stores[name].master_path
    held, there = fleet.held[target], disputes.kinds(fleet.held[target].schema.columns)
    found = []
    for path in fleet.databases():
        source = fleet.held[path]
        offered = source.state.keys() - source.those(PRUNED) - held.state.keys()
        if path not in fleet.hostile and offered and offered - fleet.blocked(path, there):
            found.append(path)
    return found


def _check_nothing_is_lost(fleet: Fleet, somewhere: set[Any]) -> None:
    """Check that each row is in each store, unless it is blocked, was pruned, or was in the only file that had it."""
    wanted = (somewhere if fleet.is_lossy else fleet.written.keys()) - fleet.pruned
    honest = [held for path, held in fleet.held.items() if path not in fleet.hostile]
    lost = wanted.difference(*(held.state.keys() for held in honest))
    assert not lost, f"no database has {sorted(lost)[:5]} and {max(0, len(lost) - 5)} more"
    for name, store in fleet.stores.items():
        target = fleet.held[store.master_path]
        there = disputes.kinds(target.schema.columns)
        blocked = set().union(*(fleet.blocked(path, there) for path in fleet.held if path not in fleet.hostile))
        fleet.counts["rows blocked in the end"] += len(blocked - target.state.keys())
        lost = wanted - target.state.keys() - blocked
        assert not lost, f"{name} lacks {sorted(lost)[:5]} and {max(0, len(lost) - 5)} more"


def _check_keys(fleet: Fleet, path: Path) -> None:
    """Check that a master shows the right version of each key, whatever way all of them came."""
    if fleet.is_lossy:
        return
    shown: dict[Any, set[Any]] = {}
    for address in fleet.held[path].those(CURRENT):
        row = fleet.written[address]
        if row.key is not None:
            shown.setdefault(row.key, set()).add(address)
    versions: dict[Any, list[Row]] = {}
    absent = set()
    for row in fleet.written.values():
        if row.key is not None and row.address not in fleet.pruned:
            versions.setdefault(row.key, []).append(row)
            absent |= set() if row.address in fleet.held[path].state else {row.key}
    for key, rows in versions.items():
        if key in absent:
            continue  # a change of it is blocked
        if key in fleet.collected:
            continue  # a database that had not heard of the deletion may bring back what it had deleted
        expected = {row.address for row in kept(rows)}
        assert expected == shown.get(key, set()), f"key {key}: {expected} should be current, not {shown.get(key)}"


def _check_reports(fleet: Fleet, store: edgeshard.Store) -> None:
    """Check that `verify` finds nothing wrong, and that all counters mean what their names say."""
    held = fleet.held[store.master_path]
    report = store.verify(deep=True)
    assert contradictions(report) == ()
    if held.is_tainted:
        return
    status = store.status().master
    fleet.check_gaps(report.gaps, store.root.name)
    found = {
        "rows in verify": report.rows,
        "pruned in verify": sum(report.pruned.values()),
        "rows in status": status.rows,
        "pruned and collected in status": status.pruned_rows + status.collected_rows,
        "superseded in status": status.superseded_rows,
        "streams in status": status.streams,
    }
    erased = len(contents.own_erased(store.master_path))
    assert held.noted == contents.noted_as_superseded(store.master_path)
    pruned, superseded = len(held.those(PRUNED)) - erased - held.noted, len(held.those(SUPERSEDED)) + held.noted
    returned = len(contents.own_notes(store.master_path) - held.state.keys())
    expected = {
        "rows in verify": len(held.visible),
        "pruned in verify": pruned + returned,
        "rows in status": len(held.visible),
        "pruned and collected in status": pruned + returned,
        "superseded in status": superseded,
        "streams in status": len(held.last),
    }
    assert expected == found, f"counters should be {expected}, and are {found}"
    pending = fleet.pending(store.root.name)
    states = store.status().states
    missing = held.missing - pending
    if not fleet.unproven.get(store.root.name):
        counted = {
            "present": (len(held.visible), states.present),
            "superseded": (superseded, states.superseded),
            "pruned and collected": (pruned + returned, states.pruned + states.collected),
            "erased": (erased, states.erased),
            "pending": (len(pending), states.pending),
            "blocked": (len(pending), store.status().blocked_rows),
            "missing": (len(missing) - returned, states.missing),
        }
        wrong = {state: pair for state, pair in counted.items() if pair[0] != pair[1]}
        assert not wrong, f"states should be, and are: {wrong}"
        assert report.states == states
    known = sum(held.last.values())
    assert known == len(held.those(CURRENT, HISTORY)) + superseded + pruned + erased + len(held.missing)


def _check_reading(fleet: Fleet, store: edgeshard.Store) -> None:
    """Check that every class reads back what was written, as it was written."""
    held = fleet.held[store.master_path]
    current = [fleet.written[address] for address in held.those(CURRENT)]
    for table in sorted({row.shape.table for row in current}):
        newest = _newest(table, held)
        rows = [row for row in current if row.shape.table == table and not row.is_tombstone]
        if held.is_tainted and newest.key:
            continue  # others' rows may be among them
        expected = sorted((_said(newest, row, held) for row in rows), key=repr)
        found = sorted((_read(newest, record) for record in store.read(newest.cls)), key=repr)
        if held.is_tainted:
            found = [item for item in found if any(_is_same(one, item) for one in expected)]
        assert len(expected) == len(found), f"{len(found)} of {len(expected)} records of {table} were read"
        for one, other in zip(expected, found, strict=True):
            assert _is_same(one, other), f"{one} was written to {table}, and {other} was read"


def _newest(table: str, held: Held) -> Shape:
    if table in DISPUTED_TABLES:
        return disputes.shape_for(table, held.schema.columns[table, "v"])
    return [shape for shape in SHAPES.values() if shape.table == table][-1]


def _said(newest: Shape, row: Row, held: Held) -> Mapping[str, Any]:
    values = contents.expected_columns(row, held.schema)
    if newest.is_dicts:
        return {"agent_id": row.agent, "data": values["data"]}
    return {field: values.get(field) for field in newest.fields}


def _read(newest: Shape, record: Any) -> Mapping[str, Any]:
    get = record.get if isinstance(record, dict) else partial(getattr, record)
    values = {field: get(field) for field in newest.fields}
    return {"agent_id": values["agent_id"], "data": values["data"]} if newest.is_dicts else values


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    for field, value in one.items():
        found = other[field]
        if isinstance(value, (dict, list)):
            if not contents.is_same_json(found, value):
                return False
        elif isinstance(value, float) and isinstance(found, float):
            if found != value and not (math.isnan(found) and math.isnan(value)):
                return False
        elif value != found and str(value) != str(found):
            return False
    return True


def _check_that_merging_again_changes_nothing(fleet: Fleet) -> None:
    root = fleet.stores["root"]
    before = contents.read(root.master_path)
    report = root.merge([store.master_path for store in fleet.stores.values()])
    assert (report.rows, before) == (0, contents.read(root.master_path))


def _check_export(fleet: Fleet) -> None:
    """Check that every store is exportable, and that a fresh hub gets the same rows from its bundle."""
    for name, store in fleet.stores.items():
        if "export" in fleet.without:
            continue
        bundle = export_bundle(fleet, store.master_path, set(), {})
        fresh = new_store(fleet.folder / f"fresh-{name}")
        fleet.stores[f"fresh-{name}"] = fresh
        fleet.merge_into(f"fresh-{name}", [bundle])
        assert fleet.held[fresh.master_path].visible == fleet.held[store.master_path].visible
        assert contradictions(fresh.verify()) == ()
        del fleet.stores[f"fresh-{name}"]


def _check_that_nothing_is_left_to_carry(fleet: Fleet) -> None:
    """Check that nobody has rows for the root once everything is everywhere and the root has said so."""
    root = fleet.stores["root"]
    said = inventory_of(fleet, root.master_path)
    fleet.documents.append(said)
    for name in DEVICES:
        record_receipt(fleet.stores[name], said, force=True)
        unwanted = contents.receipts(fleet.stores[name].master_path)[said.database_id.hex()]
        bundle = export_bundle(fleet, fleet.stores[name].master_path, unwanted, {"since_hub": said.database_id.hex()})
        known = fleet.held[bundle].state.keys() & fleet.held[root.master_path].state.keys()
        assert fleet.pruned >= known, "rows are exported that the root has"


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def push(fleet: Fleet, dsn: str, first: str) -> None:
    """Push two stores to a PostgreSQL database, and check that it then has the rows of the root, once each."""
    from tests.support.postgres_server import fetch

    earlier = fleet.stores[first].push(dsn)
    root = fleet.stores["root"]
    report = root.push(dsn)
    held, held_first = fleet.held[root.master_path], fleet.held[fleet.stores[first].master_path]
    contested = _contested(held_first, held, fleet)
    for done in (earlier, report):
        assert contested or done.complete, done.rejected
        assert contested >= {item.table for item in done.rejected}, done.rejected
    fleet.counts["pushes with conflicts"] += bool(contested)
    for table in sorted({table for table, _ in held.schema.all_columns()}):
        owner, is_history, is_tombstone = contents.owner_of(table)
        expected = {
            address
            for address in held.those(HISTORY if is_history else CURRENT)
            if (row := fleet.written[address]).shape.table == owner and row.is_tombstone == is_tombstone
        }
        sql = f'''SELECT replace(_stream::text, '-', ''), _seq FROM "{table}"'''
        found = fetch(dsn, sql) if expected else []
        addresses = {(stream, seq) for stream, seq in found if stream in fleet.agents}
        assert len(found) == len(set(found)), f"rows of {table} are doubled in PostgreSQL"
        others = held_first.state.keys()
        lost = expected - addresses if not contested else set()
        assert not lost, f"PostgreSQL lacks rows of {table}: {sorted(lost)[:5]}"
        assert addresses <= expected | (others & fleet.pruned) | (others - held.state.keys()), (
            f"PostgreSQL has more rows of {table}"
        )


def _contested(first: Held, second: Held, fleet: Fleet) -> set[str]:
    """Return the tables that two masters have with types that one column of a server cannot have, one after the other.

    Rows of such a table are rejected, with all rows of their transactions.
    """
    earlier, later = (disputes.kinds(held.schema.columns) for held in (first, second))
    large = {
        row.shape.table
        for address in first.those(CURRENT)
        if disputes.is_large((row := fleet.written[address]).shape, row.values)
    }
    return {
        table
        for table in earlier.keys() & later.keys()
        if earlier[table] != later[table]
        and (
            table == "disputed"
            or (
                later[table] != "decimal"
                and (earlier[table] == "decimal" or later[table] == "integer" or table in large)
            )
        )
    }
