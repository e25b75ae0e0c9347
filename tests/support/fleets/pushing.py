"""Steps that push stores to one PostgreSQL database, with rows that it cannot take, and what users do about these."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw

import edgeshard
from edgeshard.postgres.options import ON_INVALID
from tests.support.fleets import contents, unfit
from tests.support.fleets.agents import Change, make, write_changes
from tests.support.fleets.fleet import AGENTS, DEVICES, STORES, Fleet
from tests.support.fleets.shapes import DICT, EVENTS, EVERY, KEYED, Pick, values_for
from tests.support.fleets.steps import step
from tests.support.fleets.upstream import Push, compare, observe_push
from tests.support.stores import shard_path

#: The names of these steps.
NAMES = (
    "push_store",
    "kill_push",
    "retry_rejected",
    "dismiss_rejected",
    "forget_peer",
    "compare_with_server",
    "constrain_server",
    "write_unfit",
)

NUL, HALF = "a\0b", "cut off \ud83d"

# -- rows that do not fit ---------------------------------------------------------------------------------------------

_UNFIT_DATA: tuple[dict[str, Any], ...] = (
    {"text": NUL},
    {"deep": [{"er": [NUL]}], "x" + NUL: 1},
    # names that become one if characters are replaced, or escaped
    {NUL: 1, "a\ufffdb": 2},
    {NUL: 1, "a\\u0000b": 2},
    {NUL: 1, HALF: 2},
    {"half": [HALF, "\U0001f600"]},
)


def _unfit_change(fleet: Fleet, pick: Pick) -> Change:
    number = next(fleet.numbers)
    shape = pick((DICT, DICT, EVENTS, EVERY, *KEYED))
    values = values_for(shape, number, pick)
    if shape.is_dicts:
        return shape, {"data": {"n": number, **pick(_UNFIT_DATA)}}, False
    if shape is EVERY:
        return shape, {**values, **pick(({"f_text": NUL}, {"f_json": {NUL: NUL}}, _TOO_LARGE))}, False
    # keys that would become one
    values["row"] = pick(("p\0", "p\0", "p\ufffd", "p\\u0000"))
    if shape.deletes and pick((True, False, False)):
        return shape, {field: values[field] for field in shape.key}, True
    return shape, values, False


_TOO_LARGE = {"f_decimal": Decimal(unfit.TOO_LARGE)}


@step(8)
def write_unfit(fleet: Fleet, pick: Pick) -> Any:
    """Let an agent write a row that PostgreSQL cannot take, alone, or in one transaction with others."""
    name, agent = pick(DEVICES), pick(AGENTS)
    changes = [make(fleet, pick, fleet.deck) for _ in range(pick((0, 0, 1, 2)))]
    changes.insert(pick(range(len(changes) + 1)), _unfit_change(fleet, pick))
    # edgeshard's writers refuse half a surrogate pair: another program writes it
    halves = [change for change in changes if any(HALF in text for text in unfit.texts(change[1].get("data")))]
    if not halves:
        return write_changes(fleet, name, agent, changes)
    given = [(shape, _replaced(values, HALF, _STAND_IN), deletes) for shape, values, deletes in changes]
    if not write_changes(fleet, name, agent, given):
        return False
    path = shard_path(fleet.stores[name], agent)
    _write_halves(path)
    for address, row in list(fleet.written.items()):
        if any(_STAND_IN in text for text in unfit.texts(row.values.get("data"))):
            values = _replaced(row.values, _STAND_IN, HALF)
            fleet.written[address] = type(row)(address, row.agent, row.shape, values, row.is_tombstone, row.timestamp)
    return True


_STAND_IN = "stands for half a pair"


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    if isinstance(value, dict):
        return {_replaced(name, old, new): _replaced(item, old, new) for name, item in value.items()}
    return value


def _write_halves(path: Path) -> None:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(1_000)
        for table in ("agent_data", "events"):
            if list(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,))):
                sql = f"UPDATE {table} SET data = replace(data, ?1, 'cut off \\ud83d') WHERE instr(data, ?1)"
                connection.execute(sql, (_STAND_IN,))
    finally:
        connection.close()


# -- pushes -----------------------------------------------------------------------------------------------------------


def push_path(fleet: Fleet, path: Path, push: Push, **options: Any) -> Any:
    """Push a master, and compare everything with the model."""
    assert fleet.server is not None
    fleet.say(f"  {fleet.name(path)}: {push}, {options}")
    store = edgeshard.Store(path.parent)
    report = store.push(fleet.server.dsn, retry_rejected=push.retry, on_invalid=push.mode, **options)
    observe_push(fleet, path, push, report)
    fleet.documents.append(edgeshard.Store.pushed_ranges(fleet.server.dsn))
    fleet.check(path)
    return report


def _options(pick: Pick) -> dict[str, Any]:
    return {"batch": pick((1, 3, 1_000, 1_000)), "inserts": pick((False, False, True))}


def _masters(fleet: Fleet) -> list[Path]:
    return [path for path in fleet.masters() if fleet.held[path].state]


def _with_rejected_rows(fleet: Fleet) -> list[Path]:
    return [path for path in fleet.masters() if fleet.held[path].rejected]


@step(8)
def push_store(fleet: Fleet, pick: Pick) -> Any:
    """Push a store; what does not fit is rejected, replaced or escaped."""
    if not _masters(fleet):
        return False
    mode, path = pick(("reject", "reject", *ON_INVALID[1:])), pick(_masters(fleet))
    fleet.counts[f"pushes with --on-invalid {mode}"] += 1
    if path.parent.name in DEVICES and pick((True, False)):
        fleet.merge_into(path.parent.name)
    push_path(fleet, path, Push(mode), **_options(pick))
    return None


@step(3)
def kill_push(fleet: Fleet, pick: Pick) -> Any:
    """Kill a push somewhere; what it did is whole, and a later push does the rest."""
    if not _masters(fleet) or fleet.server is None:
        return False
    path, push, options = pick(_masters(fleet)), Push(pick(ON_INVALID), pick((True, False))), _options(pick)
    store, dsn = edgeshard.Store(path.parent), fleet.server.dsn

    def work(_: Any) -> None:
        store.push(dsn, retry_rejected=push.retry, on_invalid=push.mode, **options)

    life = fleet.killed_at(pick(range(10, 200)), work)
    fleet.say(f"  {fleet.name(path)}: {push}, {options}: {'killed' if life.killed else 'not killed'}")
    fleet.counts["pushes killed"] += life.killed
    observe_push(fleet, path, push)
    if "edgeshard_database" in fleet.server.tables():
        fleet.documents.append(edgeshard.Store.pushed_ranges(dsn))
    return None


@step(5)
def retry_rejected(fleet: Fleet, pick: Pick) -> Any:
    """Push a store that has rejected rows, and try these again."""
    paths = _with_rejected_rows(fleet)
    if not paths:
        return False
    push_path(fleet, pick(paths), Push(pick(("reject", "replace", "escape")), retry=True), **_options(pick))
    return None


@step(4)
def dismiss_rejected(fleet: Fleet, pick: Pick) -> Any:
    """Dismiss the rejected rows of a store, or those of one table."""
    paths = _with_rejected_rows(fleet)
    if not paths:
        return False
    path = pick(paths)
    held, store = fleet.held[path], edgeshard.Store(path.parent)
    tables = sorted({table for _, table in held.rejected.values()})
    table = pick(("", pick(tables)))
    wanted = {each for each, (_, of) in held.rejected.items() if table in ("", of)}
    fleet.say(f"  {len(wanted)} rows of {table!r} of {fleet.name(path)}")
    with fleet.unchanged({path}):
        dry = store.dismiss_rejected(why="a step", table=table, dry_run=True)
    report = store.dismiss_rejected(why="a step", table=table)
    assert dry.rows >= len(wanted)
    assert report.complete or held.rejected.keys() > wanted or held.is_tainted
    held.rejected = {each: reason for each, reason in held.rejected.items() if each not in wanted}
    held.dismissed |= wanted
    fleet.counts["rows dismissed"] += len(wanted)
    return fleet.check(path)


@step(2)
def forget_peer(fleet: Fleet, pick: Pick) -> Any:
    """Forget a peer of a store, a hub or the server: what the server rejected is forgotten with it."""
    peers = [(path, peer) for path in fleet.masters() for peer in contents.receipts(path)]
    if not peers:
        return False
    path, peer = pick(sorted(peers))
    held, store = fleet.held[path], edgeshard.Store(path.parent)
    is_server = peer in _server_ids(fleet)
    fleet.say(f"  {peer}{' (the server)' if is_server else ''} of {fleet.name(path)}")
    with fleet.unchanged({path}):
        dry = store.forget_peer(peer, dry_run=True)
    report = store.forget_peer(peer)
    assert (dry.rows, dry.claimed, dry.tombstones) == (report.rows, report.claimed, report.tombstones)
    assert peer not in contents.receipts(path)
    if is_server:
        held.rejected, held.dismissed = {}, set()
        fleet.counts["servers forgotten"] += 1
    return fleet.check(path)


def _server_ids(fleet: Fleet) -> list[str]:
    if fleet.server is None or "edgeshard_database" not in fleet.server.tables():
        return []
    return [found.hex for (found,) in fleet.server.rows("SELECT id FROM edgeshard_database")]


@step(3)
def compare_with_server(fleet: Fleet, pick: Pick) -> Any:
    """Compare a store with the server, where nobody has changed anything."""
    if not fleet.masters() or not _server_ids(fleet):
        return False
    path = pick(fleet.masters())
    fleet.say(f"  {fleet.name(path)}")
    return compare(fleet, path, deep=pick((True, True, False)))


@step(4)
def constrain_server(fleet: Fleet, pick: Pick) -> Any:
    """Let somebody add a constraint to a table of the server, or drop it."""
    from tests.support.postgres_server import do

    server = fleet.server
    there = sorted(server.tables() & unfit.CHECKS.keys()) if server is not None else []
    if server is None or not there:
        return False
    table = pick(there)
    fleet.say(f"  {table}: {'drop' if table in server.checks else 'add'}")
    if table in server.checks:
        do(server.dsn, f'ALTER TABLE "{table}" DROP CONSTRAINT only_here')
    else:
        do(server.dsn, f'ALTER TABLE "{table}" ADD CONSTRAINT only_here CHECK ({unfit.CHECKS[table][0]}) NOT VALID')
    server.checks ^= {table}
    return None


# -- the end ----------------------------------------------------------------------------------------------------------


def finish(fleet: Fleet) -> None:
    """Push every store without constraints, and check that each row is there, or has a reason not to be."""
    from tests.support.postgres_server import do

    assert fleet.server is not None
    for table in sorted(fleet.server.checks):
        do(fleet.server.dsn, f'ALTER TABLE "{table}" DROP CONSTRAINT only_here')
    fleet.server.checks = frozenset()
    for name in STORES:
        path = fleet.stores[name].master_path
        push_path(fleet, path, Push("replace", retry=True))
        compare(fleet, path, deep=True)
    root = fleet.held[fleet.stores["root"].master_path]
    fleet.counts["rows rejected in the end"] += len(root.rejected)
    fleet.counts["rows dismissed in the end"] += len(root.dismissed)
    fleet.counts["rows in PostgreSQL in another form"] += len(fleet.server.repaired)
