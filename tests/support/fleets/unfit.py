"""Which rows PostgreSQL cannot take as they are: pure functions over the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeshard.postgres.options import OnInvalid
from tests.support.fleets.model import CURRENT, Row

#: Constraints that exist only on the server: what they say, and which rows violate them, by table.
CHECKS: Mapping[str, tuple[str, Callable[[Row], bool]]] = {
    "agent_data": ("(data->>'n')::numeric % 3 <> 1", lambda row: row.values["data"]["n"] % 3 == 1),
    "photo": ("n % 3 <> 1", lambda row: row.values["n"] % 3 == 1),
    "every": ("n % 3 <> 1", lambda row: row.values["n"] % 3 == 1),
    "lww": ("value <> 7", lambda row: bool(row.values["value"] == 7)),
    "past": ("value <> 7", lambda row: bool(row.values["value"] == 7)),
}

#: The kinds of reasons that do not apply if characters are replaced or escaped.
CHARACTERS = ("nul", "surrogate")

#: More digits than PostgreSQL's numeric has before the point.
TOO_LARGE = "1E+140000"


def violates(row: Row, state: str, checks: frozenset[str]) -> bool:
    """Return whether a row violates a constraint of the server; versions in a history have none."""
    table = row.shape.table
    return table in checks and state == CURRENT and not row.is_tombstone and CHECKS[table][1](row)


def has_unfit_value(row: Row, mode: OnInvalid) -> bool:
    """Return whether a row has a value that PostgreSQL cannot store in any table."""
    fixed = {*row.shape.key, row.shape.conflict.partition(":")[2]}
    return any(_is_unfit(value, "reject" if field in fixed else mode) for field, value in row.values.items())


def is_repaired(row: Row) -> bool:
    """Return whether a row has characters that a push replaces or escapes on request."""
    return any(is_invalid(text) for field, value in row.values.items() for text in texts(value))


def _is_unfit(value: Any, mode: OnInvalid) -> bool:
    if mode == "reject":
        return str(value) == TOO_LARGE or any(map(is_invalid, texts(value)))
    return str(value) == TOO_LARGE or has_equal_names(value, mode)


def is_invalid(text: str) -> bool:
    """Return whether a text has characters that PostgreSQL cannot store."""
    return any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def texts(value: Any) -> Iterator[str]:
    """Yield a text, or all texts in a JSON value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts(item)


def has_equal_names(value: Any, mode: OnInvalid) -> bool:
    """Return whether names of an object become equal by replacing or escaping characters."""
    if isinstance(value, list):
        return any(has_equal_names(item, mode) for item in value)
    if not isinstance(value, dict):
        return False
    names = {repaired(name, mode) for name in value}
    return len(names) < len(value) or any(has_equal_names(item, mode) for item in value.values())


def repaired(value: Any, mode: OnInvalid) -> Any:
    """Return a value as a push sends it."""
    if isinstance(value, str):
        return "".join(_repaired_character(character, mode) for character in value)
    if isinstance(value, list):
        return [repaired(item, mode) for item in value]
    if isinstance(value, dict):
        return {repaired(name, mode): repaired(item, mode) for name, item in value.items()}
    return value


def _repaired_character(character: str, mode: OnInvalid) -> str:
    if not is_invalid(character):
        return character
    return "\ufffd" if mode == "replace" else json.dumps(character).strip('"')
