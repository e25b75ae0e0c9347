"""Find rows that are new in a table whose ids are assigned before the commit, so that they may appear out of order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: How many ids before the last one are queried again.
_REREAD_IDS: Final = 200


class UnorderedIds:
    """The ids that a reader has seen."""

    def __init__(self) -> None:
        self._last = 0
        self._seen: set[int] = set()

    @property
    def after(self) -> int:
        """Query ids above this one."""
        return self._last - _REREAD_IDS

    def new(self, rows: Iterable[tuple[int, int]]) -> list[int]:
        """Return the values of rows that were not seen before.

        Args:
            rows: id and value of all rows above `after`.
        """
        rows = list(rows)
        new = [(number, value) for number, value in rows if number not in self._seen]
        self._last = max([self._last, *(number for number, _ in new)])
        self._seen = {number for number, _ in rows}
        return [value for _, value in new]
