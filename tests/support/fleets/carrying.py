"""Steps that carry data between stores: copies, snapshots, bundles, receipts; and files that are put back."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import apsw

import edgeshard
from edgeshard.exchange.inventory import Inventory
from tests.support.fleets import contents
from tests.support.fleets.fleet import DEVICES, Fleet, Image
from tests.support.fleets.model import PRUNED, Address, Held
from tests.support.fleets.shapes import Pick
from tests.support.fleets.steps import step

# -- files ------------------------------------------------------------------------------------------------------------


@step(3)
def copy(fleet: Fleet, pick: Pick) -> Any:
    """Copy the files of a database, live or not, with its WAL or without."""
    if not fleet.held:
        return False
    return copy_files(fleet, pick(fleet.databases()), with_log=pick((True, True, False)))


def copy_files(fleet: Fleet, path: Path, *, with_log: bool) -> Image:
    """Copy a database."""
    folder = fleet.folder / f"copy{next(fleet.names)}"
    folder.mkdir()
    image = Image(Path(shutil.copy(path, folder)), path)
    if with_log and Path(f"{path}-wal").exists():
        shutil.copy(f"{path}-wal", folder)
    is_known = with_log or path in fleet.hostile
    fleet.held[image.path] = fleet.held[path].copy() if is_known else _held_without_log(fleet, image.path, path)
    if path in fleet.hostile:
        fleet.hostile.add(image.path)
    fleet.images.append(image)
    fleet.say(f"  {fleet.name(path)} to {fleet.name(image.path)}")
    return image


def _held_without_log(fleet: Fleet, path: Path, original: Path) -> Held:
    """Return what a file holds without its WAL, read from another copy: SQLite would add files next to this one."""
    with tempfile.TemporaryDirectory(dir=fleet.folder) as folder:
        alone = Path(shutil.copy(path, folder))
        held, rejections = contents.as_held(contents.read(alone)), contents.rejections(alone)
    held.rejected, held.dismissed = rejections.rejected, rejections.dismissed
    held.state = {address: state for address, state in held.state.items() if address in fleet.written}
    held.last = {stream: last for stream, last in held.last.items() if stream in fleet.agents}
    held.is_tainted = fleet.held[original].is_tainted
    return held


@step(1)
def snapshot(fleet: Fleet, pick: Pick) -> Any:
    """Take a snapshot of a master."""
    if not fleet.masters():
        return False
    return take_snapshot(fleet, pick(fleet.masters()))


def take_snapshot(fleet: Fleet, path: Path) -> Image:
    """Take a snapshot of a master."""
    made = fleet.new_path("snapshot")
    edgeshard.Store(path.parent).snapshot(made)
    fleet.held[made] = fleet.held[path].copy()
    fleet.images.append(Image(made, path))
    fleet.say(f"  {fleet.name(path)} to {fleet.name(made)}")
    return fleet.images[-1]


@step(2)
def put_back(fleet: Fleet, pick: Pick) -> Any:
    """Replace a shard or a master by an older copy; keep what was there, or not."""
    images = [image for image in fleet.images if image.path not in fleet.hostile]
    if not images:
        return False
    image = pick(images)
    path = image.original
    fleet.say(f"  {fleet.name(image.path)} to {fleet.name(path)}")
    if path in fleet.open:
        fleet.open.pop(path).close()
    if path in fleet.held:
        if pick((True,) * 9 + (False,)):
            copy_files(fleet, path, with_log=True)
        else:
            fleet.is_lossy = True
    if path.parent.exists():
        _place(fleet, image, path)
    return None


@step(2)
def restore(fleet: Fleet, pick: Pick) -> Any:
    """Restore an older copy of a master; the replaced one is kept, and is a database like any other."""
    masters = {store.master_path for store in fleet.stores.values()}
    images = [image for image in fleet.images if image.original in masters and image.path not in fleet.hostile]
    if not images:
        return False
    image = pick(images)
    path, store = image.original, fleet.stores[image.original.parent.name]
    fleet.say(f"  {fleet.name(image.path)} to {fleet.name(path)}")
    old, new = fleet.held[path], fleet.held[image.path].copy()
    new.hear(fleet.known_outside(store.root.name))
    with fleet.unchanged({path, image.path}):
        preview = store.restore(image.path, dry_run=True)
    if not pick(range(3)):
        life = fleet.killed_at(pick(range(5, 60)), lambda _: store.restore(image.path))
        fleet.counts["restores killed"] += life.killed
        fleet.held[path] = _whichever(fleet, path, old, new)
        if pick((True, False)):
            return None  # what follows finds what the kill left
        old = fleet.held[path]
    with fleet.unchanged({image.path}):
        report = store.restore(image.path)
    assert (preview.rows, preview.gaps, preview.unnamed) == (report.rows, report.gaps, report.unnamed)
    assert new.is_tainted or report.rows == len(new.visible)
    fleet.held[path], replaced = new, Path(report.replaced)
    fleet.held[replaced] = old.copy()
    fleet.images.append(Image(replaced, path))
    fleet.check(replaced)
    fleet.check_gaps(report.gaps, store.root.name, is_pending_known=False)
    return fleet.check(path)


def _whichever(fleet: Fleet, path: Path, old: Held, new: Held) -> Held:
    """Return which of two a master holds; it must be one of them, and whole."""
    try:
        fleet.held[path] = old
        fleet.check(path)
    except AssertionError:
        fleet.held[path] = new
        fleet.check(path)
    return fleet.held[path]


@step(2)
def plant(fleet: Fleet, pick: Pick) -> Any:
    """Carry a copy of a shard to another store, which merges and truncates it as its own."""
    copies = [image for image in fleet.images if image.is_of_shard]
    if not copies:
        return False
    folder = fleet.stores[pick(DEVICES)].root / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    image, path = pick(copies), folder / f"carried-{next(fleet.names)}.db"
    fleet.say(f"  {fleet.name(image.path)} to {fleet.name(path)}")
    _place(fleet, image, path)
    if image.path in fleet.hostile:
        fleet.hostile.add(path)
    return None


def _place(fleet: Fleet, image: Image, path: Path) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{path}{name}").unlink(missing_ok=True)
    for name in ("", "-wal"):
        if Path(f"{image.path}{name}").exists():
            shutil.copy(f"{image.path}{name}", f"{path}{name}")
    fleet.held[path] = fleet.held[image.path].copy()


@step(1)
def decorate(fleet: Fleet, pick: Pick) -> Any:
    """Make an index, a view, a trigger or a table in a master by hand, as its owner may."""
    if not fleet.masters():
        return False
    path, number = pick(fleet.masters()), next(fleet.names)
    sql = pick(_BY_HAND).format(number)
    fleet.say(f"  {fleet.name(path)}: {sql}")
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(1_000)
    connection.execute(sql)
    connection.close()
    return None


_BY_HAND = (
    "CREATE INDEX mine{0} ON agent_data(json_extract(data, '$.n'))",
    "CREATE INDEX mine{0} ON agent_data(data) WHERE length(data) > 10",
    "CREATE VIEW mine{0} AS SELECT agent_id, count(*) AS rows FROM agent_data GROUP BY 1",
    "CREATE TABLE mine{0}(note TEXT, made AS (upper(note)))",
    "CREATE VIRTUAL TABLE mine{0} USING fts5(note)",
    "CREATE TRIGGER mine{0} AFTER INSERT ON agent_data BEGIN SELECT json_extract(new.data, '$.n'); END",
)


# -- bundles, and what they are made by -------------------------------------------------------------------------------


@step(1)
def take_inventory(fleet: Fleet, pick: Pick) -> Any:
    """Take a store's inventory, to be used later."""
    if not fleet.masters():
        return False
    return fleet.documents.append(inventory_of(fleet, pick(fleet.masters())))


