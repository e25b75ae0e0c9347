"""The actors of the soak: writers, one merger, other commands, and one that replaces the folder of the shards.

Every actor draws its actions from the seed, but their timing depends on the machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import attrs

import edgeshard
from edgeshard.files import locks
from tests.crash.soak.judge import Written
from tests.crash.soak.writer import IN_USE, PACES, SESSIONS_MAX, Job, Ledger, Session
from tests.support.merging_processes import PATIENCE_S, Figures, Kind, Merger, has_option, wait_until
from tests.support.project import PROJECT

#: The watcher's rescan, in seconds: much shorter than the default, so that each replaced folder can wait for one.
RESCAN_S = 5.0
#: A pass may be under way, and the machine busy, when something is to be noticed or to end.
SLACK_S = 10.0
#: A merger told to end finishes the current shard and makes a final pass over what a burst of all writers left.
END_S = 30.0


@attrs.frozen
class Options:
    """Options of the command line.

    Attributes:
        tempo: how many times more often things happen than in a long campaign.
        awaited: events that must happen at least once; on a busy machine the soak waits for them up to a minute longer.
    """

    seconds: float
    seed: int = 0
    agents: int = 12
    tempo: float = 1.0
    kind: Kind = "watch"
    sabotage: str = ""
    dir: str | None = None
    awaited: tuple[str, ...] = ()


@attrs.define
class Scene:
    """What the actors share.

    Attributes:
        counts: how often each event happened.
        faults: descriptions of what went wrong.
        sessions: what the writers recorded, by session number.
        disturbed: when the folder of the shards was not what a merger may expect, as (from, to).
        halted: when a merger was stopped by a signal, as (from, to).
    """

    options: Options
    folder: Path
    counts: Counter[str] = attrs.Factory(Counter)
    faults: list[str] = attrs.Factory(list)
    sessions: dict[int, Written] = attrs.Factory(dict)
    disturbed: list[tuple[float, float]] = attrs.Factory(list)
    halted: list[tuple[float, float]] = attrs.Factory(list)

    @property
    def root(self) -> Path:
        return self.folder / "data"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    def rng(self, actor: object) -> random.Random:
        """Return a generator for the choices of one actor, independent of the others."""
        return random.Random(f"{self.options.seed}-{actor}")

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"FAULT {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def disturbing(self) -> Iterator[None]:
        """Mark the block as a time in which the shard files are moved by hand."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.disturbed.append((began, time.monotonic()))

    def is_disturbed(self, began: float) -> bool:
        """Return whether that was so at any moment since."""
        return any(to >= began for _, to in self.disturbed)


class Actor(Protocol):
    """Acts whenever its time has come."""

    def step(self, now: float) -> None: ...


# -- the writers ------------------------------------------------------------------------------------------------------


@attrs.define
class Life:
    """A writer process, from its start to its end.

    Attributes:
        codes: the exit codes that it may have after what was done to it.
    """

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    began: float
    killed_at: float
    codes: set[int] = attrs.Factory(lambda: {0})


