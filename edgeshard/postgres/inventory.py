"""Take the inventory of a PostgreSQL database: which rows it holds of all pushes."""

from __future__ import annotations

import datetime

from edgeshard.errors import ConfigurationError
from edgeshard.exchange.encoding import encode
from edgeshard.exchange.inventory import Inventory
from edgeshard.master import receipts
from edgeshard.postgres import citus, own_tables
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError


def ranges(dsn: str) -> Inventory:
    """Return which rows of all pushes a database holds; see `Store.pushed_ranges`.

    Raises:
        ConfigurationError: the DSN is not valid, psycopg is not installed, or there was no push to it yet.
        PostgresError: PostgreSQL cannot be reached, or refuses.
    """
    address = parse_dsn(dsn)
    server = Server(address)
    try:
        citus.ensure_suitable(server)
        at = datetime.datetime.now(datetime.UTC)  # before reading: what is committed meanwhile is in the next one
        database_id = own_tables.identity(server)
        if database_id is None:
            cause = "nothing was pushed to this database yet; push to it first"
            raise ConfigurationError("read ranges of", address.display, cause)
        with server.transaction(read_only=True):
            held = encode(own_tables.all_held(server))
        return Inventory(database_id, at, 0, held, receipts.POSTGRESQL)
    except ServerError as error:
        raise address.explain("read ranges of", error) from error
    finally:
        server.close()