def inventory_of(fleet: Fleet, path: Path) -> Inventory:
    """Return a store's inventory, after comparing it with the model."""
    said, held = edgeshard.Store(path.parent).ranges(), fleet.held[path]
    assert held.state.keys() == {address for address in addresses_of(said) if address[0] in fleet.agents}
    pruned = {(stream.hex(), seq) for stream, parts in said.pruned.items() for seq in _seqs(parts)}
    assert held.those(PRUNED) == {address for address in pruned if address[0] in fleet.agents}
    return said


def _seqs(parts: Any) -> list[int]:
    return [seq for part in parts for seq in range(part.first, part.last + 1)]


def addresses_of(said: Inventory) -> set[Address]:
    """Return the addresses in an inventory."""
    return {(stream.hex(), seq) for stream, parts in said.streams.items() for seq in _seqs(parts)}


@step(2)
def receipt(fleet: Fleet, pick: Pick) -> Any:
    """Record an inventory in another store as a receipt."""
    if not fleet.documents or not fleet.masters():
        return False
    said, path = pick(fleet.documents), pick(fleet.masters())
    if said.database_id == edgeshard.Store(path.parent).ranges().database_id:
        return False
    record_receipt(edgeshard.Store(path.parent), said)
    return _check_receipts(fleet, path)


