"""The last known value of each sensor, heard by several receivers, next to the log of all values.

    python examples/last_values.py [STORE] [--receivers N] [--sensors N] [--readings N]

Each receiver is a process with its own shard. It writes everything it hears twice, in one transaction: as a row of the
log, which only grows, and as the sensor's last value, which replaces the one before. Receivers do not know of each
other, and read nothing before they write. At the end the first sensor is taken out of service: its last value is
deleted, and its log stays.

This exits with an error unless the log has each acknowledged reading exactly once, and the table of last values has one
row for each sensor in service: the last value that some receiver heard of it.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import random
import sys
import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import attrs

import edgeshard


@edgeshard.table(index=["run"])
@attrs.frozen
class Reading:
    """A row of the log."""

    run: str
    sensor: str
    receiver: str
    number: int
    celsius: float


@edgeshard.table(key="sensor")
@attrs.frozen
class LastValue:
    """The last value of a sensor: one row per sensor, whoever heard it."""

    sensor: str
    run: str
    receiver: str
    number: int
    celsius: float
    at: datetime.datetime


#: A reading: sensor, receiver and the receiver's number for it.
Heard = tuple[str, str, int]


def listen(folder: Path, run: str, receiver: str, sensors: list[str], readings: int) -> dict[str, int]:
    """Write what a receiver hears; return the number of the last acknowledged reading of each sensor."""
    heard = {}
    with edgeshard.Store(folder).shard(receiver) as shard:
        for number in range(readings):
            sensor, celsius = random.choice(sensors), round(random.gauss(60, 9), 1)
            with shard.transaction():
                shard.write(Reading(run, sensor, receiver, number, celsius))
                shard.write(LastValue(sensor, run, receiver, number, celsius, datetime.datetime.now(datetime.UTC)))
            heard[sensor] = number
            time.sleep(random.expovariate(500))
    return heard


def listen_all(folder: Path, run: str, receivers: list[str], sensors: list[str], readings: int) -> set[Heard]:
    """Run all receivers at once; return what each of them heard last of each sensor."""
    with ProcessPoolExecutor(len(receivers), multiprocessing.get_context("spawn")) as pool:
        heard = {name: pool.submit(listen, folder, run, name, sensors, readings) for name in receivers}
    return {(sensor, name, number) for name, done in heard.items() for sensor, number in done.result().items()}


def take_out_of_service(store: edgeshard.Store, sensor: str) -> None:
    with store.shard("maintenance") as shard:
        shard.delete(LastValue, sensor)


def show(store: edgeshard.Store) -> None:
    print(f"\n{'sensor':12} {'celsius':>8}  heard by")
    for sensor, celsius, receiver in store.query("SELECT sensor, celsius, receiver FROM last_value ORDER BY sensor"):
        print(f"{sensor:12} {celsius:8.1f}  {receiver}")


def account(store: edgeshard.Store, run: str, readings: int, heard: set[Heard]) -> bool:
    """Print what is there, and return whether it is right.

    Args:
        store: the store.
        run: the id of this run.
        readings: how many readings were acknowledged.
        heard: each receiver's last reading of each sensor in service.
    """
    count = "SELECT count(*), count(DISTINCT receiver || ' ' || number) FROM reading WHERE run = ?"
    ((logged, different),) = store.query(count, [run])
    kept = [tuple(row) for row in store.query("SELECT sensor, receiver, number FROM last_value WHERE run = ?", [run])]
    sensors = {sensor for sensor, _, _ in heard}
    print(f"\nreadings acknowledged {readings}, in the log {logged}, distinct {different}")
    print(f"sensors heard and in service {len(sensors)}, with a last value {len(kept)}")
    is_last = set(kept) <= heard and sorted(row[0] for row in kept) == sorted(sensors)
    return is_last and logged == different == readings


def run(folder: Path, receivers: int, sensors: int, readings: int) -> int:
    store, name = edgeshard.Store(folder), uuid.uuid4().hex
    names = [f"sensor-{number:03}" for number in range(sensors)]
    heard = listen_all(folder, name, [f"receiver-{number}" for number in range(receivers)], names, readings)
    print(store.merge())
    take_out_of_service(store, names[0])
    print(store.merge())
    show(store)
    in_service = {found for found in heard if found[0] != names[0]}
    is_right = account(store, name, receivers * readings, in_service)
    return 0 if is_right and store.verify(deep=True).ok else 1


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="The last known value of each sensor, whoever heard it.")
    parser.add_argument("store", metavar="STORE", nargs="?", help="a folder (default: a fresh temporary one)")
    parser.add_argument("--receivers", type=positive, default=4, metavar="N", help="processes (default: 4)")
    parser.add_argument("--sensors", type=positive, default=8, metavar="N", help="what they hear (default: 8)")
    parser.add_argument("--readings", type=positive, default=500, metavar="N", help="by each receiver (default: 500)")
    options = parser.parse_args()
    folder = Path(options.store or tempfile.mkdtemp(prefix="edgeshard-last-")).absolute()
    print(f"the store is {folder}")
    try:
        return run(folder, options.receivers, options.sensors, options.readings)
    except edgeshard.EdgeshardError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
