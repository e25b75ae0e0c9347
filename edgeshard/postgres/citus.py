"""Citus: which node of a cluster a connection leads to, and how tables are distributed over its workers.

Record tables are distributed by `_stream`, so that all rows of a stream are on one worker, and the primary key
(_stream, _seq) is one that Citus accepts: a unique constraint must contain the column by which a table is distributed.
That is also why keyed tables are not distributed by their key. Their primary key would have to contain it, and would no
longer keep a row from arriving twice; and Citus distributes by one column, but a key may have several.

`edgeshard_keys` becomes a reference table. Pushes of a keyed table lock its row there until they commit. If it were a
local table of the coordinator, the lock would end with the coordinator's commit, before the workers commit, and the
next push would not see the rows that it has to settle. All other tables of our own stay local, on the coordinator:
each push writes them, so if they were distributed, each push would need every node, and one dead worker would stop all
streams. For the same reason, pushes go to the coordinator, and a worker is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edgeshard.errors import PostgresUnsuitableError
from edgeshard.postgres.schema import KEYS, Table
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.sqlite import quote

#: Those of some tables that are distributed, or reference tables; other tables that Citus manages are local.
_DISTRIBUTED: Final = """
SELECT t.relname FROM pg_dist_partition p
JOIN pg_class t ON t.oid = p.logicalrelid
JOIN pg_namespace s ON s.oid = t.relnamespace
WHERE s.nspname = current_schema() AND t.relname = ANY($1::text[]) AND (p.partmethod <> 'n' OR p.repmodel = 't')
"""


def ensure_suitable(server: Server, *, distribute: bool = False) -> None:
    """Refuse a worker of a Citus cluster, and to distribute tables without Citus.

    A push to a worker would create a second set of our own tables there, which know nothing of the coordinator's.

    Raises:
        PostgresUnsuitableError: a push cannot use the server in this way.
    """
    if distribute and not server.is_citus:
        cause = "it has no Citus, which distributing tables needs; push with distribute=False"
        raise PostgresUnsuitableError("push", server.address.display, cause)
    if server.is_citus and _is_worker(server) and not distributed(server, ["edgeshard_database"]):
        cause = "it is a worker of a Citus cluster; name the coordinator, which has edgeshard's own tables"
        raise PostgresUnsuitableError("push", server.address.display, cause)


def _is_worker(server: Server) -> bool:
    """Return whether it is another node than the coordinator, whose group is 0."""
    return any(group for (group,) in server.execute("SELECT groupid FROM pg_dist_local_group"))


# -- distributing tables ----------------------------------------------------------------------------------------------


def distributed(server: Server, names: Iterable[str]) -> frozenset[str]:
    """Return those of these tables that are distributed over the workers, or are on all of them."""
    return frozenset(name for (name,) in server.execute(_DISTRIBUTED, (list(names),)))


def distribute_statements(server: Server, table: Table, *, exists: bool) -> tuple[str, ...]:
    """Return the statements that distribute a table, and edgeshard_keys if it is keyed; () if nothing is left to do.

    Args:
        server: the coordinator.
        table: the master's table.
        exists: whether the server has the table already, maybe with rows.
    """
    found = distributed(server, [table.pg_name, KEYS])
    statements = []
    if table.key is not None and KEYS not in found:
        statements.append(f"SELECT create_reference_table('{KEYS}')")
    if table.pg_name not in found:
        # names are letters, digits and _, so that nothing needs to be escaped
        name = f"'{quote(table.pg_name)}'"
        statements.append(f"SELECT create_distributed_table({name}, '_stream')")
        if exists:  # Citus copies the rows to the workers, and leaves what they took on the coordinator
            statements.append(f"SELECT truncate_local_data_after_distributing_table({name})")
    return tuple(statements)


# -- transactions -----------------------------------------------------------------------------------------------------


def begin(server: Server, tables: Iterable[Table], *, inserts: bool) -> None:
    """Make the open transaction, which has written to no table of rows yet, commit as a push needs it.

    Rows of one stream go to one worker. Citus commits what was inserted there before the coordinator commits, unless
    several workers were written to. If the coordinator died between the two, the worker would have rows that
    edgeshard_ranges, on the coordinator, does not name. After a COPY it commits in two phases, even if no row was sent.

    Citus uses several connections to a worker, each of which prepares and commits a transaction of its own. If the
    worker or the coordinator died among these commits, the lock of edgeshard_keys could end before rows of keyed tables
    can be read, and the next push would not see the rows that it has to settle.

    Args:
        server: a node of a cluster.
        tables: the tables that the transaction brings rows of.
        inserts: whether it sends rows by INSERT.
    """
    tables = list(tables)
    if any(table.key is not None for table in tables):
        server.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")  # one connection to each worker
    if inserts:
        for table in tables:
            server.copy(quote(table.pg_name), quote("_stream"), ())


# -- workers that fail ------------------------------------------------------------------------------------------------


def is_worker_failure(server: Server, error: ServerError) -> bool:
    """Return whether a node behind the server failed, and not the server itself.

    The coordinator passes errors of its connections to workers on (class 08), or says XX000: it answers, so that our
    own connection is in order.
    """
    return server.is_citus and server.is_usable and (error.is_connection_lost or error.is_unclear)
