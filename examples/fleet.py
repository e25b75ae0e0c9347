"""Three devices, a stick, a hub and PostgreSQL; at the end a table that accounts for every row.

    python examples/fleet.py [FOLDER] [--rows N] [--postgres DSN]

On each of two trips the agents of all devices write at the same time, each a process with its own shard, and every
device merges them into its master. The boat has a network: the hub merges its master. The buoy and the van have none: a
stick (here a folder) carries bundles of what the hub lacks, and the hub's ranges back. The van's first bundle is lost
on the way. The hub pushes everything into PostgreSQL: yours with --postgres, or a server that is started for this, if
`pip install 'edgeshard[bench]'` brought one; otherwise that part is left out.

Then everything is merged and pushed once more, which must change nothing. This exits with an error unless every
acknowledged row is in the hub, and in PostgreSQL, exactly once.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import attrs

import edgeshard

AGENTS = ("depth", "engine", "weather")
#: How each device's rows reach the hub.
DEVICES = {"boat": "network", "buoy": "stick", "van": "stick"}
TRIPS = (1, 2)
LOST = ("van", 1)


@edgeshard.table(index=["device"])
@attrs.frozen
class Sounding:
    """What an agent measured. The first four fields identify the row, wherever it goes."""

    run: str
    device: str
    agent: str
    number: int
    at: datetime.datetime
    value: float


#: A row of this run: device, agent and number.
Row = tuple[str, str, int]


class Fleet:
    """All stores in one folder, and which rows were acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.run = uuid.uuid4().hex
        self.devices = {device: edgeshard.Store(folder / device) for device in DEVICES}
        self.hub = edgeshard.Store(folder / "hub")
        self.hub.init()  # it has no agents that would make it
        self.stick = folder / "stick"
        self.stick.mkdir(parents=True, exist_ok=True)
        self.written: Counter[Row] = Counter()

    def reached_by(self, way: str) -> dict[str, edgeshard.Store]:
        """Return the devices whose rows reach the hub this way."""
        return {device: store for device, store in self.devices.items() if DEVICES[device] == way}

    def bundles(self) -> list[Path]:
        """Return the bundles on the stick."""
        return sorted(self.stick.glob("*.db"))


# -- one trip ---------------------------------------------------------------------------------------------------------


def run_agent(folder: Path, run: str, device: str, agent: str, numbers: range) -> list[Row]:
    """Write into the agent's own shard; return the acknowledged rows. It knows its device, and nothing else."""
    acknowledged = []
    with edgeshard.Store(folder).shard(agent) as shard:
        for number in numbers:
            now = datetime.datetime.now(datetime.UTC)
            shard.write(Sounding(run, device, agent, number, now, random.random()))
            acknowledged.append((device, agent, number))
    return acknowledged


def go_to_sea(fleet: Fleet, numbers: range) -> None:
    """Let all agents of all devices write at the same time, then merge on each device."""
    crew = [(device, agent) for device in DEVICES for agent in AGENTS]
    with ProcessPoolExecutor(len(crew), multiprocessing.get_context("spawn")) as pool:
        done = [
            pool.submit(run_agent, fleet.devices[device].root, fleet.run, device, agent, numbers)
            for device, agent in crew
        ]
        for acknowledged in done:
            fleet.written.update(acknowledged.result())
    for device, store in fleet.devices.items():
        say(device, store.merge())


def carry(fleet: Fleet, trip: int) -> None:
    """Carry the stick round: it brings each device the hub's ranges, and takes along what the hub lacks."""
    receipt = fleet.stick / "hub.json"
    receipt.write_text(fleet.hub.ranges().to_json())
    for device, store in fleet.reached_by("stick").items():
        say(device, store.receipt(receipt, trust=trip == TRIPS[0]))  # who carries it there confirms the hub, once
        bundle = fleet.stick / f"{fleet.run}-{device}-{trip}.db"
        say(device, store.export(bundle, ranges=receipt))
        if (device, trip) == LOST:
            bundle.unlink()
            say(device, "this bundle is lost; each next one brings its rows again, until the hub has them")


def gather(fleet: Fleet, dsn: str | None) -> None:
    """Merge at the hub what it can reach, including bundles that it knows, and push what PostgreSQL lacks."""
    say(
        "hub",
        fleet.hub.merge([*(store.master_path for store in fleet.reached_by("network").values()), *fleet.bundles()]),
    )
    if dsn is not None:
        say("hub", fleet.hub.push(dsn))


def do_it_again(fleet: Fleet, dsn: str | None) -> int:
    """Merge and push everything again, by other routes; return how many rows that added."""
    sources = [*fleet.bundles(), *(store.master_path for store in fleet.devices.values())]
    again = fleet.hub.merge(random.sample(sources, len(sources))).rows
    if dsn is not None:
        again += sum(store.push(dsn).rows for store in (*fleet.devices.values(), fleet.hub))
    say("again", f"everything merged and pushed once more, from everywhere: {again} rows")
    return again


