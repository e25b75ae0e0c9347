"""Import files of other programs, and exchange bundles and receipts with a hub."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import edgeshard
from edgeshard.reports import ImportReport
from tests.crash.syscall_faults.scenarios.account import Account, attempt, prepare
from tests.crash.syscall_faults.scenarios.merging import write_closed
from tests.support import ordinary


def _import(account: Account, *files: Path) -> Generator[None]:
    """Import files into an empty store, and again in the end: each row is there once."""
    store = prepare(account, "empty", lambda store: store.init())
    account.finish = lambda store: _import_all(store, files)
    yield
    report = attempt(account, lambda: store.import_(files))
    if report is not None and not report.complete:
        account.errors["not imported"] = 1
    yield
    again = _import_all(store, files)
    # a batch whose fate was unknown may be there, but what was reported is there
    assert report is None or len(account.acknowledged) >= report.rows + again.rows, (report, again)


def _import_all(store: edgeshard.Store, files: tuple[Path, ...]) -> ImportReport:
    report = store.import_(files)
    assert report.complete, report
    return report


def import_lines(account: Account) -> Generator[None]:
    """Import lines of JSON, in two batches."""
    lines = account.root.parent / "lines.ndjson"
    lines.write_text("".join(f'{{"n": {n}}}\n' for n in range(1, 7)))
    account.acknowledged.update(range(1, 7))
    yield from _import(account, lines)


def import_database(account: Account) -> Generator[None]:
    """Import a table of another program's database, in two batches."""
    plant = account.root.parent / "plant.db"
    rows = [(n,) for n in range(1, 7)]
    ordinary.run(plant, "CREATE TABLE readings(n int)", "INSERT INTO readings VALUES (?)", rows=rows)
    account.acknowledged.update(range(1, 7))
    account.others = _readings
    yield from _import(account, plant)


def _readings(store: edgeshard.Store) -> list[int]:
    tables = {name for (name,) in store.query("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return [n for (n,) in store.query("SELECT n FROM readings")] if "readings" in tables else []


# -- a hub ------------------------------------------------------------------------------------------------------------


def _make_device(store: edgeshard.Store) -> None:
    """Make a store with rows, some of which a hub has; the hub is next to it, in its folder."""
    write_closed(store, "a", range(1, 6))
    store.merge()
    hub = _hub(store)
    hub.init()
    hub.merge([store.master_path])
    write_closed(store, "b", range(11, 18))
    store.merge()


def _hub(store: edgeshard.Store) -> edgeshard.Store:
    return edgeshard.Store(store.root / "hub")


def _begin(account: Account, *, is_receipted: bool) -> edgeshard.Store:
    store = prepare(
        account, "receipted" if is_receipted else "device", _make_receipted if is_receipted else _make_device
    )
    account.acknowledged.update((*range(1, 6), *range(11, 18)))
    return store


def _make_receipted(store: edgeshard.Store) -> None:
    _make_device(store)
    store.receipt(_hub(store).ranges(), trust=True)


def export(account: Account) -> Generator[None]:
    """Export bundles: each appears complete or not at all, and the one that it replaces is not lost before."""
    store = _begin(account, is_receipted=True)
    new, old = store.root / "new.bundle", store.root / "old.bundle"
    hub = _hub(store).ranges().database_id.hex()
    store.export(old)
    yield
    attempt(account, lambda: store.export(new, since_hub=hub))
    attempt(account, lambda: store.export(old, force=True))
    yield
    if new.exists():
        assert 7 == _hub(store).merge([new]).rows
    assert old.exists()
    _hub(store).merge([old])
    assert _hub(store).verify().ok
    assert len(account.acknowledged) == _hub(store).verify().rows
    store.export(new, force=True)
    store.export(old, force=True)
    assert [] == [path.name for path in store.root.iterdir() if ".new" in path.name]


def receipt(account: Account) -> Generator[None]:
    """Ask a hub for its inventory, record it as a receipt, and prune what the hub holds."""
    store = _begin(account, is_receipted=False)
    account.doubt(*([n] for n in (1, 2)), [3], [4], [5])
    yield
    said = attempt(account, _hub(store).ranges)
    if said is not None:
        recorded = attempt(account, lambda: store.receipt(said, trust=True))
        assert recorded is None or (5, True) == (recorded.rows, recorded.complete)
        report = attempt(account, lambda: store.prune(keep_rows=0, only_receipted=True))
        if recorded is not None and report is not None:
            account.refuse_unknown()
    yield
    assert store.receipt(_hub(store).ranges(), trust=True).complete
    store.prune(keep_rows=0, only_receipted=True)
    account.refuse_unknown()


def forget_peer(account: Account) -> Generator[None]:
    """Forget a hub that gave a receipt: it is there, or it is forgotten, and no row is pruned because of it."""
    store = _begin(account, is_receipted=True)
    hub = _hub(store).ranges().database_id.hex()
    yield
    would = attempt(account, lambda: store.forget_peer(hub, dry_run=True))
    assert would is None or 5 == would.rows
    done = attempt(account, lambda: store.forget_peer(hub))
    yield
    assert done is None or () == store.status().peers
    if store.status().peers:  # or else what failed was the sync of the commit
        store.forget_peer(hub)
    assert () == store.status().peers
    assert 0 == store.prune(keep_rows=0, only_receipted=True).rows
