"""Play a soak, from the first row to the verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from tests.crash.soak.actors import (
    Actor,
    FolderActor,
    MergerActor,
    MergerLife,
    Options,
    Scene,
    Writers,
    errands,
)
from tests.crash.soak.growth import WAL_MAX_BYTES, Sampler, folder_size, growth_faults, slope_kib_per_minute
from tests.crash.soak.judge import Verdict, judge, sabotage
from tests.support.merging_processes import PATIENCE_S, run
from tests.support.project import PROJECT

#: Files that may be in the store's folder at the end.
KNOWN_NAMES = {
    "master.db",
    "master.db-wal",
    "master.db-shm",
    "merge.lock",
    "watch.lock",
    "shards",
    "merger.prom",
    "removed-shards.db",
}


class Campaign:
    """All actors on one scene, from the first row to the verdict."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        scene.shards.mkdir(mode=0o700, parents=True)
        self.writers = Writers(scene)
        self.merger = MergerActor(scene)
        self.errands = errands(scene)
        self.folder = FolderActor(scene, self.writers, self.merger, self.errands)
        self.sampler = Sampler(scene, self.merger)
        self.verdict = Verdict()

    def play(self) -> None:
        """Let the actors act for the requested time, then end everything and judge."""
        checked(run("-m", "edgeshard.merge", self.scene.root, "--json"))
        reader = subprocess.Popen([sys.executable, "-m", "tests.crash.soak.reader", str(self.scene.root)], cwd=PROJECT)
        end = time.monotonic() + self.scene.options.seconds
        actors: tuple[Actor, ...] = (self.writers, self.merger, *self.errands, self.folder, self.sampler)
        said_at = time.monotonic()
        while (now := time.monotonic()) < end or (now < end + PATIENCE_S and not self._all_happened()):
            for actor in actors:
                actor.step(now)
            if now > said_at + 60:
                said_at = now
                print(f"{end - now:.0f} s to go: {dict(self.scene.counts)}", file=sys.stderr, flush=True)
            time.sleep(0.01)
        if reader.poll() is not None:
            self.scene.fault("the reader ended")
        reader.kill()
        reader.wait()
        self._end()

    def _all_happened(self) -> bool:
        return all(self.scene.counts[what] for what in self.scene.options.awaited)

    def _end(self) -> None:
        life = self.merger.ensure()
        for errand in self.errands:
            errand.wait()
        self.folder.bring_all_back()
        self.writers.halt()
        self.sampler.look(time.monotonic())
        self.merger.finish("term")
        self._merge_finally(life)
        if self.scene.options.sabotage:
            sabotage(self.scene.root / "master.db", self.scene.options.sabotage)
        verified = run("-m", "edgeshard", "verify", self.scene.root, "--json")
        if verified.returncode:
            self.scene.fault(f"verify: {verified.stdout}{verified.stderr}")
        self.verdict = judge(self.scene.root / "master.db", self.scene.sessions)
        for fault in (*self.verdict.faults, *self._growth_faults()):
            self.scene.fault(fault)

    def _merge_finally(self, life: MergerLife) -> None:
        """Check that the watching merger's final pass left nothing to do."""
        done = run("-m", "edgeshard.merge", self.scene.root, "--json")
        if done.returncode not in (0, 3):
            self.scene.fault(f"the last merge: exit code {done.returncode}: {done.stdout}{done.stderr}")
            return
        report = json.loads(done.stdout)
        if not report["complete"]:
            self.scene.fault(f"the last merge: {report}")

    def _growth_faults(self) -> Iterator[str]:
        for life in self.merger.lives:
            yield from growth_faults(life)
        if self.sampler.wal_max_bytes > WAL_MAX_BYTES:
            yield f"the master's log grew to {self.sampler.wal_max_bytes} bytes"
        if left := sorted(os.listdir(self.scene.shards)):
            yield f"left in the folder of the shards, though all agents are gone: {len(left)} files, as {left[:3]}"
        if unknown := set(os.listdir(self.scene.root)) - KNOWN_NAMES:
            yield f"left in the store's folder: {unknown}"

    def table(self) -> Iterator[tuple[str, str]]:
        """Return the outcome as lines."""
        for name, value in attrs.asdict(self.verdict).items():
            yield f"rows {name}", f"{value:,}"
        yield "sessions (streams)", f"{len(self.scene.sessions):,}"
        for name, value in sorted(self.scene.counts.items()):
            yield name, f"{value:,}"
        noticed = self.folder.noticed_s
        yield "a new folder was noticed after, at most", f"{max(noticed):.1f} s" if noticed else "-"
        for errand in self.errands:
            yield f"{errand.name} by exit code", ", ".join(f"{code}: {n}" for code, n in sorted(errand.codes.items()))
        yield "shards/, files at most, bytes at most", f"{self.sampler.files_max:,}, {self.sampler.bytes_max:,}"
        yield "shards/, files and bytes in the end", "{:,}, {:,}".format(*folder_size(self.scene.shards))
        yield "master.db-wal at most", f"{self.sampler.wal_max_bytes / 2**20:.1f} MiB"
        yield "master.db", f"{os.stat(self.scene.root / 'master.db').st_size / 2**20:.1f} MiB"

    def lives_table(self) -> Iterator[str]:
        """Return the lives of the merger that were long enough to measure, as lines."""
        for life in self.merger.lives:
            if len(life.samples) > 1:
                yield life_line(life)


def life_line(life: MergerLife) -> str:
    rss = [sample.rss_kib / 1024 for _, sample in life.samples]
    opened = [sample.descriptors for _, sample in life.samples]
    threads = max(sample.threads for _, sample in life.samples)
    length_s = life.samples[-1][0] - life.samples[0][0]
    return (
        f"merger {life.number}, {length_s:.0f} s, ended by {life.ended_by}: RSS {rss[0]:.1f} first, {rss[-1]:.1f} last, "
        f"{max(rss):.1f} MiB at most, {slope_kib_per_minute(life.samples):+.0f} KiB/min; "
        f"descriptors {opened[0]} first, {opened[-1]} last, {min(opened)} to {max(opened)}; {threads} threads"
    )


def checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, (done.args, done.returncode, done.stdout, done.stderr)
    return done


@attrs.frozen
class Outcome:
    """The outcome of a campaign."""

    verdict: Verdict
    counts: Mapping[str, int]
    faults: list[str]
    lines: list[str]


def play(options: Options) -> Outcome:
    """Play a campaign in its own folder."""
    with tempfile.TemporaryDirectory(prefix="edgeshard-soak-", dir=options.dir) as folder:
        campaign = Campaign(Scene(options, Path(os.path.realpath(folder))))
        try:
            campaign.play()
        finally:
            campaign.writers.halt()
            if campaign.merger.life is not None:
                campaign.merger.life.merger.close()
        lines = [f"{name:<42} {value}" for name, value in campaign.table()]
        lines += campaign.lives_table()
        return Outcome(campaign.verdict, campaign.scene.counts, campaign.scene.faults, lines)
