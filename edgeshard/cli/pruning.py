"""The rules of a prune as arguments, for the verb that prunes and for those that do so by the way."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from edgeshard.cli import arguments
from edgeshard.retention import rules, store_rules
from edgeshard.retention.store_rules import Retention

_T = TypeVar("_T")


def add_rules(parser: argparse.ArgumentParser, prefix: str, does: str = "") -> None:
    """Describe the rules.

    Args:
        parser: a verb's.
        prefix: what the names of the options begin with, such as "--".
        does: what the help of each begins with.
    """
    parser.add_argument(
        f"{prefix}older-than",
        type=_wanted(rules.age_s),
        metavar="AGE",
        help=f"{does}rows that came into this master longer ago: 30d, 12h, 90m (minutes), 45s",
    )
    parser.add_argument(
        f"{prefix}keep-rows",
        type=_wanted(_rows),
        metavar="N",
        help=f"{does}all but the newest N rows, of all tables together",
    )
    parser.add_argument(
        f"{prefix}max-bytes",
        type=_wanted(rules.size_bytes),
        metavar="SIZE",
        help=f"{does}the oldest rows, until the master and its log take no more: 500M, 2G, 512MiB",
    )
    parser.add_argument(
        f"{prefix}deletions-older-than",
        type=_wanted(rules.age_s),
        metavar="AGE",
        help=f"{does}deletions of tables with a key that are older, once all streams and databases have passed them",
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        f"{prefix}only-pushed", action="store_true", help=f"{does}only rows that a PostgreSQL database holds"
    )
    whose.add_argument(
        f"{prefix}only-receipted", action="store_true", help=f"{does}only rows that some other database holds"
    )
    parser.add_argument(
        f"{prefix}table",
        metavar="T",
        type=arguments.name,
        help=f"{does}rows of this table alone, also out of transactions",
    )


def asked_of(options: argparse.Namespace, prefix: str = "") -> rules.Rules:
    """The rules that were given, by options whose names begin with `prefix`."""
    names = ("older_than", "keep_rows", "max_bytes", "only_pushed", "only_receipted", "table", "deletions_older_than")
    return rules.parse_rules(*(getattr(options, prefix + name) for name in names))


def is_narrowed(asked: rules.Rules) -> bool:
    """Whether it is said of which rows the rules are meant."""
    return asked.peer_kinds is not None or asked.table is not None


def retention_of(options: argparse.Namespace) -> Retention:
    """What a merge is to prune by the way."""
    asked = asked_of(options, "prune_")
    return store_rules.NONE if asked.is_empty else Retention((asked,))


def _wanted(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """A parser whose ValueError argparse shows with its text."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _rows(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"a whole number of rows is wanted, not {text!r}")
    return rules.row_count(int(text))
