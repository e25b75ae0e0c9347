"""The docstring of a package that lists its modules names all of them, each once, and no others.

A list has one module, or several with commas between them, at the beginning of a line. Their description follows after
two spaces or more, or in the next line, indented. A subpackage has a slash after its name. Descriptions may name modules
too; that does not count.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "edgeshard"

#: The packages whose docstrings list their modules; small ones and the command line, which has `verbs`, do not.
LISTING = {
    "bench", "bench/costs", "bench/goals", "bench/report", "merge", "postgres", "records", "retention", "shard",
}  # fmt: skip

_NAMES = r"(?:[a-z0-9_]+/?)(?:, [a-z0-9_]+/?)*"
_ENTRY = re.compile(rf"(?P<indent> *)(?P<names>{_NAMES})(?P<description> {{2,}}\S.*)?")


def listed(docstring: str) -> list[str]:
    """Return the names that the docstring's list of modules has, in their order."""
    lines = docstring.splitlines()
    found: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        entry = _ENTRY.fullmatch(line)
        if entry and (entry["description"] or re.match(rf"{entry['indent']} +\S", following)):
            found += entry["names"].split(", ")
    return found


def modules(package: Path) -> list[str]:
    """Return the names of a package's modules, and those of its subpackages with a slash."""
    files = [path.stem for path in package.glob("*.py") if not path.stem.startswith("__")]
    return sorted(files + [f"{path.parent.name}/" for path in package.glob("*/__init__.py")])


def docstring_of(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""


def test_the_packages_that_list_their_modules_are_these() -> None:
    packages = [path.parent for path in PACKAGE.rglob("__init__.py")]
    assert LISTING == {str(path.relative_to(PACKAGE)) for path in packages if listed(docstring_of(path))}


@pytest.mark.parametrize("name", sorted(LISTING))
def test_a_list_of_modules_names_exactly_those_that_exist(name: str) -> None:
    assert modules(PACKAGE / name) == sorted(listed(docstring_of(PACKAGE / name)))


def test_names_are_found_in_lists_and_not_in_prose() -> None:
    docstring = """Do something.

once
    do it once
first, second  these do it in turns; so does third
  inner        done by both
parts/         the parts

==========  =======
watcher     watches
==========  =======

It is then
done. This is
    1. BEGIN
    also prose
"""
    assert ["once", "first", "second", "inner", "parts/", "watcher"] == listed(docstring)
