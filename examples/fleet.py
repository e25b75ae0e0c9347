"""Three devices, a hub, a stick between them, and PostgreSQL; at the end a table that accounts for every row.

    python examples/fleet.py [FOLDER] [--rows N] [--postgres DSN]

Every device has three agents, each a process with a shard of its own, and a master that it merges them into. The boat
has a network: the hub merges its master. The buoy and the van have none: a stick, here a folder, carries bundles to the
hub, each with what the hub lacks, and takes home what the hub says that it holds. The hub pushes all of it into
PostgreSQL: yours with --postgres, or one that is started for it where `pip install 'edgeshard[bench]'` has brought one;
else that leg is left out. Then everything is done once more, for it must change nothing. This exits with an error
unless every row that an agent saw acknowledged is in the hub, and in PostgreSQL, exactly once.
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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import attrs

import edgeshard

AGENTS = ("depth", "engine", "weather")
#: How each device's rows come to the hub.
DEVICES = {"boat": "network", "buoy": "stick", "van": "stick"}
TRIPS = (1, 2)


@edgeshard.table(index=["device"])
@attrs.frozen
class Sounding:
    """What an agent measured. The first four fields name the row, whatever becomes of it."""

    run: str
    device: str
    agent: str
    number: int
    at: datetime.datetime
    value: float


#: A row, by device, agent and number.
Row = tuple[str, str, int]


@attrs.define
class Fleet:
    """All stores, and what was acknowledged.

    Attributes:
        run: the name of this run, which its rows carry.
        folder: where everything is.
        rows: how many rows an agent writes on a trip.
        written: the rows that were acknowledged.
    """

    run: str
    folder: Path
    rows: int
    written: Counter[Row] = attrs.Factory(Counter)

    @property
    def devices(self) -> dict[str, edgeshard.Store]:
        """The devices' stores."""
        return {device: edgeshard.Store(self.folder / device) for device in DEVICES}

    @property
    def hub(self) -> edgeshard.Store:
        """The hub's store; it has no agents."""
        return edgeshard.Store(self.folder / "hub")

    @property
    def stick(self) -> Path:
        """What is carried from one to the other."""
        return self.folder / "stick"

    @property
    def bundles(self) -> list[Path]:
        """What devices have put on the stick."""
        return sorted(self.stick.glob("*.db"))


# -- agents: they know their device's folder, and nothing else --------------------------------------------------------


@attrs.frozen
class Job:
    """What an agent is told."""

    run: str
    folder: str
    device: str
    agent: str
    numbers: range


def run_agent(job: Job) -> list[Row]:
    """Write into the agent's own shard; the rows that were acknowledged."""
    acknowledged = []
    with edgeshard.Store(job.folder).shard(job.agent) as shard:
        for number in job.numbers:
            now = datetime.datetime.now(datetime.UTC)
            shard.write(Sounding(job.run, job.device, job.agent, number, now, random.random()))
            acknowledged.append((job.device, job.agent, number))
    return acknowledged


def go_to_sea(fleet: Fleet, trip: int) -> None:
    """All agents of all devices write at the same time; then each device merges."""
    first = 1 + (trip - 1) * fleet.rows
    jobs = [
        Job(fleet.run, str(store.root), device, agent, range(first, first + fleet.rows))
        for device, store in fleet.devices.items()
        for agent in AGENTS
    ]
    with ProcessPoolExecutor(len(jobs), multiprocessing.get_context("spawn")) as agents:
        for acknowledged in agents.map(run_agent, jobs):
            fleet.written.update(acknowledged)
    for device, store in fleet.devices.items():
        say(device, store.merge())


# -- the way to the hub -----------------------------------------------------------------------------------------------


def carry_home(fleet: Fleet, trip: int) -> None:
    """The boat is merged over the network, and the stick makes its round."""
    (fleet.stick / "hub.json").write_text(fleet.hub.ranges().to_json())
    for device in (device for device, way in DEVICES.items() if way == "stick"):
        store = fleet.devices[device]
        store.receipt(fleet.stick / "hub.json")  # what the hub holds durably
        bundle = fleet.stick / f"{fleet.run[:8]}-{device}-{trip}.db"
        say(device, store.export(bundle, ranges=fleet.stick / "hub.json"))
    masters = [fleet.devices[device].master_path for device, way in DEVICES.items() if way == "network"]
    say("hub", fleet.hub.merge([*masters, *fleet.bundles]))  # also bundles that it knows


def push(fleet: Fleet, dsn: str | None) -> None:
    if dsn is not None:
        say("hub", fleet.hub.push(dsn))


def say(who: str, report: object) -> None:
    print(f"{who + ':':7}{report}", flush=True)


def do_it_again(fleet: Fleet, dsn: str | None) -> int:
    """Merge and push what is there already, by other routes; how many rows came of it."""
    sources = [*fleet.bundles, *(store.master_path for store in fleet.devices.values())]
    again = fleet.hub.merge(random.sample(sources, len(sources))).rows
    if dsn is not None:
        again += sum(store.push(dsn).rows for store in (*fleet.devices.values(), fleet.hub))
    say("again", f"everything merged and pushed once more, from everywhere: {again} rows")
    return again


