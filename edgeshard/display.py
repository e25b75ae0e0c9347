"""Show values in little space: texts that are cut to fit on a screen, and HTML tables for notebooks.

The HTML has no scripts, no links and no colours, so it looks right in light and dark notebooks. All text in it is
escaped.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from edgeshard.errors import printable

#: The most characters of one value, of a list of items, and of a cell of an HTML table.
VALUE_CHARACTERS: Final = 100

LIST_CHARACTERS: Final = 1_600

CELL_CHARACTERS: Final = 300

#: The most rows and columns of an HTML table, and items of a list.
ROWS_MAX: Final = 20

COLUMNS_MAX: Final = 20


class _Shortened(reprlib.Repr):
    """The standard library's shortened reprs, also of bytes, which it would write in full first."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = characters
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 6
        self.maxlevel = 3

    def repr_tuple(self, value: tuple[Any, ...], level: int) -> str:
        return f"({self._items(value, level)}{',' if len(value) == 1 else ''})"

    def repr_list(self, value: list[Any], level: int) -> str:
        return f"[{self._items(value, level)}]"

    def _items(self, value: Sequence[Any], level: int) -> str:
        if level <= 0 and value:
            return self.fillvalue
        shown = [self.repr1(item, level - 1) for item in value[: self.maxlist]]
        more = [f"... {len(value) - self.maxlist:,} more"] if len(value) > self.maxlist else []
        return ", ".join(shown + more)

    def repr_bytes(self, value: bytes, _: int) -> str:
        if len(value) <= self.maxother // 4:
            return repr(value)
        return f"{value[: self.maxother // 4]!r}... ({len(value):,} bytes)"


_VALUE: Final = _Shortened(VALUE_CHARACTERS)

_CELL: Final = _Shortened(CELL_CHARACTERS)


def short_repr(value: object) -> str:
    """Return the repr of a value, cut in the middle if it is long, as one printable line."""
    return _short(_VALUE, value)


def _short(shortened: reprlib.Repr, value: object) -> str:
    try:
        text = shortened.repr(value)
    except Exception:  # the value's own __repr__, or an int of too many digits
        text = f"<{type(value).__name__}>"
    return printable(text)


def join_short(items: Iterable[str], count: int, separator: str = ", ") -> str:
    """Join the first items of a list, and say how many more there are.

    Args:
        items: the texts; only as many are taken as are shown.
        count: how many there are.
        separator: what stands between two of them.
    """
    taken: list[str] = []
    length = 0
    for item in islice(items, ROWS_MAX):
        length += len(item)
        if taken and length > LIST_CHARACTERS:
            break
        taken.append(item)
    if count > len(taken):
        taken.append(f"... {count - len(taken):,} more")
    return separator.join(taken)


def named_values(names: Sequence[str], values: Iterable[object]) -> str:
    """Return ``name=value`` of each name, as far as they fit on a screen."""
    pairs = zip(names, values, strict=True)
    return join_short((f"{_shown_name(name)}={short_repr(value)}" for name, value in pairs), len(names))


def _shown_name(name: str) -> str:
    return name if name.isidentifier() else short_repr(name)


# -- HTML -------------------------------------------------------------------------------------------------------------


#: Jupyter must not take what is between two dollar signs for a formula.
_TABLE: Final = '<table class="tex2jax_ignore">'


def escaped(text: object) -> str:
    """Return a text as HTML that shows its characters, those that control a terminal or a direction escaped."""
    import html  # for notebooks and pages only

    return html.escape("\n".join(map(printable, str(text).split("\n"))))


def cell(value: object) -> str:
    """Return a value as HTML, cut in the middle if it is long: a text as it is, anything else as its repr."""
    if isinstance(value, str):
        half = CELL_CHARACTERS // 2
        return escaped(value if len(value) <= CELL_CHARACTERS else f"{value[:half]}...{value[-half:]}")
    import html

    return html.escape(_short(_CELL, value))


def table(
    columns: Sequence[str], rows: Iterable[Iterable[object]], count: int, *, to_cell: Callable[[Any], str] = cell
) -> str:
    """Return an HTML table of the first rows and columns, and how many more there are of each.

    Args:
        columns: the names of the columns.
        rows: the rows, with a value for each column; only as many are taken as are shown.
        count: how many rows there are.
        to_cell: returns a value's HTML.
    """
    shown = list(islice(columns, COLUMNS_MAX))
    lines = [_TABLE, "<thead><tr>", *(f"<th>{cell(name)}</th>" for name in shown), "</tr></thead>", "<tbody>"]
    for row in islice(rows, ROWS_MAX):
        lines += ["<tr>", *(f"<td>{to_cell(value)}</td>" for value in islice(row, COLUMNS_MAX)), "</tr>"]
    return "".join([*lines, "</tbody>", "</table>", *_more(count - ROWS_MAX, len(columns) - COLUMNS_MAX)])


def lines(items: Iterable[str], count: int) -> str:
    """Return the first items, which are HTML already, in lines, and how many more there are."""
    more = [f"… {count - ROWS_MAX:,} more"] if count > ROWS_MAX else []
    return "<br>".join([*islice(items, ROWS_MAX), *more])


def _more(rows: int, columns: int) -> Iterator[str]:
    parts = [f"{count:,} more {what}" for count, what in ((rows, "rows"), (columns, "columns")) if count > 0]
    if parts:
        yield f"<p>… {', '.join(parts)}</p>"


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Return an HTML table with a line for each name, whose value is HTML already."""
    lines = [f"<tr><th>{cell(name)}</th><td>{value}</td></tr>" for name, value in pairs]
    return "".join([_TABLE, "<tbody>", *lines, "</tbody>", "</table>"])
