"""Decide which names a table or a column may have, and derive a table's name from its class's."""

from __future__ import annotations

import re
from typing import Final

from edgeshard import format

#: A valid name, as a regular expression: letters, digits and _, at most 100, and a letter first. It therefore never
#: collides with a column of edgeshard's own, which all begin with an underscore.
NAME_PATTERN: Final = "[A-Za-z][A-Za-z0-9_]{0,99}"

_NAME: Final = re.compile(NAME_PATTERN)

#: Prefixes that the format and SQLite reserve.
_RESERVED_PREFIXES: Final = (format.PREFIX, "sqlite_")


def is_column_name(name: str) -> bool:
    """Return whether a column that a class declares may have this name."""
    return _NAME.fullmatch(name) is not None and not name.lower().startswith(_RESERVED_PREFIXES)


#: The rule for tables is the same.
is_table_name = is_column_name


def snake_case(name: str) -> str:
    """Convert a class name to the name of its table: ``DoorOpened`` becomes ``door_opened``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
