"""Find a column's current name. Pure, and the same in any order in which renames become known.

A rename is an arrow from an old name to a new one. A database knows a set of them per table, and only ever gains some.
A column's name is where its arrows end. They may branch (a class of a later version points all older names to the
newest), as long as all of them end at one name.
"""

from __future__ import annotations

from collections.abc import Iterable

#: (old name, new name)
Arrow = tuple[str, str]


class UnclearError(Exception):
    """Renames that form a circle, or lead a column to two names; the text says which."""


def ends(arrows: Iterable[Arrow]) -> dict[str, str]:
    """Return the current name of each old name; all names in lower case.

    Raises:
        UnclearError: the arrows of a name end nowhere, or at two names.
    """
    targets: dict[str, set[str]] = {}
    for old, new in arrows:
        targets.setdefault(old.lower(), set()).add(new.lower())
    return {old: _end(targets, old) for old in sorted(targets)}


def _end(targets: dict[str, set[str]], old: str) -> str:
    reached, to_visit = set(), [old]
    while to_visit:
        for name in targets.get(to_visit.pop(), ()):
            if name == old:
                raise UnclearError(f"the renames of {old} form a circle: choose a third name for one of them")
            if name not in reached:
                reached.add(name)
                to_visit.append(name)
    found = sorted(reached - targets.keys())
    if len(found) != 1:
        names = " and to ".join(found) or "no name"
        raise UnclearError(
            f"{old} was renamed to {names}: declare all but one of them as renamed to the one that stays"
        )
    return found[0]
