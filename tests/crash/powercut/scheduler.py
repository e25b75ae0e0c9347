"""Run actors in threads, exactly one at a time; the seed decides which is next, so a seed replays exactly.

Nothing here reads the wall clock. Time is a number that grows a little with each step, and when an actor sleeps.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs

#: The duration of a step, in seconds of simulated time.
STEP_S = 10e-6
#: The probability that another actor continues at a failpoint.
FAILPOINT_CHANCE = 0.2


class Killed(BaseException):
    """Ends a process in the middle of its work."""


def _taken_lock() -> Any:
    """Return a lock that is held, so the next one to take it waits: a semaphore at a third of the cost."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@attrs.define(eq=False)
class Actor:
    """Represents a process.

    Attributes:
        name: its name in the log.
        lives: its tasks, one after the other; a kill ends one of them.
        fatal_step: the number of its step at which it is killed; None: never.
    """

    name: str
    lives: Sequence[Callable[[], None]]
    fatal_step: int | None = None
    steps: int = 0
    is_killed: bool = False
    is_done: bool = False
    error: BaseException | None = None
    _turn: Any = attrs.Factory(_taken_lock)

    def resume(self) -> None:
        """Let the actor run."""
        self._turn.release()

    def wait(self) -> None:
        """Wait until the actor may run."""
        self._turn.acquire()


@attrs.frozen
class Cut:
    """The moment when everything ends: at the n-th recorded operation, or before or right after the n-th sync."""

    number: int
    at_sync: bool
    after: bool = False


class Scheduler:
    """Runs actors until all are done or everything ends.

    Args:
        rng: decides who runs.
        switch_chance: the probability that another actor runs after a step.
        cut: when everything ends; None: never.
        now_s: the simulated time.

    Attributes:
        now_s: the simulated time, in seconds.
        has_crashed: whether everything has ended.
        killed: how many actors were killed individually.
        operations: how many operations changed the disk, or would have.
        syncs: how many of them were syncs.
    """

    def __init__(self, rng: random.Random, switch_chance: float, cut: Cut | None, now_s: float) -> None:
        self.now_s = now_s
        self.has_crashed = False
        self.killed = 0
        self._rng = rng
        self._switch_chance = switch_chance
        self._cut = cut
        self.operations = 0
        self.syncs = 0
        self._actors: list[Actor] = []
        self._threads: set[int] = set()
        self._running: Actor | None = None
        self._all_done = _taken_lock()

    def is_actor(self) -> bool:
        """Return whether the caller's thread is an actor."""
        return threading.get_ident() in self._threads

    @property
    def running(self) -> Actor:
        """Return the actor whose turn it is."""
        assert self._running is not None
        return self._running

    def run(self, actors: list[Actor]) -> None:
        """Let the actors run until each of them is done or killed."""
        self._actors = actors
        threads = [threading.Thread(target=self._live, args=(actor,), daemon=True) for actor in actors]
        for thread in threads:
            thread.start()
        self._pass_on(self._rng.choice(actors))
        self._all_done.acquire()
        for thread in threads:
            thread.join()

    # -- called by actors ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let another actor run, perhaps.

        Raises:
            Killed: the actor is at its end.
        """
        actor = self.running
        if actor.is_killed:
            raise Killed
        actor.steps += 1
        self.now_s += STEP_S
        if actor.fatal_step is not None and actor.steps >= actor.fatal_step:
            actor.fatal_step, actor.is_killed = None, True
            self.killed += 1
            raise Killed
        if self._rng.random() < self._switch_chance:
            self._switch(self._rng.choice(self._alive()))

    def failpoint(self) -> None:
        """Let another actor run, probably, and for long.

        Raises:
            Killed: the actor is at its end.
        """
        self.step()
        if self._rng.random() < FAILPOINT_CHANCE:
            self._switch(self._rng.choice(self._alive()))

    def operation(self, *, sync: bool = False) -> None:
        """Let another actor run, perhaps, or end everything, before an operation that changes the disk.

        Raises:
            Killed: the actor is at its end.
        """
        self.step()
        self.operations += 1
        self.syncs += sync
        cut = self._cut
        if cut is not None and not cut.after and cut.number == (self.syncs if cut.at_sync else self.operations):
            self.crash()

    def synced(self) -> None:
        """End everything, perhaps, right after a sync.

        Raises:
            Killed: the cut came.
        """
        cut = self._cut
        if cut is not None and cut.after and cut.at_sync and cut.number == self.syncs:
            self.crash()

    def crash(self) -> None:
        """End all actors.

        Raises:
            Killed: always.
        """
        self.has_crashed = True
        for actor in self._actors:
            actor.is_killed = True
        raise Killed

    def sleep(self, seconds: float) -> None:
        """Let another actor run, if there is one.

        Raises:
            Killed: the actor is at its end.
        """
        actor = self.running
        if actor.is_killed:
            raise Killed
        self.now_s += seconds
        others = [other for other in self._alive() if other is not actor]
        if others:
            self._switch(self._rng.choice(others))

    # -- passing the turn ---------------------------------------------------------------------------------------------

    def _alive(self) -> list[Actor]:
        return [actor for actor in self._actors if not actor.is_done]

    def _pass_on(self, actor: Actor) -> None:
        self._running = actor
        actor.resume()

    def _switch(self, other: Actor) -> None:
        actor = self.running
        if other is actor:
            return
        self._pass_on(other)
        actor.wait()
        if actor.is_killed:
            raise Killed

    def _live(self, actor: Actor) -> None:
        self._threads.add(threading.get_ident())
        actor.wait()
        try:
            for life in actor.lives:
                self._live_once(actor, life)
        finally:
            actor.is_done = True
            alive = self._alive()
            if alive:
                self._pass_on(alive[0] if self.has_crashed else self._rng.choice(alive))
            else:
                self._all_done.release()

    def _live_once(self, actor: Actor, life: Callable[[], None]) -> None:
        if self.has_crashed or actor.error is not None:
            return
        try:
            life()
        except BaseException as error:  # the oracle judges it
            if not actor.is_killed:
                actor.error = error
        actor.is_killed = self.has_crashed
