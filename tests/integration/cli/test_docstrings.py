"""The first docstrings that a user sees begin with an example, and it runs."""

from __future__ import annotations

import doctest
import importlib.metadata
import pydoc
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
    assert found.keys() <= set(edgeshard.__all__)
    assert all(getattr(edgeshard, name) is value and value.__doc__ for name, value in found.items())
    assert all(name in (errors.__doc__ or "") for name in found)


def test_the_package_says_its_version_and_exports_only_what_exists() -> None:
    assert edgeshard.__version__ == importlib.metadata.version("edgeshard")
    assert len(edgeshard.__all__) == len(set(edgeshard.__all__))
    assert all(hasattr(edgeshard, name) for name in edgeshard.__all__)


@pytest.mark.parametrize("documented", [edgeshard, edgeshard.Store], ids=["edgeshard", "edgeshard.Store"])
def test_help_begins_with_the_example(documented: object) -> None:
    text = pydoc.plain(pydoc.render_doc(documented))
    assert text.index(">>> ") < 600
