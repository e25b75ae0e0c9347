"""Rules that a store follows by itself, after its merges: what is given, checked before anything is done. Pure values.

A rule names what is to go, as the arguments of `Store.prune` do; several are followed one after the other.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import attrs

from edgeshard.errors import ConfigurationError, TableError
from edgeshard.records import declare
from edgeshard.retention import rules
from edgeshard.retention.rules import Rules


class PruneRule(TypedDict, total=False):
    """What `Store(prune=...)` takes, once or in a list: the rules of `Store.prune`, which says what each means."""

    older_than: str | float | datetime.timedelta
    keep_rows: int
    max_bytes: str | int
    deletions_older_than: str | float | datetime.timedelta
    only_pushed: bool
    only_receipted: bool
    table: str | type


_KEYS = tuple(PruneRule.__annotations__)

_WHAT = _KEYS[:4]

_WHOSE = ("only_pushed", "only_receipted")


@attrs.frozen
class Retention:
    """What a store prunes after merges.

    Attributes:
        rules: each in its turn; none: nothing is pruned.
    """

    rules: tuple[Rules, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)


#: Nothing is pruned.
NONE = Retention()


def parse_store_rules(given: PruneRule | Sequence[PruneRule] | None, root: str | os.PathLike[str]) -> Retention:
    """What a store was given.

    Args:
        given: a rule, several, or None.
        root: the store's folder, for errors.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    if given is None:
        return NONE
    if isinstance(given, Mapping):
        return Retention((_rule(given, root, "prune"),))
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigurationError("open store", root, f"prune is a mapping of rules, or a list of these, not {given!r}")
    return Retention(tuple(_rule(rule, root, f"prune[{index}]") for index, rule in enumerate(given)))


def _rule(given: Any, root: str | os.PathLike[str], name: str) -> Rules:
    cause = _refusal(given)
    if cause:
        raise ConfigurationError("open store", root, f"{name}: {cause}")
    for key, value in given.items():
        try:
            _check(key, value)
        except (ValueError, TypeError, OverflowError, TableError) as error:
            raise ConfigurationError("open store", root, f"{name}: {key}={value!r}: {error}") from error
    return rules.parse_rules(
        given.get("older_than"),
        given.get("keep_rows"),
        given.get("max_bytes"),
        bool(given.get("only_pushed")),
        bool(given.get("only_receipted")),
        _table(given),
        given.get("deletions_older_than"),
    )


def _refusal(given: Any) -> str:
    """What is wrong with a rule as a whole, or ""."""
    if not isinstance(given, Mapping):
        return f"a rule is a mapping, such as {{'older_than': '30d'}}, not {given!r}"
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        return f"there is no rule {unknown[0]!r}; there are {', '.join(_KEYS)}"
    if all(given.get(key) is None for key in _WHAT):
        return f"it says of no row that it is to go; give {', '.join(_WHAT[:-1])} or {_WHAT[-1]}"
    if all(given.get(key) for key in _WHOSE):
        return f"give {' or '.join(_WHOSE)}, not both: what is pushed has a receipt, too"
    return ""


def _check(key: str, value: Any) -> None:
    """Refuse a value that cannot be.

    Raises:
        ValueError, TypeError, OverflowError, TableError: it cannot be; the text says what is wanted.
    """
    if value is None:
        return
    if key in ("older_than", "deletions_older_than"):
        rules.age_s(value)
    elif key == "keep_rows":
        rules.row_count(value)
    elif key == "max_bytes":
        rules.size_bytes(value)
    elif key == "table":
        _table({key: value})
    elif not isinstance(value, bool):
        raise ValueError("True or False is wanted")


def _table(given: Mapping[str, Any]) -> str | None:
    table = given.get("table")
    if isinstance(table, type):
        return declare.table_of(table).name
    if table is not None and (not isinstance(table, str) or not table):
        raise ValueError("a table's name, or its class, is wanted")
    return table
