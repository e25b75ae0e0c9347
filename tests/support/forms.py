"""Give long tests two forms: a short one that always runs, and the full one, marked slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def short_and_full(short: Any, full: Any) -> list[Any]:
    """Return the values of a parameter for the short form, and for the full one, which ``pytest -m slow`` runs.

    Args:
        short: a value, or a tuple of the values of several parameters.
        full: the same for the full form.
    """
    given = [value if isinstance(value, tuple) else (value,) for value in (short, full)]
    return [pytest.param(*given[0], id="short"), pytest.param(*given[1], id="full", marks=pytest.mark.slow)]


def others_slow(values: Iterable[Any], always: Collection[Any]) -> list[Any]:
    """Return the values of a parameter; some always run, and ``pytest -m slow`` runs the others.

    Args:
        values: all values, or tuples of the values of several parameters.
        always: those that always run.
    """
    given = [(value if isinstance(value, tuple) else (value,), value in always) for value in values]
    return [pytest.param(*value, marks=() if is_fast else pytest.mark.slow) for value, is_fast in given]
