"""Systems that do what no system should; the benchmark has to show it. Imported by agents, in processes of their own."""

from __future__ import annotations

import os

import attrs

from edgeshard.bench.system import BusyError, Setting
from edgeshard.bench.systems import Entry
from edgeshard.bench.systems.sqlite_tuned import Tuned, TunedPlace, TunedWriter
from edgeshard.bench.workload import Result

GUARANTEE = dict.fromkeys(("process", "power"), "none")


class Lossy(TunedWriter):
    """Acknowledges each fourth row, and forgets it."""

    def write(self, row: Result) -> None:
        if row.number % 4:
            super().write(row)


class Doubling(TunedWriter):
    """Writes each fourth row twice, as a queue does that is read again after a failure."""

    def write(self, row: Result) -> None:
        super().write(row)
        if row.number % 4 == 0:
            super().write(row)


class Garbling(TunedWriter):
    """Writes something else."""

    def write(self, row: Result) -> None:
        super().write(attrs.evolve(row, payload=row.payload.swapcase()))


class Busy(TunedWriter):
    """Refuses each row once."""

    refused = -1

    def write(self, row: Result) -> None:
        if self.refused != row.number:
            self.refused = row.number
            raise BusyError
        super().write(row)


class Failing(TunedWriter):
    """Cannot write its third row."""

    def write(self, row: Result) -> None:
        if row.number == 3:
            raise OSError("the third row")
        super().write(row)


class Dying(TunedWriter):
    """Ends its process at its third row."""

    def write(self, row: Result) -> None:
        if row.number == 3:
            os._exit(1)
        super().write(row)


@attrs.frozen
class BrokenPlace(TunedPlace):
    writer: type[TunedWriter] = TunedWriter

    def open_writer(self, agent: int) -> TunedWriter:
        return self.writer(self.path, self.durability)


def entry(writer: type[TunedWriter]) -> Entry:
    """Such a system, as the benchmark lists them."""

    def make(setting: Setting) -> Tuned:
        made = Tuned(setting)
        made.place = BrokenPlace(made.place.path, made.place.durability, writer)
        return made

    return Entry(f"broken: {writer.__name__}", make, GUARANTEE)