# -- the account ------------------------------------------------------------------------------------------------------

COUNTED = "SELECT device, agent, number FROM sounding WHERE run = "


def rows_in(fleet: Fleet, dsn: str | None) -> dict[str, Counter[Row]]:
    """The rows of this run in each place, as often as they are there."""
    places = {
        "written": fleet.written,
        "device": Counter(row for store in fleet.devices.values() for row in in_master(fleet, store)),
        "stick": Counter(row for path in fleet.bundles for row in in_file(fleet, path)),
        "hub": Counter(in_master(fleet, fleet.hub)),
    }
    if dsn is not None:
        places["PostgreSQL"] = Counter(in_postgres(fleet, dsn))
    return places


def in_master(fleet: Fleet, store: edgeshard.Store) -> Iterable[Row]:
    return map(tuple, store.query(f"{COUNTED}?", [fleet.run]))


def in_file(fleet: Fleet, path: Path) -> list[Row]:
    """A bundle is an ordinary database; this process has it open with nothing else."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as bundle:
        return list(bundle.execute(f"{COUNTED}?", [fleet.run]))


def in_postgres(fleet: Fleet, dsn: str) -> list[Row]:
    import psycopg

    with psycopg.connect(dsn) as connection:
        return connection.execute(f"{COUNTED}%s", [fleet.run]).fetchall()


def account(places: dict[str, Counter[Row]], gaps: Sequence[edgeshard.Gap]) -> bool:
    """Print how many rows of each device are where; whether each row is wherever it should be, once."""
    table = [("rows of", *places)]
    table += [(device, *(str(count(rows, device)) for rows in places.values())) for device in DEVICES]
    table.append(("all", *(str(rows.total()) for rows in places.values())))
    expected = {place: due_in(place, places["written"]) for place in places}
    missing = {place: expected[place] - rows for place, rows in places.items()}
    surplus = {place: rows - expected[place] for place, rows in places.items()}
    table.append(("missing", *(str(rows.total()) for rows in missing.values())))
    table.append(("surplus", *(str(rows.total()) for rows in surplus.values())))
    print()
    for line in table:
        print(line[0].ljust(8), *(text.rjust(11) for text in line[1:]))
    for gap in gaps:
        print(f"the hub lacks {gap}", file=sys.stderr)
    return not gaps and not any(map(Counter.total, (*missing.values(), *surplus.values())))


def count(rows: Counter[Row], device: str) -> int:
    return sum(times for row, times in rows.items() if row[0] == device)


def due_in(place: str, written: Counter[Row]) -> Counter[Row]:
    """What should be there: the stick has only what went that way."""
    return Counter({row: 1 for row in written if place != "stick" or DEVICES[row[0]] == "stick"})


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def postgres(dsn: str | None) -> Iterator[str | None]:
    """The database that was given, or one on a server that lives as long as the block; None where there is none."""
    if dsn is not None:
        yield dsn
        return
    # the benchmark knows how to start a server that is installed with pip; with one of your own you need none of it
    from edgeshard.bench.system import NotRunError, Setting
    from edgeshard.bench.systems.postgres import Postgres

    with tempfile.TemporaryDirectory(prefix="edgeshard-pg-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL does not run as root: it may have to be reached by somebody else
        for part in ("server", "cache"):
            (folder / part).mkdir(mode=0o711)
        server = Postgres(Setting(folder / "server", "power", len(DEVICES), folder / "cache"))
        try:
            server.start()
            yield server.place.conninfo
        except NotRunError as error:
            print(f"PostgreSQL is left out: {error}", flush=True)
            yield None
        finally:
            server.stop()


# -- all of it --------------------------------------------------------------------------------------------------------


def run(fleet: Fleet, dsn: str | None) -> int:
    fleet.stick.mkdir(parents=True, exist_ok=True)
    for trip in TRIPS:
        print(f"\ntrip {trip}", flush=True)
        go_to_sea(fleet, trip)
        carry_home(fleet, trip)
        push(fleet, dsn)
    print()
    again = do_it_again(fleet, dsn)
    right = account(rows_in(fleet, dsn), fleet.hub.verify().gaps)
    return 0 if right and not again else 1


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="Rows of three devices come to a hub, and to PostgreSQL.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="for all stores (default: a fresh temporary one)")
    parser.add_argument("--rows", type=positive, default=200, metavar="N", help="rows an agent a trip (default: 200)")
    parser.add_argument(
        "--postgres", metavar="DSN", help="a database to push into (default: one on a server of our own)"
    )
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="edgeshard-fleet-")).absolute()
    try:
        with postgres(options.postgres) as dsn:
            return run(Fleet(uuid.uuid4().hex, folder, options.rows), dsn)
    except edgeshard.EdgeshardError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
