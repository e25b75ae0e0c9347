"""Enums of each kind that a field may have."""

from __future__ import annotations

import enum


class Colour(enum.Enum):
    """A plain enum."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum whose members are ints."""

    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    """An enum whose members are strs."""

    YES = "yes"
