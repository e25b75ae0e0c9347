"""Simulate a year of a device in minutes: do its files keep their size, and is every row accounted for at the end?

    python -m tests.campaigns.year [--days 365] [--rows 20000] [--merges 24] [--openings 1440] [--wear low]
        [--dir FOLDER]

Three agents write; one is restarted each day and one each month. With --openings, a fourth one is started so many times
a day, by cron or a command-line hook, and writes one row each time. An hourly merge follows the store's own rules: rows
older than 30 days are pruned once the hub has them. Each week a bundle is carried to the hub, and its receipt back; for
five weeks in summer nobody comes. The hub limits its size. Only the clock is simulated: `time.time`, by which mergers and
prunes tell the time, and the clock that nobody can set, are set forward by an hour before each merge. All rows are really written, merged and pruned.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import attrs

import edgeshard
from edgeshard.records import machine_clock
from edgeshard.shard.write_profile import WriteProfileName
from tests.support.stores import contradictions, new_store

_BEGIN_S = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
_DAY_S = 86_400.0
_DAYS_A_MONTH = 30
#: The days on which nobody carries a bundle.
_NOBODY_COMES = range(180, 215)
_HUB_BYTES = "150M"


class Clock:
    """Stands in for `time.time`."""

    def __init__(self) -> None:
        self.now_s = _BEGIN_S

    def __call__(self) -> float:
        return self.now_s


@attrs.frozen
class Reading:
    """A record that agents write: a row of about 110 bytes."""

    sensor: str
    celsius: float
    note: str


class Year:
    """A device and its hub.

    Attributes:
        written: number of acknowledged rows.
        device: the device's store.
        hub: the store that its rows are carried to.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        rows_a_day: int,
        merges_a_day: int,
        openings_a_day: int,
        wear: WriteProfileName,
    ) -> None:
        self.device = edgeshard.Store(folder / "device", prune={"older_than": "30d", "only_receipted": True}, wear=wear)
        self.hub = new_store(folder / "hub", prune={"max_bytes": _HUB_BYTES})
        self.written = 0
        self._folder = folder
        self._clock = clock
        self._rows, self._merges = rows_a_day // merges_a_day, merges_a_day
        self._openings = openings_a_day // merges_a_day
        self._took_s: list[float] = []

    def run(self, days: int) -> None:
        """Run all days, and print a line per month."""
        print(f"{'day':>4} {'master MB':>9} {'WAL MB':>7} {'shards MB':>9} {'rows':>9} {'pruned':>9} {'hub MB':>7} "
              f"{'merge ms':>8} {'worst':>6} {'written MB':>10} {'streams':>8} {'retired':>8} {'books MB':>8} {'retired MB':>10}"
        )  # fmt: skip
        with contextlib.ExitStack() as for_good:
            lasting = for_good.enter_context(self.device.shard("boiler"))
            for month in range(0, days, _DAYS_A_MONTH):
                with self.device.shard("pump") as monthly:
                    for day in range(month, min(month + _DAYS_A_MONTH, days)):
                        with self.device.shard("door") as daily:
                            self._day([lasting, monthly, daily])
                        if day % 7 == 6 and day not in _NOBODY_COMES:
                            self._carry()
                self._tell(min(month + _DAYS_A_MONTH, days))
        self.device.merge()
        self._carry()
        self._judge()

    def _day(self, shards: list[edgeshard.Shard]) -> None:
        for _ in range(self._merges):
            for number, shard in enumerate(shards):
                rows = self._rows // len(shards) + (self._rows % len(shards) if not number else 0)
                records = [Reading("inlet", n / 7, "x" * 60) for n in range(rows)]
                for record in records[: rows // 2]:
                    shard.write(record)
                shard.write_many(records[rows // 2 :])
                self.written += rows
            for _ in range(self._openings):
                with self.device.shard("hook") as hook:
                    hook.write(Reading("door", 1.0, "opened"))
                self.written += 1
            self._clock.now_s += _DAY_S / self._merges
            began = time.monotonic()
            report = self.device.merge()
            self._took_s.append(time.monotonic() - began)
            assert report.complete, report

    def _carry(self) -> None:
        """Carry a bundle to the hub, and its receipt back."""
        bundle = self._folder / "carried.bundle"
        self.device.export(bundle, ranges=self.hub.ranges(), force=True)
        report = self.hub.merge(sources=[bundle])
        assert report.complete, report
        self.device.receipt(self.hub.ranges(), trust=True)

    def _tell(self, day: int) -> None:
        status = self.device.status()
        shards = sum(shard.size_bytes for shard in status.shards)
        hub = self.hub.status().master
        times = sorted(self._took_s)
        self._took_s = []
        print(
            f"{day:4} {status.master.size_bytes / 1e6:9.1f} {status.master.wal_bytes / 1e6:7.1f} {shards / 1e6:9.1f} "
            f"{status.master.rows:9} {status.master.pruned_rows:9} {(hub.size_bytes + hub.wal_bytes) / 1e6:7.1f} "
            f"{statistics.median(times) * 1e3:8.1f} {times[-1] * 1e3:6.0f} {status.write_stats.bytes / 1e6:10.0f} "
            f"{status.master.streams:8} {status.master.retired_streams:8} "
            f"{status.space.bookkeeping_bytes / 1e6:8.2f} {status.space.retired_bytes / 1e6:10.2f}",
            flush=True,
        )

    def _judge(self) -> None:
        """Check that each acknowledged row is in both stores, or was pruned there."""
        for name, store in (("device", self.device), ("hub", self.hub)):
            report = store.verify(deep=True)
            pruned = sum(report.pruned.values())
            assert not contradictions(report), report
            assert report.rows + pruned == self.written, (name, report.rows, pruned, self.written)
            status = store.status()
            print(
                f"{name}: {status.master.streams} streams, {status.master.retired_streams} of them retired; {status.space}"
            )
            print(f"{name}: {report.rows} rows and {pruned} pruned are the {self.written} that were written; no errors")


@contextlib.contextmanager
def _clock() -> Iterator[Clock]:
    clock = Clock()
    with (
        mock.patch.object(time, "time", clock),
        mock.patch.object(machine_clock, "boottime_s", clock),
    ):
        yield clock


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.year", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--rows", type=int, default=20_000, help="rows per day (default: 20000)")
    parser.add_argument("--merges", type=int, default=24, help="merges per day (default: 24)")
    parser.add_argument(
        "--openings", type=int, default=0, help="how often a day an agent is started for one row each (default: 0)"
    )
    parser.add_argument("--wear", choices=("normal", "low"), default="normal")
    parser.add_argument("--dir", help="where to put the stores (default: the folder for temporary files)")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeshard-year-", dir=given.dir) as folder, _clock() as clock:
        Year(Path(folder), clock, given.rows, given.merges, given.openings, given.wear).run(given.days)
    print(f"{given.days} days in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