class Writers:
    """Keeps a number of writers running; when one ends, another starts after a while."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._lives = 0
        self._slots = [Slot(self, scene, number) for number in range(scene.options.agents)]
        (scene.folder / "writers").mkdir()

    def step(self, now: float) -> None:
        for slot in self._slots:
            slot.step(now)

    def start(self, sessions: list[Session], killed_at: float = float("inf")) -> Life:
        self._lives += 1
        stem = self._scene.folder / "writers" / str(self._lives)
        ledger, log = stem.with_suffix(".ledger"), stem.with_suffix(".log")
        Ledger.make(ledger, len(sessions))
        job = Job(str(self._scene.root), str(ledger), self._lives, sessions)
        command = [sys.executable, "-m", "tests.crash.soak.writer", job.as_json()]
        with open(log, "wb") as file:
            process = subprocess.Popen(command, stderr=file, cwd=PROJECT)
        self._scene.counts["writers started"] += 1
        return Life(job, process, log, time.monotonic(), killed_at)

    def collect(self, life: Life) -> None:
        """Collect what an ended process recorded."""
        if life.process.returncode not in life.codes:
            self._scene.fault(f"writer {life.job.life} ended with {life.process.returncode}: {tail(life.log)}")
        refused = life.log.read_text(errors="replace").count(IN_USE)
        self._scene.counts["openings refused beside a stopped merger"] += refused
        # a merger that is stopped while it removes a shard holds its lock; a running one does so for milliseconds
        if refused and not any(to >= life.began for _, to in self._scene.halted):
            self._scene.fault(f"writer {life.job.life} was refused its own shard: {tail(life.log)}")
        for place, entry in enumerate(Ledger.read(Path(life.job.ledger))):
            if entry.begun:
                number = life.job.life * SESSIONS_MAX + place
                self._scene.sessions[number] = Written(life.job.sessions[place].agent, entry)
        for path in (Path(life.job.ledger), life.log):
            path.unlink()

    def halt(self) -> None:
        """Let all writers close their shards and end, and start no others."""
        for slot in self._slots:
            slot.tell_to_end()
        for slot in self._slots:
            slot.wait()


class Slot:
    """Runs one writer after another: two of three under a lasting name, the third under a name used once."""

    def __init__(self, writers: Writers, scene: Scene, number: int) -> None:
        self._writers, self._scene, self._number = writers, scene, number
        self._rng = scene.rng(f"writer-{number}")
        self._life: Life | None = None
        self._next_at = 0.0
        self._named = 0

    def step(self, now: float) -> None:
        life = self._life
        if life is None:
            if now >= self._next_at:
                self._life = self._begin(now)
        elif life.process.poll() is not None:
            self.wait()
            self._next_at = now + self._rng.choice([0.0, self._rng.uniform(0.0, 3.0)])
        elif now >= life.killed_at and life.codes == {0}:
            life.process.kill()
            life.codes.add(-signal.SIGKILL)
            self._scene.counts["writers killed"] += 1

    def _begin(self, now: float) -> Life:
        rng, tempo = self._rng, self._scene.options.tempo
        lasting = self._number % 3 < 2
        length_s = (rng.uniform(2.0, 40.0) if lasting else rng.uniform(0.5, 8.0)) / tempo
        if rng.random() < 0.2:  # a hasty one: each opening meets a merger that finds the agent gone, or back again
            sessions = [self._session(lasting, 0.05) for _ in range(rng.randint(10, SESSIONS_MAX))]
        else:
            sessions = [self._session(lasting, length_s) for _ in range(rng.randint(1, 3 if lasting else 6))]
        is_killed = rng.random() < 0.4
        # the first part of a second is the start of the interpreter
        killed_at = now + rng.uniform(0.05, 0.3 + length_s) if is_killed else float("inf")
        return self._writers.start(sessions, killed_at)

    def _session(self, lasting: bool, length_s: float) -> Session:
        rng = self._rng
        self._named += not lasting
        # upper case and spaces: names whose file has a digest in its own
        name = f"agent-{self._number}" if lasting else f"Job {self._number}.{self._named}"
        pace = rng.choice(sorted(PACES))
        durability = rng.choice(["process", "process", "process", "power"])
        return Session(name, pace, rng.uniform(0.0, length_s), rng.choice([1, 50, 5_000, 20_000]), durability)

    def tell_to_end(self) -> None:
        if self._life is not None:
            self._life.codes.add(-signal.SIGTERM)  # it may not have reached the line that handles the signal
            self._life.process.terminate()

    def wait(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                life.process.wait(PATIENCE_S)
            if life.process.poll() is None:
                self._scene.fault(f"writer {life.job.life} does not end")
                life.process.kill()
                life.process.wait()
            self._writers.collect(life)


# -- the merger -------------------------------------------------------------------------------------------------------


@attrs.define
class MergerLife:
    """A merger process, from its start to its end, with samples of its figures.

    Attributes:
        samples: its figures, and when they were taken, in seconds.
    """

    number: int
    merger: Merger
    began: float
    ends_at: float
    interval_s: float
    samples: list[tuple[float, Figures]] = attrs.Factory(list)
    stopped_at: float = 0.0
    stopped_until: float = 0.0
    ended_by: str = ""


class MergerActor:
    """Runs one merger at a time, and disturbs it in every way."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._rng = scene.rng("merger")
        self.lives: list[MergerLife] = []
        self.life: MergerLife | None = None
        self._start_at = 0.0
        self._signal_at = 0.0

    def step(self, now: float) -> None:
        life = self.life
        if life is None:
            if now >= self._start_at:
                self._begin(now)
        elif life.merger.process.poll() is not None:
            self._scene.fault(
                f"merger {life.number} ended with {life.merger.process.returncode}: {tail(life.merger.log)}"
            )
            self._buried("itself")
        elif life.stopped_until:
            if now >= life.stopped_until:
                self.go_on()
        elif not life.merger.is_ready:
            self._check_started(life, now)
        elif now >= life.ends_at:
            self._end()
        elif now >= self._signal_at:
            self._disturb(life, now)

    def _begin(self, now: float) -> None:
        rng, tempo = self._rng, self._scene.options.tempo
        # long lives show growth, short ones meet each step of a merge with their end
        length_s = rng.choice([rng.uniform(0.2, 8.0)] * 3 + [rng.uniform(5.0, 20.0), rng.uniform(120.0, 300.0)]) / tempo
        interval_s = rng.choice([0.05, 0.2, 1.0])
        given: list[object] = ["--interval", interval_s, "--rescan", RESCAN_S]
        given += ["--observer", rng.choice(["auto", "native", "polling"])]
        given += rng.choice([[], ["--log-format", "json"], self._metrics()])
        number = len(self.lives) + 1
        merger = Merger(self._scene.root, self._scene.folder, *given, kind=self._scene.options.kind, name=f"m{number}")
        self.life = MergerLife(number, merger, now, now + length_s, interval_s)
        self.lives.append(self.life)
        self._signal_at = now + rng.uniform(1.0, 10.0) / tempo

    def _metrics(self) -> list[object]:
        return ["--metrics-file", self._scene.root / "merger.prom"] if has_option("--metrics-file") else []

    def _check_started(self, life: MergerLife, now: float) -> None:
        if now > life.began + PATIENCE_S:
            self._scene.fault(f"merger {life.number} is not ready after {PATIENCE_S:g} s: {tail(life.merger.log)}")
            life.merger.process.kill()
            life.merger.process.wait()
            self._buried("kill")

    def _disturb(self, life: MergerLife, now: float) -> None:
        """Disturb the merger in a way that it must survive."""
        if self._rng.random() < 0.5:
            life.merger.process.send_signal(signal.SIGHUP)
            self._scene.counts["mergers told to rescan"] += 1
        else:
            life.merger.process.send_signal(signal.SIGSTOP)
            life.stopped_until = now + self._rng.uniform(0.1, 3.0)
            life.stopped_at = now
            self._scene.halted.append((now, float("inf")))
            self._scene.counts["mergers stopped for a moment"] += 1
        self._signal_at = now + self._rng.uniform(1.0, 10.0) / self._scene.options.tempo

    def go_on(self) -> None:
        if self.life is not None and self.life.stopped_until:
            self.life.merger.process.send_signal(signal.SIGCONT)
            self._scene.halted[-1] = (self.life.stopped_at, time.monotonic() + 1.0)  # it continues from there
            self.life.stopped_until = 0.0

    def _end(self) -> None:
        how = self._rng.choice(["kill", "kill", "term", "int", "twice"])
        if how == "kill":
            self._kill()
        else:
            self.finish(how)
        self._start_at = time.monotonic() + self._rng.choice([0.0, self._rng.uniform(0.0, 3.0)])

    def _kill(self) -> None:
        if self.life is not None:
            self.life.merger.process.kill()
            self.life.merger.process.wait()
            self._buried("kill")

    def finish(self, how: str) -> None:
        """End the merger, and leave it the time that it needs."""
        life = self.life
        if life is None:
            return
        number = signal.SIGINT if how == "int" else signal.SIGTERM
        if how == "twice":
            life.merger.process.send_signal(number)
            time.sleep(self._rng.uniform(0.0, 0.3))
        # the second may arrive after the first took effect, when signals are no longer handled
        expected = (0, 130, -number) if how == "twice" else (0,)
        try:
            code = life.merger.end(number, END_S)
            if code not in expected:
                self._scene.fault(f"merger {life.number}, {how}: exit code {code}: {tail(life.merger.log)}")
        except subprocess.TimeoutExpired:
            self._scene.fault(f"merger {life.number}, {how}: not over in {END_S:g} s: {tail(life.merger.log)}")
        self._buried(how)

    def _buried(self, how: str) -> None:
        life, self.life = self.life, None
        if life is None:
            return
        life.ended_by = how
        life.merger.close()
        self._scene.counts[f"mergers ended by {how}"] += 1
        if "Traceback" in life.merger.log.read_text(errors="replace"):
            self._scene.fault(f"merger {life.number}: {tail(life.merger.log)}")

    def ensure(self) -> MergerLife:
        """Make sure that a merger runs and watches."""
        self.go_on()
        if self.life is None or self.life.merger.process.poll() is not None:
            self.step(time.monotonic())
            self._start_at = 0.0
            self.step(time.monotonic())
        if self.life is None:
            raise AssertionError("a merger was to begin")
        try:
            self.life.merger.wait_ready()
        except (TimeoutError, RuntimeError) as error:
            self._scene.fault(f"merger {self.life.number}: {error}")
        return self.life


