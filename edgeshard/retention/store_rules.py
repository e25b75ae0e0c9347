"""Parse the `prune=` argument of a store: rules that are followed after each merge. Pure values.

Each rule has the keys that `Store.prune` has as arguments; several rules are followed one after the other. All are
checked before anything is done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from edgeshard.errors import ConfigurationError, TableError, quoted
from edgeshard.options import PruneRule
from edgeshard.records import declare
from edgeshard.retention import quantities, rules
from edgeshard.retention.rules import Rules

_KEYS = tuple(PruneRule.__annotations__)

#: The keys that select rows, or streams to forget; a rule has at least one of them.
_SELECTING = _KEYS[:5]

#: The keys that require a peer; a rule has at most one of them.
_REQUIRING_PEER = ("only_pushed", "only_receipted")


@attrs.frozen
class Retention:
    """What a store prunes after its merges.

    Attributes:
        rules: followed in this order; if empty, nothing is pruned.
    """

    rules: tuple[Rules, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)


#: Nothing is pruned.
NONE = Retention()


def parse_store_rules(prune: PruneRule | Sequence[PruneRule] | None, root: str | os.PathLike[str]) -> Retention:
    """Parse the `prune=` argument.

    Args:
        prune: a rule, several rules, or None.
        root: the store's folder, for errors.

    Raises:
        ConfigurationError: one of them is invalid.
    """
    if prune is None:
        return NONE
    if isinstance(prune, Mapping):
        return Retention((_parse_rule(prune, root, "prune"),))
    if isinstance(prune, str) or not isinstance(prune, Sequence):
        raise ConfigurationError(
            "open store", root, f"prune must be a dict of rules, or a list of dicts, got {quoted(prune)}"
        )
    return Retention(tuple(_parse_rule(rule, root, f"prune[{index}]") for index, rule in enumerate(prune)))


def _parse_rule(rule: Any, root: str | os.PathLike[str], name: str) -> Rules:
    mistake = _mistake(rule)
    if mistake:
        raise ConfigurationError("open store", root, f"{name}: {mistake}")
    for key, value in rule.items():
        try:
            _check(key, value)
        except (ValueError, TypeError, OverflowError, TableError) as error:
            raise ConfigurationError("open store", root, f"{name}: {key}={quoted(value)}: {error}") from error
    return rules.parse_rules(
        rule.get("older_than"),
        rule.get("keep_rows"),
        rule.get("max_bytes"),
        bool(rule.get("only_pushed")),
        bool(rule.get("only_receipted")),
        _parse_table(rule.get("table")),
        rule.get("deletions_older_than"),
        forget_after=rule.get("forget_after"),
    )


def _mistake(rule: Any) -> str:
    """Return what is wrong with a rule as a whole, or ""."""
    if not isinstance(rule, Mapping):
        return f"a rule must be a dict such as {{'older_than': '30d'}}, got {quoted(rule)}"
    unknown = [key for key in rule if key not in _KEYS]
    if unknown:
        return f"unknown key {quoted(unknown[0])}; a rule has the keys {', '.join(_KEYS)}"
    if all(rule.get(key) is None for key in _SELECTING):
        return f"rule selects nothing; set at least one of {', '.join(_SELECTING[:-1])} and {_SELECTING[-1]}"
    if all(rule.get(key) for key in _REQUIRING_PEER):
        return f"set {' or '.join(_REQUIRING_PEER)}, not both: pushed rows have a receipt as well"
    return ""


def _check(key: str, value: Any) -> None:
    """Refuse an invalid value.

    Raises:
        ValueError, TypeError, OverflowError, TableError: it is invalid; the text says what is expected.
    """
    if value is None:
        return
    if key in ("older_than", "deletions_older_than", "forget_after"):
        quantities.age_s(value)
    elif key == "keep_rows":
        quantities.row_count(value)
    elif key == "max_bytes":
        quantities.size_bytes(value)
    elif key == "table":
        _parse_table(value)
    elif not isinstance(value, bool):
        raise ValueError("must be True or False")


def _parse_table(table: Any) -> str | None:
    if isinstance(table, type):
        return declare.table_of(table).name
    if table is not None and (not isinstance(table, str) or not table):
        raise ValueError("must be the name of a table, or its class")
    return table
