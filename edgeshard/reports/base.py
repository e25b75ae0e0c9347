"""Base of all reports: a plain value that prints as one line and turns into JSON or HTML."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from edgeshard import display
from edgeshard.errors import printable


@attrs.frozen
class Report:
    """Base of all reports. Printed, it is one line, whatever the names in it are: see `errors.printable`."""

    #: Properties that `as_dict` includes, besides the attributes.
    _computed: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return printable(self._line())

    def __repr__(self) -> str:
        names = [field.name for field in attrs.fields(type(self))]
        values = (getattr(self, name) for name in names)
        return f"{type(self).__name__}({display.named_values(names, values)})"

    def _repr_html_(self) -> str:
        """Return the report as HTML for a notebook: its line, and a table of its fields."""
        return f"<div><p>{display.cell(str(self))}</p>{self._fields_html()}</div>"

    def _fields_html(self) -> str:
        names = [field.name for field in attrs.fields(type(self))]
        return display.fields([(name, _html(getattr(self, name))) for name in (*names, *self._computed)])

    def _line(self) -> str:
        values = [f"{field.name}={getattr(self, field.name)!r}" for field in attrs.fields(type(self))]
        return f"{type(self).__name__}({', '.join(values)})"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as values that `json.dumps` takes: times become ISO 8601 text, reports become dicts."""
        names = [field.name for field in attrs.fields(type(self))]
        return {name: _plain(getattr(self, name)) for name in (*names, *self._computed)}


def _plain(value: Any) -> Any:
    if isinstance(value, Report):
        return value.as_dict()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _html(value: Any) -> str:
    """Return a field's value as HTML: reports as tables, and only the first items of a long list."""
    if isinstance(value, Report):
        return value._fields_html()
    if isinstance(value, Mapping):
        return display.table(("", ""), value.items(), len(value), to_cell=_html) if value else ""
    if not isinstance(value, (tuple, list)):
        return display.cell(value.isoformat() if isinstance(value, datetime.datetime) else value)
    if value and isinstance(value[0], Report):
        names = [field.name for field in attrs.fields(type(value[0]))]
        rows = ([getattr(each, name) for name in names] for each in value)
        return display.table(names, rows, len(value), to_cell=_html)
    return display.lines(map(_html, value), len(value))
