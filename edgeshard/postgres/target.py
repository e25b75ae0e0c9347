"""The connection of a push: opened again when lost, with what the server was found to hold."""

from __future__ import annotations

from collections.abc import Sequence

from edgeshard.format.ranges import Range
from edgeshard.master.streams import Stream
from edgeshard.postgres import citus, own_tables, server_kind, server_tables
from edgeshard.postgres.address import Address
from edgeshard.postgres.plan import OutdatedSchemaError
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server


class Target:
    """A database, connected when needed.

    Args:
        address: where it is.
        distribute: whether to distribute the tables of rows over the workers of a Citus cluster.

    Attributes:
        address: where it is.
        kind: what kind of server it is, and its version; "" until the first `update`.
        database_id: its id, 16 bytes; b"" until the first `update`.
        held: what it holds of each stream, by the stream's id. It stays known while the server is away.
        updated_tables: the master's tables when their renames, types and keys were last brought here, through this
            connection.
    """

    def __init__(self, address: Address, *, distribute: bool = False) -> None:
        self.address = address
        self.kind = ""
        self._distribute = distribute
        self.database_id = b""
        self.held: dict[bytes, list[Range]] = {}
        self.updated_tables: Sequence[Table] = ()
        self._server: Server | None = None
        self._is_current = False  # whether `held` was read through this connection
        self._fit: dict[Table, Table] = {}  # the master's tables, each as the server's table takes its rows
        self._schema_version: int | None = None  # the version of the schema at which they were found fit

    @property
    def is_connected(self) -> bool:
        """Return whether there is a connection, which may have failed meanwhile."""
        return self._server is not None

    @property
    def is_citus(self) -> bool:
        """Return whether the connection, if there is one, leads to a Citus cluster."""
        return self._server is not None and self._server.is_citus

    def connect(self) -> Server:
        """Return the connection, or a new one if there is none that can be used.

        Raises:
            PostgresError: the database cannot be reached, or a push cannot use it.
            ServerError: the server failed.
        """
        if self._server is not None and not self._server.is_usable:
            self.close()
        if self._server is None:
            server = Server(self.address)
            try:
                citus.ensure_suitable(server, distribute=self._distribute)
            except BaseException:
                server.close()
                raise
            self._server = server
            self._is_current = False
        return self._server

    def close(self) -> None:
        """Close the connection. After the next `connect`, `update` reads everything again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def update(self, streams: Sequence[Stream]) -> None:
        """Read what the database holds: once for each connection, and of streams that are new since.

        Raises:
            ServerError: the server failed.
            PostgresUnsuitableError: a later edgeshard created its tables.
        """
        server, stream_ids = self.connect(), [stream.stream_id for stream in streams]
        if self._is_current:
            self.held.update(own_tables.held(server, (each for each in stream_ids if each not in self.held)))
            return
        self.kind = str(server_kind.find(server))
        database_id = own_tables.ensure_identity(server)
        held = own_tables.held(server, stream_ids)
        # Set both at once: a receipt must never say that one database holds what another one does, or that it holds
        # nothing.
        self.database_id, self.held, self._is_current = database_id, held, True
        self.updated_tables = ()
        self.forget_tables()

    def ensure_table(self, table: Table) -> tuple[Table, Sequence[str]]:
        """Make a table fit unless it was found to be.

        Returns:
            The table with the columns that its rows fill, and the statements that were needed.

        Raises:
            SchemaConflictError: it cannot be made fit.
            ServerError: the server failed.
        """
        found = self._fit.get(table)
        if found is not None:
            return found, ()
        server = self.connect()
        if self._schema_version is None:
            self._schema_version = own_tables.schema_version(server)  # before the tables are looked at
        fitted = server_tables.ensure_table(server, table, distribute=self._distribute)
        if fitted.schema_version is not None:
            if fitted.schema_version != self._schema_version + 1:
                self._fit.clear()  # another device changed tables as well
            self._schema_version = fitted.schema_version
        self._fit[table] = fitted.table
        return fitted.table, fitted.statements

    def lock_tables(self) -> None:
        """Keep the tables as they are until the transaction ends.

        Raises:
            OutdatedSchemaError: another device changed one since they were found fit.
        """
        version = own_tables.share_schema(self.connect())
        if self._fit and version != self._schema_version:
            raise OutdatedSchemaError

    def forget_tables(self) -> None:
        """Check each table again before rows of it are sent."""
        self._fit.clear()
        self._schema_version = None