# -- commands beside --------------------------------------------------------------------------------------------------


class Errand:
    """Runs a command every so often, one at a time.

    Attributes:
        codes: how often each exit code occurred.
    """

    def __init__(
        self, scene: Scene, name: str, every_s: tuple[float, float], command: Callable[..., list[str]]
    ) -> None:
        self._scene, self.name, self._command = scene, name, command
        self._rng = scene.rng(name)
        self._every_s = every_s
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._next_at = time.monotonic() + self._pause()
        self._out, self._log = (scene.folder / f"{name}.{suffix}" for suffix in ("out", "log"))
        self.codes: Counter[int] = Counter()

    def _pause(self) -> float:
        return self._rng.uniform(*self._every_s) / self._scene.options.tempo

    def step(self, now: float) -> None:
        if self._process is not None:
            if self._process.poll() is not None:
                self._ended(self._process.returncode)
                self._next_at = now + self._pause()
        elif now >= self._next_at:
            self._began = now
            with open(self._out, "wb") as out, open(self._log, "wb") as log:
                command = [sys.executable, "-m", *self._command(self._rng)]
                self._process = subprocess.Popen(command, stdout=out, stderr=log)

    def _ended(self, code: int) -> None:
        self._process = None
        self.codes[code] += 1
        if code in (0, 75) or (code == 3 and self._scene.is_disturbed(self._began)):
            return
        if code == 3 and any(to >= self._began for _, to in self._scene.halted):
            return  # stopped while it removed a shard, a merger keeps it locked: a dry run says so
        self._scene.fault(f"{self.name}: exit code {code}: {tail(self._out)} {tail(self._log)}")

    def wait(self) -> None:
        if self._process is not None:
            self._process.wait(PATIENCE_S)
            self._ended(self._process.returncode)


