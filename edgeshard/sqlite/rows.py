"""Rows of a query: tuples whose values are attributes as well."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def row_class(names: tuple[str, ...]) -> Callable[[Iterable[Any]], tuple[Any, ...]]:
    """What makes a row of its values; columns whose names Python cannot have as attributes are _0, _1 ..."""
    made: Any = namedtuple("Row", list(names), rename=True)  # type: ignore[misc]  # the names are known only now
    make: Callable[[Iterable[Any]], tuple[Any, ...]] = made._make
    return make
