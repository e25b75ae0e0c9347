"""Renamed columns: which name a column has in the end. Pure, and the same in whatever order renames become known.

A rename is an arrow from an old name to a new one. A database knows a set of them for each table, and only ever gains
some. A column's name is where its arrows end: they may branch (a class of a later version leads all older names to the
newest), as long as all of them end at one name.
"""

from __future__ import annotations

from collections.abc import Iterable

Arrow = tuple[str, str]


class UnclearError(Exception):
    """Renames that lead in a circle, or a column to two names; its text says which."""


def ends(arrows: Iterable[Arrow]) -> dict[str, str]:
    """Where each old name ends; all names in lower case.

    Raises:
        UnclearError: it ends nowhere, or at two names.
    """
    leads: dict[str, set[str]] = {}
    for old, new in arrows:
        leads.setdefault(old.lower(), set()).add(new.lower())
    return {old: _end(leads, old) for old in sorted(leads)}


def _end(leads: dict[str, set[str]], old: str) -> str:
    reached, waiting = set(), [old]
    while waiting:
        for name in leads.get(waiting.pop(), ()):
            if name == old:
                raise UnclearError(f"the renames of {old} lead back to it: one of them must choose a third name")
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    found = sorted(reached - leads.keys())
    if len(found) != 1:
        names = " and to ".join(found) or "no name"
        raise UnclearError(f"{old} was renamed to {names}: name all but one of these as renamed to the one that stays")
    return found[0]