def record_receipt(store: edgeshard.Store, said: Inventory, **options: Any) -> Any:
    """Record an inventory of a peer that is trusted."""
    return store.receipt(said, trust=True, **options)


def _check_receipts(fleet: Fleet, path: Path) -> dict[str, set[Address]]:
    """Return what each peer has, or had, by a master's receipts: never more than its inventories said in all."""
    noted = {
        peer: {address for address in addresses if address[0] in fleet.agents}
        for peer, addresses in contents.receipts(path).items()
    }
    for peer, addresses in noted.items():
        said = [addresses_of(document) for document in fleet.documents if document.database_id.hex() == peer]
        assert addresses <= set().union(*said), f"a receipt of {peer} says more than it did"
    return noted


@step(3)
def export(fleet: Fleet, pick: Pick) -> Any:
    """Export a bundle of all rows, or of those that another store lacks by an inventory, which may be old by now."""
    if not fleet.masters():
        return False
    path = pick(fleet.masters())
    by = pick(("nothing", "document", "receipt"))
    peers = _check_receipts(fleet, path)
    unwanted: set[Address] = set()
    options: dict[str, Any] = {}
    if by == "document" and fleet.documents:
        options["ranges"] = pick(fleet.documents)
        unwanted = addresses_of(options["ranges"])
    elif by == "receipt" and peers:
        options["since_hub"] = pick(sorted(peers))
        unwanted = peers[options["since_hub"]]
    return export_bundle(fleet, path, unwanted, options)


def export_bundle(fleet: Fleet, path: Path, unwanted: set[Address], options: dict[str, Any]) -> Path:
    """Export a bundle, and compare it with the model."""
    bundle = fleet.new_path("bundle")
    fleet.say(f"  {fleet.name(path)} to {fleet.name(bundle)}, without {len(unwanted)} rows")
    report = edgeshard.Store(path.parent).export(bundle, **options)
    held = fleet.held[path].copy()
    held.state = {
        address: state for address, state in held.state.items() if state != PRUNED and address not in unwanted
    }
    held.rejected, held.dismissed = {}, set()
    listed = contents.read(bundle).streams.keys()
    for stream, last in list(held.last.items()):
        # a stream of which everything was pruned is not listed for a receiver that held it all
        if stream in listed or last > len(unwanted):  # a hostile one may claim any number of rows
            continue
        rows = {(stream, seq) for seq in range(1, last + 1)}
        if rows <= unwanted and rows <= fleet.held[path].those(PRUNED):
            del held.last[stream]
    fleet.held[bundle] = held
    if not held.is_tainted:
        whole = len(fleet.held[path].state) - len(fleet.held[path].those(PRUNED))
        assert report.rows + report.left_out == whole
        assert report.rows == len(held.state)
    fleet.check(bundle)
    return bundle
