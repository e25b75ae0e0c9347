"""The registry of steps: each is a function over a fleet, with a weight, registered by the module of its family."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import attrs

from tests.support.fleets.shapes import Pick

if TYPE_CHECKING:
    from tests.support.fleets.fleet import Fleet

#: Does the step; returns False if there was nothing to do it with.
Play = Callable[["Fleet", Pick], Any]

FORMS = ("honest", "hostile")


@attrs.frozen
class Step:
    """One kind of step.

    Attributes:
        name: its name, for `--without` and for counts.
        weight: how often it is chosen.
        is_hostile: whether only fleets with hostile participants take it.
        play: does it.
    """

    name: str
    weight: int
    is_hostile: bool
    play: Play


STEPS: dict[str, Step] = {}


def step(weight: int, *, hostile: bool = False) -> Callable[[Play], Play]:
    """Register a step under the name of its function."""

    def register(play: Play) -> Play:
        name = play.__name__
        STEPS[name] = Step(name, weight, hostile, play)
        return play

    return register


def deck(form: str, without: Collection[str] = ()) -> list[Step]:
    """Return the steps of a form, each as often as its weight says."""
    usable = [each for each in STEPS.values() if each.name not in without]
    return [each for each in usable for _ in range(each.weight) if form == "hostile" or not each.is_hostile]
