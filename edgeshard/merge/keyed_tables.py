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

    Raises:
        SchemaConflictError: the key differs, or the name is taken.
    """
    known = target.keys.get(target.spelling.get(table.name.lower(), ""))
    if table.key is not None and known is not None and known.folded != table.key.folded:
        cause = (
            f"table {table.name} has the key ({', '.join(table.key.columns)}) with conflict {table.key.conflict!r} in "
            f"this shard, and ({', '.join(known.columns)}) with {known.conflict!r} in the master"
        )
        raise _conflict(origin, cause)
    owner = keys.companions(target.keys).get(table.name.lower())
    if owner is not None and (table.key is not None or not table.is_timestamped):
        raise _conflict(origin, f"table {table.name} is where the master keeps tombstones or the history of {owner}")


def ensure_key(target: Target, origin: Source, name: str, table: SourceTable) -> bool:
    """Make the target's table keyed if the source's is; the caller then makes its `companions`.

    Args:
        target: the database that is merged into.
        origin: the source.
        name: the table, as the target spells it; it has all its columns.
        table: the source's table.

    Returns:
        Whether the table became keyed now.

    Raises:
        SchemaConflictError: an unrelated table has the name of its tombstones or history.
    """
    known = target.keys.get(name)
    key = table.key or known
    if key is None:
        return False
    if known is not None:
        key = attrs.evolve(key, history=known.history or key.history)
    if key != known:
        _record_key(target, origin, name, key)
    return known is None


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


def _record_key(target: Target, origin: Source, name: str, key: Key) -> None:
    keyed = {each.lower() for each in target.keys}
    for companion in keys.companions({name: key}):
        columns = target.columns.get(companion)
        if columns is not None and (companion in keyed or format.TIMESTAMP not in columns):
            cause = (
                f"table {name} has a key in this shard, and the master has an unrelated table {companion}, where its "
                "tombstones or history would go"
            )
            raise _conflict(origin, cause)
    if name in target.keys:
        catalog.set_history(target.connection, name, key.history)
    else:
        for statement in catalog.add_key(target.connection, name, key):
            target.connection.execute(*statement)
    target.keys[name] = key


def _conflict(origin: Source, what: str) -> SchemaConflictError:
    return SchemaConflictError("merge", origin.path, f"{what}. {schema_plan.OTHER_TABLE_ADVICE}")
