"""Decide which names a table or a column may have, and derive a table's name from its class's."""

from __future__ import annotations

import re
from typing import Final

from edgeshard import format

#: Names of columns and record tables, as a regular expression that can be part of a longer one. They begin with a
#: letter, so they never collide with edgeshard's own columns, which begin with an underscore.
NAME_PATTERN: Final = "[A-Za-z][A-Za-z0-9_]{0,99}"

_NAME: Final = re.compile(NAME_PATTERN)

#: PostgreSQL's own tables have no underscore in front: there, it hides nothing.
_RESERVED: Final = (format.PREFIX, "edgeshard_", "sqlite_")


def is_column_name(name: str) -> bool:
    """Return whether a column may have this name: up to 100 ASCII letters, digits and _, beginning with a letter."""
    return _NAME.fullmatch(name) is not None


def is_reserved(name: str) -> bool:
    """Return whether a name begins like those of SQLite's tables, or of our own in SQLite or in PostgreSQL."""
    return name.lower().startswith(_RESERVED)


def snake_case(name: str) -> str:
    """Convert a class name to the name of its table: ``DoorOpened`` becomes ``door_opened``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
