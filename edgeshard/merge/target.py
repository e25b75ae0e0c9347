"""The database that a merge writes: what a transaction must know of its tables, keys and ids."""

from __future__ import annotations

import attrs

from edgeshard.format.ranges import Range
from edgeshard.master import catalog, identity
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import Connection


@attrs.define
class Target:
    """The database that a merge writes, inside one of its transactions.

    SQL ignores case in names, so tables and columns are looked up by their names in lower case.

    Attributes:
        connection: a connection whose main database it is.
        columns: the type of each column of each table.
        spelling: each table's name as it is spelt in the database.
        next_id: the id that the next row gets.
        renames: the renames of each table's columns.
        is_indexed: whether it has the indexes that it records, and keeps only what a keyed table's rule says. A bundle
            leaves both to the database that merges it.
        keys: the keys of the keyed tables, by their names as they are spelt.
        ids_to_settle_again: ids below `next_id` that got changes of keyed tables which were superseded before.
        planned: the tables, in lower case, that are described here as a real merge would leave them; a dry run does
            not change them (see `schema_merge.plan_tables`).
    """

    connection: Connection
    columns: dict[str, dict[str, str]]
    spelling: dict[str, str]
    next_id: int
    renames: dict[str, list[Arrow]] = attrs.Factory(dict)
    is_indexed: bool = True
    keys: dict[str, Key] = attrs.Factory(dict)
    ids_to_settle_again: list[Range] = attrs.Factory(list)
    planned: set[str] = attrs.Factory(set)

    @classmethod
    def load(cls, connection: Connection) -> Target:
        """Read what the transaction builds on."""
        target = cls(connection, {}, {}, identity.next_id(connection))
        target.reload()
        return target

    def reload(self) -> None:
        """Read the tables again, after changes to them were rolled back."""
        self.columns, self.spelling = {}, {}
        for table, column, type_ in catalog.all_columns(self.connection):
            self.columns.setdefault(table.lower(), {})[column.lower()] = type_
            self.spelling[table.lower()] = table
        self.renames = catalog.load_renames(self.connection)
        self.keys = catalog.load_keys(self.connection)

    def spelt(self, table: str) -> str:
        """Return the name of a table as the database spells it, or will spell it once it has the table."""
        return self.spelling.setdefault(table.lower(), table)
