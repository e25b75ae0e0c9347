"""Find out which tables of a master the rules of a prune apply to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from edgeshard.errors import ConfigurationError
from edgeshard.format.ranges import Range
from edgeshard.master import catalog
from edgeshard.records import declare, keys
from edgeshard.records.keys import Key
from edgeshard.retention.rules import Rules
from edgeshard.sqlite import Connection

_AGENT_DATA = declare.table_of(declare.AgentData).name


@attrs.frozen
class Scope:
    """Which rows a rule may delete.

    Attributes:
        path: the master, for errors.
        tables: delete only rows of these tables; None: of all but `catalog.current_tables`, which are looked up in the
            transaction that deletes: a merge may bring the first keyed table while a prune is under way.
        tombstones_of: the keyed table whose tombstones `tables` holds; "" if no tombstones are meant.
        grace_s: the grace period of these tombstones, in seconds.
        deletable: the seqs that may be deleted, by stream number; None: all.
    """

    path: str
    tables: tuple[str, ...] | None = None
    tombstones_of: str = ""
    grace_s: float = 0.0
    deletable: Mapping[int, Sequence[Range]] | None = None


def find_scope(connection: Connection, path: Path, rules: Rules) -> tuple[Scope, tuple[str, ...]]:
    """Look up the tables that the rules name.

    Returns:
        The scope of the rules for rows, and the names of the keyed tables whose tombstones may be deleted.

    Raises:
        ConfigurationError: there is no such table, or the rules do not apply to it.
    """
    keyed = catalog.load_keys(connection)
    table = None if rules.table is None else _find_table(connection, path, rules.table)
    if table is not None and rules.drops_table:
        return _family(connection, path, table, keyed), ()
    if table is not None and not rules.selects_no_rows:
        _refuse_current(path, table, keys.current_tables(keyed))
    tables = rules.tables if table is None else (table,)
    return Scope(str(path), tables), _tables_with_tombstones(path, rules, table, keyed)


def _family(connection: Connection, path: Path, table: str, keyed: Mapping[str, Key]) -> Scope:
    """Return the scope of all rows of a table that is to be dropped, and of its companions."""
    owner = keys.companions(keyed).get(table.lower())
    if table == _AGENT_DATA or owner is not None:
        cause = f"table {table} belongs to table {owner}: drop that one" if owner else f"every master has {table}"
        raise ConfigurationError("drop table of", path, cause)
    companions = keys.companions({table: keyed[table]}) if table in keyed else {}
    family = [table, *(name for name in catalog.record_tables(connection) if name.lower() in companions)]
    return Scope(str(path), tuple(family))


def _find_table(connection: Connection, path: Path, table: str) -> str:
    """Return the table's name as it is spelled in the master."""
    names = {name.lower(): name for name in catalog.record_tables(connection)}
    if table.lower() not in names:
        cause = f"there is no table {table!r:.120}; the master has {', '.join(sorted(names.values()))}"
        raise ConfigurationError("prune", path, cause)
    return names[table.lower()]


def _refuse_current(path: Path, table: str, current: Sequence[str]) -> None:
    if table.lower() in {name.lower() for name in current}:
        cause = (
            f"table {table} has a key: its rows are current, and without them older versions would come back with "
            "another copy. Delete rows by their key (Shard.delete), and their tombstones with deletions_older_than"
        )
        raise ConfigurationError("prune", path, cause)


def _tables_with_tombstones(path: Path, rules: Rules, table: str | None, keyed: Mapping[str, Key]) -> tuple[str, ...]:
    if rules.tombstones_older_than_s is None:
        return ()
    names = [name for name, key in keyed.items() if key.deletes]
    if table is None:
        return tuple(names)
    found = tuple(name for name in names if table.lower() in (name.lower(), keys.deleted_name(name).lower()))
    if not found and rules.selects_no_rows:
        cause = f"table {table} has no tombstones: it has no key, or a conflict rule without deletions"
        raise ConfigurationError("prune", path, cause)
    return found
