"""Make the target's tables keyed where a source's are, with the tables that hold their tombstones and history."""

from __future__ import annotations

import attrs

from edgeshard import format
from edgeshard.errors import SchemaConflictError
from edgeshard.master import catalog
from edgeshard.merge import schema_plan
from edgeshard.merge.target import Target
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sources.source import Source, SourceTable

_TIMESTAMP = (format.TIMESTAMP, format.OWN_COLUMNS[format.TIMESTAMP])

_REASON = (format.REASON, format.OWN_COLUMNS[format.REASON])


def check_key(target: Target, origin: Source, table: SourceTable) -> None:
    """Refuse a source's table whose key differs, or whose name belongs to the tombstones or history of a keyed table.

    Either all rows of a table come from classes that declare its key, or none do: a key that came later, or from
    another agent, would make one row of many that were never meant to be versions of one another.

    Raises:
        SchemaConflictError: the key differs, or only one of the two has a key, or the name is taken.
    """
    folded = table.name.lower()
    known = target.keys.get(target.spelling.get(folded, ""))
    keyed_here = {each.name: each.key for each in origin.tables if each.key is not None}
    owner = keys.companions(target.keys).get(folded) or keys.companions(keyed_here).get(folded)
    if owner is not None and (table.key is not None or not table.is_timestamped):
        raise _conflict(origin, f"table {table.name} is where the master keeps tombstones or the history of {owner}")
    if table.is_timestamped and table.key is None:
        return  # a companion, which follows its owner
    if folded in target.columns and (table.key is None) != (known is None):
        with_key, without = ("this shard", "the master") if known is None else ("the master", "this shard")
        key = table.key or known
        cause = f"table {table.name} has the key ({', '.join(key.columns if key else ())}) in {with_key}, and no key in"
        raise _conflict(
            origin, f"{cause} {without}; a table has a key only if every class that writes to it declares that key"
        )
    if table.key is not None and known is not None and known.folded != table.key.folded:
        cause = (
            f"table {table.name} has the key ({', '.join(table.key.columns)}) with conflict {table.key.conflict!r} in "
            f"this shard, and ({', '.join(known.columns)}) with {known.conflict!r} in the master"
        )
        raise _conflict(origin, cause)
    if table.key is not None:
        _check_companions(target, origin, table.name, table.key)


def _check_companions(target: Target, origin: Source, name: str, key: Key) -> None:
    keyed = {each.lower() for each in target.keys}
    for companion in keys.companions({name: key}):
        columns = target.columns.get(companion)
        if columns is not None and (companion in keyed or format.TIMESTAMP not in columns):
            cause = (
                f"table {name} has a key in this shard, and the master has an unrelated table {companion}, where its "
                "tombstones or history would go"
            )
            raise _conflict(origin, cause)


def ensure_key(target: Target, name: str, declared: Key) -> None:
    """Record a source's key for the target's table, which has passed `check_key`; the caller makes its `companions`.

    Args:
        target: the database that is merged into.
        name: the table, as the target spells it; it has all its columns.
        declared: the key of the source's table.
    """
    known = target.keys.get(name)
    if known is None:
        for statement in catalog.add_key(target.connection, name, declared):
            target.connection.execute(*statement)
        target.keys[name] = declared
    elif declared.history and not known.history:
        target.connection.execute(*catalog.enable_history(name))
        target.keys[name] = attrs.evolve(known, history=True)


def companions(target: Target, name: str) -> list[SourceTable]:
    """Return the companions that a table of the target must have, in the form of a source's tables.

    The history has the columns of its table. A rename or a wider type applies to both.
    """
    key, types, found = target.keys.get(name), target.columns[name.lower()], []
    if key is not None and key.deletes:
        columns = [(column, types[column.lower()]) for column in key.columns]
        found.append(SourceTable(keys.deleted_name(name), (_TIMESTAMP, *columns), ()))
    if key is not None and key.history:
        columns = [item for item in types.items() if item != _TIMESTAMP]
        arrows = tuple(target.renames.get(name.lower(), ()))
        found.append(SourceTable(keys.history_name(name), (_TIMESTAMP, _REASON, *columns), (), renames=arrows))
    return found


def _conflict(origin: Source, what: str) -> SchemaConflictError:
    return SchemaConflictError("merge", origin.path, f"{what}. {schema_plan.OTHER_TABLE_ADVICE}")
