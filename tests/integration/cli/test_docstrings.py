"""The first docstrings that a user sees begin with an example, and it runs."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import edgeshard
from edgeshard import errors


@pytest.mark.parametrize("documented", [edgeshard, edgeshard.Store], ids=["edgeshard", "edgeshard.Store"])
def test_the_example_comes_first_and_runs(documented: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = documented.__doc__ or ""
    assert text.split("\n\n")[1].lstrip().startswith(">>>")
    example = doctest.DocTestParser().get_doctest(text, {"Store": edgeshard.Store}, "example", None, 0)
    assert len(example.examples) >= 3
    assert doctest.TestResults(0, len(example.examples)) == doctest.DocTestRunner().run(example)


def test_every_error_can_be_imported_from_the_package_and_says_in_its_docstring_what_it_means() -> None:
    found = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert all(getattr(edgeshard, name) is value and value.__doc__ for name, value in found.items())
    assert all(name in (errors.__doc__ or "") for name in found)
