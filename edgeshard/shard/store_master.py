"""Read what the master of a shard's store knows: the newest timestamp of a change, and which classes do not fit it.

A writer does not fail because the master cannot be read, and does not wait for a master that another process holds
locked (WAL readers never are, unless a program asks for an exclusive lock). That is logged, and the writer goes on
without it; then the next merge finds what does not fit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from edgeshard import format
from edgeshard.errors import ConfigurationError, SchemaConflictError, StorageError
from edgeshard.log_fields import fields
from edgeshard.master import catalog, database, store_clock
from edgeshard.records import keys, renames, types
from edgeshard.records.columns import Table, mixes_dicts
from edgeshard.records.keys import Key
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.shard")

#: How long a writer waits for a master that another process holds locked, in seconds: it is opening or closing it.
_BUSY_TIMEOUT_S: Final = 0.1


def known_times(master_path: Path) -> tuple[list[int], int]:
    """Return what a store's master knows of the time; ([], 0) if it knows nothing, cannot be read, or does not exist.

    Returns:
        The newest timestamp of each keyed table, and a time that has surely passed, in microseconds since 1970.
    """
    try:
        with _opened(master_path) as connection:
            if connection is None:
                return [], 0
            return catalog.newest_timestamps(connection), store_clock.passed_us(connection)
    except (StorageError, ConfigurationError) as error:  # the latter: it is no file
        logger.warning(
            "%s; changes written now may get timestamps before changes that the master has",
            error,
            extra=fields(error=error),
        )
        return [], 0


def ensure_fits(master_path: Path, shard_path: str, table: Table) -> None:
    """Refuse a class whose rows a store's master could not take, because it has that table with other types or keys.

    Args:
        master_path: the master, which need not exist.
        shard_path: the shard, for the error.
        table: the table of the class.

    Raises:
        SchemaConflictError: that is the case.
    """
    try:
        with _opened(master_path) as connection:
            conflict = None if connection is None else _find_conflict(connection, table.deletes_from or table)
    except (StorageError, ConfigurationError) as error:  # the latter: it is no file
        logger.warning(
            "%s; whether table %s fits it shows at the next merge",
            error,
            table.name,
            extra=fields(table=table.name, error=error),
        )
        return
    if conflict is not None:
        advice = (
            "Give the field, or the table, another name. If this class is right and the others are wrong, see "
            "Store.prune(table=..., drop_table=True)"
        )
        raise SchemaConflictError("write to shard", shard_path, f"{conflict} in the store's master. {advice}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Connection | None]:
    if database.find_master(path, "read master") is None:
        yield None
        return
    with database.translate_errors("read master", path):
        connection = database.open_master(path, writable=False, busy_timeout_s=_BUSY_TIMEOUT_S)
        try:
            yield connection
        finally:
            connection.close()


def _find_conflict(connection: Connection, table: Table) -> str | None:
    """Return how a class and the master's table contradict each other, or None. (The merge decides: schema_plan.)"""
    name, known = catalog.columns_of_table(connection, table.name)
    conflict = _companion_conflict(connection, name, table.key)
    return _table_conflict(connection, name, known, table) if conflict is None and known else conflict


def _companion_conflict(connection: Connection, name: str, key: Key | None) -> str | None:
    """Return which other table a class's table, or its companions, would be mixed with, or None."""
    keyed = catalog.load_keys(connection)
    owner = keys.companions(keyed).get(name.lower())
    if owner is not None:
        return f"table {name} is where deletions or earlier versions of table {owner} go"
    folded = {each.lower() for each in keyed}
    for companion in keys.companions({name: key}) if key is not None else ():
        _, columns = catalog.columns_of_table(connection, companion)
        if columns and (format.TIMESTAMP not in columns or companion in folded):
            return f"deletions or earlier versions of table {name} would go to {companion}, which is another table"
    return None


def _table_conflict(connection: Connection, name: str, known: Mapping[str, str], table: Table) -> str | None:
    there = {each.lower(): key for each, key in catalog.load_keys(connection).items()}.get(name.lower())
    if (there and there.folded) != (table.key and table.key.folded):
        return f"table {name} has {keys.describe(table.key)} in this class, and {keys.describe(there)}"
    if cause := mixes_dicts(name, known, [column.name.lower() for column in table.columns]):
        return cause
    arrows = [*catalog.load_renames(connection).get(name.lower(), ()), *table.renames]
    try:
        final_names = renames.ends(arrows)
    except renames.UnclearError as error:
        return f"table {name}: {error}; this contradicts the renames"
    types_there = {final_names.get(column, column): type_ for column, type_ in known.items()}
    for column in table.columns:
        final_name = final_names.get(column.name.lower(), column.name.lower())
        type_ = types_there.get(final_name, column.type)
        is_fixed = final_name in keys.fixed(table.key)
        if types.widest(type_, column.type) is None or (is_fixed and type_ != column.type):
            return f"column {name}.{column.name} is {column.type} in this class, and {type_}"
    return None
