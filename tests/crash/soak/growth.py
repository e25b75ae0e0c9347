"""Check that nothing grows during the soak that should not: samples of the merger, and their bounds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.crash.soak.actors import MergerActor, MergerLife, Scene
from tests.support.merging_processes import Figures, figures

#: Python and our modules take 25 MiB, the master's page cache up to 32, and the pages that SQLite reads from the WAL.
RSS_MAX_KIB = 96 << 10
#: The same within a life, once the caches are full: a leak of 100 bytes a merge would show as that in an hour.
RSS_GROWTH_MAX_KIB = 8 << 10
#: What a merger keeps open between passes must not grow; a pass may have begun in each sample, so the least counts.
DESCRIPTORS_GROWTH_MAX = 8
#: The interpreter, the watch with its emitter and its dispatcher, and room.
THREADS_MAX = 8
#: Each merge cuts the WAL to 64 MiB; while a reader (verify) holds a snapshot, merges make it longer.
WAL_MAX_BYTES = 256 << 20
#: A life with fewer samples says nothing about growth.
SAMPLES_MIN = 8
SAMPLE_EVERY_S = 10.0


class Sampler:
    """Samples every few seconds what must not grow."""

    def __init__(self, scene: Scene, merger: MergerActor) -> None:
        self._scene, self._merger = scene, merger
        self._next_at = 0.0
        self.wal_max_bytes = self.files_max = self.bytes_max = 0

    def step(self, now: float) -> None:
        if now >= self._next_at:
            self._next_at = now + SAMPLE_EVERY_S / self._scene.options.tempo
            self.look(now)

    def look(self, now: float) -> None:
        life = self._merger.life
        found = None if life is None else figures(life.merger.pid)
        if life is not None and found is not None and life.merger.is_ready:
            life.samples.append((now, found))
        with contextlib.suppress(FileNotFoundError):
            self.wal_max_bytes = max(self.wal_max_bytes, os.stat(f"{self._scene.root}/master.db-wal").st_size)
        count, size = folder_size(self._scene.shards)
        self.files_max, self.bytes_max = max(self.files_max, count), max(self.bytes_max, size)


def folder_size(folder: Path) -> tuple[int, int]:
    """Return how many files a folder has, and how many bytes are in them."""
    count = size = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            size += entry.stat().st_size
            count += 1
    return count, size


def growth_faults(life: MergerLife) -> Iterator[str]:
    """Return what grew too much in a life of the merger."""
    found = [sample for _, sample in life.samples]
    if any(sample.rss_kib > RSS_MAX_KIB for sample in found):
        yield f"merger {life.number}: more than {RSS_MAX_KIB} KiB resident"
    if any(sample.threads > THREADS_MAX for sample in found):
        yield f"merger {life.number}: more than {THREADS_MAX} threads"
    if len(found) < SAMPLES_MIN:
        return
    third = len(found) // 3
    middle, last = found[third:-third], found[-third:]
    # the first third fills the caches
    grown_kib = max(sample.rss_kib for sample in last) - max(sample.rss_kib for sample in middle)
    if grown_kib > RSS_GROWTH_MAX_KIB:
        yield f"merger {life.number}: grew by {grown_kib} KiB in the last third of its life"
    opened = min(sample.descriptors for sample in last) - min(sample.descriptors for sample in found[:third])
    if opened > DESCRIPTORS_GROWTH_MAX:
        yield f"merger {life.number}: {opened} more descriptors in the last third of its life than in the first"


def slope_kib_per_minute(samples: Sequence[tuple[float, Figures]]) -> float:
    """Return the slope of the resident memory, by least squares."""
    times = [at for at, _ in samples]
    sizes = [sample.rss_kib for _, sample in samples]
    mean_at, mean_size = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((at - mean_at) ** 2 for at in times)
    return (
        60 * sum((at - mean_at) * (size - mean_size) for at, size in zip(times, sizes, strict=True)) / (spread or 1.0)
    )