def say(who: str, what: object) -> None:
    print(f"{who + ':':7}{what}", flush=True)


# -- the account ------------------------------------------------------------------------------------------------------

OF_RUN = "SELECT device, agent, number FROM sounding WHERE run = "


def rows_by_place(fleet: Fleet, dsn: str | None) -> dict[str, Counter[Row]]:
    """Count the rows of this run in each place."""
    places = {
        "written": fleet.written,
        "devices": Counter(row for store in fleet.devices.values() for row in in_master(store, fleet.run)),
        "stick": Counter(row for bundle in fleet.bundles() for row in in_file(bundle, fleet.run)),
        "hub": Counter(in_master(fleet.hub, fleet.run)),
    }
    if dsn is not None:
        places["PostgreSQL"] = Counter(in_postgres(dsn, fleet.run))
    return places


def in_master(store: edgeshard.Store, run: str) -> Iterator[Row]:
    return map(tuple, store.query(f"{OF_RUN}?", [run]))


def in_file(bundle: Path, run: str) -> list[Row]:
    """A bundle is an ordinary SQLite file."""
    with contextlib.closing(sqlite3.connect(f"{bundle.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(f"{OF_RUN}?", [run]).fetchall()


def in_postgres(dsn: str, run: str) -> list[Row]:
    import psycopg

    with psycopg.connect(dsn) as connection:
        return connection.execute(f"{OF_RUN}%s", [run]).fetchall()


def account(places: dict[str, Counter[Row]]) -> bool:
    """Print how many rows of each device are where; return whether each row is exactly once wherever it belongs."""
    due = {place: rows_due(place, places["written"]) for place in places}
    missing = [(due[place] - rows).total() for place, rows in places.items()]
    duplicated = [(rows - due[place]).total() for place, rows in places.items()]
    print()
    show("rows of", places)
    for device in DEVICES:
        show(device, (sum(times for row, times in rows.items() if row[0] == device) for rows in places.values()))
    show("all", (rows.total() for rows in places.values()))
    show("missing", missing)
    show("duplicated", duplicated)
    return not any((*missing, *duplicated))


def rows_due(place: str, written: Counter[Row]) -> Counter[Row]:
    """Return the rows that should be there: on the stick, only those that went that way."""
    return Counter({row: 1 for row in written if place != "stick" or DEVICES[row[0]] == "stick"})


def show(head: str, values: Iterable[object]) -> None:
    print(head.ljust(10), *(str(value).rjust(11) for value in values))


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def postgres(dsn: str | None) -> Iterator[str | None]:
    """Yield the given database, or one on a server that lives as long as the block, or None if there is neither."""
    if dsn is not None:
        yield dsn
        return
    # the benchmark can start a server that pip installed; with your own server you need none of this
    from edgeshard.bench.system import NotRunError, Setting
    from edgeshard.bench.systems.postgres import Postgres

    with tempfile.TemporaryDirectory(prefix="edgeshard-pg-") as name:
        folder = Path(name)
        for part in (folder, folder / "server", folder / "cache"):
            part.mkdir(exist_ok=True)
            part.chmod(0o711)  # if we are root, PostgreSQL runs as another user
        server = Postgres(Setting(folder / "server", "power", agents=1, cache=folder / "cache"))
        try:
            server.start()
        except NotRunError as error:
            print(f"PostgreSQL is left out: {error}", flush=True)
            yield None
        else:
            yield server.place.conninfo
        finally:
            server.stop()


# -- all of it --------------------------------------------------------------------------------------------------------


def run(folder: Path, rows: int, dsn: str | None) -> int:
    fleet = Fleet(folder)
    for trip in TRIPS:
        print(f"\ntrip {trip}", flush=True)
        go_to_sea(fleet, range((trip - 1) * rows, trip * rows))
        carry(fleet, trip)
        gather(fleet, dsn)
    print()
    again = do_it_again(fleet, dsn)
    is_right = account(rows_by_place(fleet, dsn))
    return 0 if is_right and again == 0 and fleet.hub.verify(deep=True).ok else 1


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring the rows of three devices to a hub, and to PostgreSQL.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="for all stores (default: a fresh temporary one)")
    parser.add_argument("--rows", type=positive, default=200, metavar="N", help="per agent and trip (default: 200)")
    parser.add_argument("--postgres", metavar="DSN", help="a database to push into (default: a temporary server)")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="edgeshard-fleet-")).absolute()
    print(f"the stores are in {folder}")
    try:
        with postgres(options.postgres) as dsn:
            return run(folder, options.rows, dsn)
    except edgeshard.EdgeshardError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
