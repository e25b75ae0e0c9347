"""A configuration that is edited on two devices without a network, and ends up the same on both.

    python examples/shared_config.py [FOLDER] [--edits N]

The bridge of a ship and its engine room each have a store. Both start from the same settings. Then people change and
delete settings in both places at the same time. A stick goes there and back and carries bundles of what the other side
lacks. The last change of each setting wins, and a deleted setting stays deleted unless somebody set it later. Values
that were overruled are kept in `setting_history`, with who had set them.

This exits with an error unless both devices show the same settings, and each acknowledged value is on both exactly
once: in use, or in the history.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import attrs

import edgeshard

PLACES = ("bridge", "engine-room")
NAMES = ("alarm.celsius", "alarm.sound", "beacon.seconds", "log.level", "pump.auto", "units")


@edgeshard.table(key="name", history=True)
@attrs.frozen
class Setting:
    """One setting: the last write wins, wherever it was made. Each change has its own id."""

    name: str
    value: str
    set_by: str
    change: str


def change(folder: Path, place: str, edits: int) -> list[str]:
    """Change settings at one place, delete one in eight; return the ids of the acknowledged values."""
    acknowledged = []
    with edgeshard.Store(folder).shard(place) as shard:
        for number in range(edits):
            name = random.choice(NAMES)
            if random.random() < 1 / 8:
                shard.delete(Setting, name)
            else:
                shard.write(made := Setting(name, str(number), place, uuid.uuid4().hex))
                acknowledged.append(made.change)
            time.sleep(random.expovariate(100))
    return acknowledged


def change_all(stores: list[edgeshard.Store], edits: int) -> list[str]:
    """Change settings in all places at the same time, then merge in each."""
    with ProcessPoolExecutor(len(stores), multiprocessing.get_context("spawn")) as pool:
        done = [pool.submit(change, store.root, store.root.name, edits) for store in stores]
        acknowledged = [each for future in done for each in future.result()]
    for store in stores:
        say(store, store.merge())
    return acknowledged


def deliver(store: edgeshard.Store) -> list[str]:
    """Write the settings with which the ship was delivered."""
    delivered = [Setting(name, "as delivered", "shipyard", uuid.uuid4().hex) for name in NAMES]
    with store.shard("shipyard") as shard, shard.transaction():
        for setting in delivered:
            shard.write(setting)
    say(store, store.merge())
    return [setting.change for setting in delivered]


def carry(stick: Path, source: edgeshard.Store, target: edgeshard.Store) -> None:
    """Export what the other side lacks, by its own ranges, and merge it there."""
    bundle = stick / f"{source.root.name}-{uuid.uuid4().hex}.db"
    say(source, source.export(bundle, ranges=target.ranges()))
    say(target, target.merge([bundle]))


def say(store: edgeshard.Store, what: object) -> None:
    print(f"{store.root.name + ':':12} {what}", flush=True)


def in_use(store: edgeshard.Store) -> list[tuple[str, ...]]:
    return [tuple(row) for row in store.query("SELECT name, value, set_by, change FROM setting ORDER BY name")]


def overruled(store: edgeshard.Store) -> list[tuple[str, ...]]:
    """Return what was replaced or deleted, and why."""
    sql = "SELECT name, value, set_by, change, _reason FROM setting_history ORDER BY _id"
    return [tuple(row) for row in store.query(sql)]


def show(store: edgeshard.Store) -> None:
    print(f"\n{'setting':16} {'value':14} set by")
    for name, value, place, _ in in_use(store):
        print(f"{name:16} {value:14} {place}")


def account(store: edgeshard.Store, acknowledged: list[str]) -> bool:
    """Print where the values are, and return whether each acknowledged one is there exactly once."""
    used, lost = in_use(store), overruled(store)
    there = Counter(row[3] for row in (*used, *lost))
    say(store, f"{len(acknowledged)} values acknowledged; in use {len(used)}, overruled {len(lost)}")
    return all(there[each] == 1 for each in acknowledged)


def run(folder: Path, edits: int) -> int:
    bridge, engine_room = stores = [edgeshard.Store(folder / place) for place in PLACES]
    for store in stores:
        store.init()  # the other place may carry something here before anyone has written
    stick = folder / "stick"
    stick.mkdir(parents=True, exist_ok=True)
    acknowledged = deliver(bridge)
    carry(stick, bridge, engine_room)
    acknowledged += change_all(stores, edits)
    carry(stick, bridge, engine_room)
    carry(stick, engine_room, bridge)
    show(bridge)
    print()
    missing = [store for store in stores if not account(store, acknowledged)]
    is_same = in_use(bridge) == in_use(engine_room)
    print("both show the same" if is_same else "they differ")
    return 0 if is_same and not missing and all(store.verify(deep=True).ok for store in stores) else 1


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="A configuration, edited on two devices that cannot reach each other.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="for both stores (default: a fresh temporary one)")
    parser.add_argument("--edits", type=positive, default=100, metavar="N", help="in each place (default: 100)")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="edgeshard-config-")).absolute()
    print(f"the stores are in {folder}")
    try:
        return run(folder, options.edits)
    except edgeshard.EdgeshardError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
