"""Find out what kind of server it is that speaks PostgreSQL's protocol, by asking it."""

from __future__ import annotations

import re
from typing import Final

import attrs

from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError

POSTGRESQL: Final = "PostgreSQL"
CITUS: Final = "Citus"
COCKROACHDB: Final = "CockroachDB"
YUGABYTEDB: Final = "YugabyteDB"
OTHER: Final = "other"

#: What the servers answer to `SELECT version()`, the more special ones first.
_VERSIONS: Final = (
    (COCKROACHDB, re.compile(r"CockroachDB.* v(\S+)")),
    (YUGABYTEDB, re.compile(r"-YB-(\S+?)(?:-b\d+)?[ ,]")),
    (POSTGRESQL, re.compile(r"PostgreSQL (\S+)")),
)


@attrs.frozen
class ServerKind:
    """A kind of server.

    Attributes:
        name: `POSTGRESQL`, `CITUS` (an extension of PostgreSQL), `COCKROACHDB`, `YUGABYTEDB` or `OTHER`.
        version: its version, or "" if it is not known. That of Citus is the extension's.
    """

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


def find(server: Server) -> ServerKind:
    """Return the kind of a server, and its version.

    Raises:
        ServerError: the server failed.
    """
    ((text,),) = server.execute("SELECT version()")
    kind = parse_version(text)
    if kind.name != POSTGRESQL:
        return kind
    try:
        extension = server.execute("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
    except ServerError as error:
        if not error.is_undefined_table:
            raise
        return ServerKind(OTHER)  # it says that it is PostgreSQL, but lacks its catalog
    return ServerKind(CITUS, extension[0][0]) if extension else kind


def parse_version(text: str) -> ServerKind:
    """Return the kind of a server by what it answers to ``SELECT version()``, which does not tell Citus."""
    for name, pattern in _VERSIONS:
        found = pattern.search(text)
        if found is not None:
            return ServerKind(name, found[1])
    return ServerKind(OTHER)