def errands(scene: Scene) -> list[Errand]:
    root = str(scene.root)
    merges: tuple[list[str], ...] = ([], ["--lock-wait", "3"], ["--lock-wait", "0.2"], ["--dry-run"])
    sql = "select agent_id, count(*) from _edgeshard_streams group by agent_id"
    return [
        Errand(scene, "cron", (3.0, 20.0), lambda rng: ["edgeshard.merge", root, "--json", *rng.choice(merges)]),
        Errand(
            scene, "query", (5.0, 20.0), lambda rng: ["edgeshard", "query", root, rng.choice(["--json", "--csv"]), sql]
        ),
        Errand(scene, "verify", (45.0, 120.0), lambda _: ["edgeshard", "verify", root, "--json"]),
    ]


# -- the folder of the shards -----------------------------------------------------------------------------------------


class FolderActor:
    """Moves the folder of the shards away, puts another in its place, and brings the shards back later.

    By then all writers have closed their shards, and the merger is between two passes: a file that SQLite is about to
    open must not be renamed (https://sqlite.org/howtocorrupt.html). But the merger keeps running, and watches a folder
    that is no longer there.
    """

    def __init__(self, scene: Scene, writers: Writers, merger: MergerActor, beside: Sequence[Errand]) -> None:
        self._scene, self._writers, self._merger, self._beside = scene, writers, merger, beside
        self._rng = scene.rng("folder")
        self._away: list[tuple[float, Path]] = []
        self._next_at = time.monotonic() + self._pause()
        self.noticed_s: list[float] = []

    def _pause(self) -> float:
        return self._rng.uniform(60.0, 180.0) / self._scene.options.tempo

    def step(self, now: float) -> None:
        if self._away and now >= self._away[0][0]:
            self._bring_back(self._away.pop(0)[1])
        if now >= self._next_at:
            self._replace()
            self._next_at = time.monotonic() + self._pause()

    def _replace(self) -> None:
        life = self._merger.ensure()
        for errand in self._beside:
            errand.wait()
        # the last rows of the writers are not merged yet: they go away with the folder
        held = locks.lock(self._scene.root / "merge.lock", PATIENCE_S)
        if held is None:
            self._scene.fault(f"merge.lock is held for {PATIENCE_S:g} s")
            return
        try:
            self._writers.halt()
            away = self._scene.root.with_name(f"shards.away{self._scene.counts['folders replaced']}")
            with self._scene.disturbing():
                os.rename(self._scene.shards, away)
                time.sleep(self._rng.choice([0.0, 0.3]))
                self._scene.shards.mkdir(mode=0o700)
        finally:
            held.release()
        self._scene.counts["folders replaced"] += 1
        self._scene.counts["shards moved away"] += len(list(away.glob("*.db")))
        self._away.append((time.monotonic() + self._rng.uniform(5.0, 60.0) / self._scene.options.tempo, away))
        self._probe(life)

    def _probe(self, life: MergerLife) -> None:
        """Check that the merger finds a row in the new folder by itself."""
        agent = f"probe-{len(self.noticed_s)}"
        probe = self._writers.start([Session(agent, "flood", 5.0, 10, "process")])
        probe.process.wait(PATIENCE_S)
        self._writers.collect(probe)
        store = edgeshard.Store(self._scene.root)
        sql = "select count(*) from _edgeshard_streams where agent_id = ?"
        bound_s = RESCAN_S + life.interval_s + SLACK_S
        try:
            took_s = wait_until(lambda: store.query(sql, (agent,)) == [(1,)], "noticed", bound_s, every_s=0.05)
            self.noticed_s.append(took_s)
        except TimeoutError:
            self._scene.fault(f"the new folder was not noticed within {bound_s:g} s: {tail(life.merger.log)}")

    def bring_all_back(self) -> None:
        while self._away:
            self._bring_back(self._away.pop()[1])

    def _bring_back(self, away: Path) -> None:
        with self._scene.disturbing():
            for path in sorted(away.glob("*.db")):
                self._move_back(path)
        left = [name for name in os.listdir(away) if not name.endswith((".lock", "-shm"))]
        self._scene.counts["files left half-made"] += len(left)
        if unknown := [name for name in left if ".new" not in name]:
            self._scene.fault(f"left in the folder that was away: {unknown}")
        shutil.rmtree(away)

    def _move_back(self, path: Path) -> None:
        """Move a shard in under a free name, its WAL first: without its WAL a database loses rows."""
        for stem in (path.stem, f"{path.stem}-{path.parent.suffix[1:]}"):
            target = self._scene.shards / f"{stem}.db"
            held = locks.lock(target.with_suffix(".lock"))
            if held is None:
                continue
            try:
                if target.exists():
                    continue
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}-wal", f"{target}-wal")
                os.rename(path, target)
                self._scene.counts["shards brought back"] += 1
                return
            finally:
                held.release()
        self._scene.fault(f"{path.name} could not be brought back")


def tail(log: Path) -> str:
    """Return the end of what a process wrote."""
    return " ".join(log.read_text(errors="replace")[-1500:].split())
