"""Tables of a master."""

from __future__ import annotations

import datetime

import attrs

from edgeshard import units
from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class ColumnInfo(Report):
    """A column of a table of the master.

    Attributes:
        name: its name.
        type: its type, as `edgeshard help tables` lists them; of an internal table, as SQLite has it.
    """

    name: str
    type: str


@attrs.frozen(repr=False)
class TableInfo(Report):
    """A table of the master.

    Attributes:
        name: its name.
        columns: its columns, without those of a row's address.
        sql: the statements that made it, its indexes and its view.
        rows: how many rows it has.
        agents: how many agents these rows are of; 0 for an internal table.
        first_at: when the first of these rows arrived in this master, to the minute, or None if that is unknown.
        last_at: the same of the last one.
        size_bytes: size of the table and its indexes, or None if SQLite cannot tell.
        is_internal: whether it is one of edgeshard's own.
    """

    name: str
    columns: tuple[ColumnInfo, ...]
    sql: tuple[str, ...]
    rows: int
    agents: int = 0
    first_at: datetime.datetime | None = None
    last_at: datetime.datetime | None = None
    size_bytes: int | None = None
    is_internal: bool = False

    def _line(self) -> str:
        return f"{self.name}: {units.count(self.rows, 'row')} of {units.count(self.agents, 'agent')}"


@attrs.frozen(repr=False)
class TablesReport(Report):
    """The tables of a store's master.

    Attributes:
        tables: the tables, by name; edgeshard's own come last.
    """

    tables: tuple[TableInfo, ...] = ()

    def _line(self) -> str:
        return "; ".join(map(str, self.tables)) or "there are no tables yet"
