"""Parse a DSN into the address of a database, which can be shown without any secret.

Nothing that is shown or raised contains a password: an address is shown as user@host:port/database, and what libpq says
is searched for every secret that we know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Final

import attrs

from edgeshard.errors import ConfigurationError, PostgresError
from edgeshard.postgres import sqlstate
from edgeshard.postgres.sqlstate import ServerError

#: Set unless the DSN or the environment says otherwise, so that the silent loss of a peer is detected within about a
#: minute.
_DEFAULTS: Final = {
    "connect_timeout": "15",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "application_name": "edgeshard",
}

#: A URL with an @ in its path, and what a port can be.
_AT_IN_PATH: Final = re.compile(r"\w+://[^/?]*/[^?]*@")

_PORTS: Final = re.compile(r"[0-9,]*")

#: libpq's options that must not be shown.
_SECRET: Final = re.compile("password|secret|scram_.*_key")


def load_psycopg() -> Any:
    """Import psycopg. An edge device without the extra ``postgres`` works without it.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        cause = f"psycopg 3 is missing; pip install 'edgeshard[postgres]' ({error})"
        raise ConfigurationError("connect to PostgreSQL", "", cause) from error
    return psycopg


@attrs.frozen
class Address:
    """The database that a DSN, the PG* variables and a service file name together.

    Attributes:
        dsn: what libpq is given.
        display: user@host:port/database; no more than that is ever shown.
        secrets: what must not be shown.
    """

    dsn: str = attrs.field(repr=False)
    display: str
    secrets: tuple[str, ...] = attrs.field(repr=False)

    def redact(self, text: str) -> str:
        """Return the text in one line, without any secret."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())

    def explain(self, action: str, error: ServerError) -> PostgresError:
        """Return our error for a server's."""
        error_class, cause = sqlstate.meaning(error.state)
        details = f"{error.state}: {error.message}" if error.state else error.message
        return error_class(action, self.display, f"{cause} ({details})")


def parse_dsn(dsn: str) -> Address:
    """Parse a DSN: a URL, ``key=value`` pairs, or an empty one, which takes everything from the environment.

    Raises:
        ConfigurationError: it is not valid, or psycopg is not installed.
    """
    parser = load_psycopg().pq.Conninfo
    if not isinstance(dsn, str):
        cause = f'the DSN must be a str, such as "postgresql://user@host/database", not {type(dsn).__name__}'
        raise ConfigurationError("connect to PostgreSQL", "", cause)
    try:
        given = _options(parser.parse(dsn.encode()))
        default = _options(parser.get_defaults())
    except (load_psycopg().Error, UnicodeEncodeError):
        # libpq's message would quote a part of it, which may be a part of the password
        cause = "libpq cannot read this DSN; in a URL write special characters as %XX (@ is %40, / is %2F)"
        raise ConfigurationError("connect to PostgreSQL", "", cause) from None
    options = {**default, **given}
    if "@" in options.get("host", "") or _AT_IN_PATH.match(dsn) or not _PORTS.fullmatch(options.get("port", "")):
        # libpq took a part of the password for something else, which would be shown
        cause = (
            "its port is not a number, or its host or database contains an @; in a URL write special characters of a "
            "password as %XX (@ is %40, / is %2F)"
        )
        raise ConfigurationError("connect to PostgreSQL", "", cause)
    set_elsewhere = given.keys() | _options_in_environment()
    added = {name: value for name, value in _DEFAULTS.items() if name not in set_elsewhere}
    secrets = {value for name, value in options.items() if _SECRET.search(name)}
    full = load_psycopg().conninfo.make_conninfo(dsn, **added)
    return Address(full, _display(options), tuple(sorted(filter(None, secrets), key=len, reverse=True)))


def _options(parsed: Iterable[Any]) -> dict[str, str]:
    return {option.keyword.decode(): option.val.decode() for option in parsed if option.val}


def _options_in_environment() -> set[str]:
    names = {"connect_timeout": "PGCONNECT_TIMEOUT", "application_name": "PGAPPNAME"}
    return {name for name, variable in names.items() if os.environ.get(variable)}


def _display(options: dict[str, str]) -> str:
    if options.get("service") and not options.get("host"):
        return f"service {options['service']}"
    host = options.get("host") or options.get("hostaddr") or "localhost"
    user, name = options.get("user", ""), options.get("dbname") or options.get("user", "")
    return f"{user}@{host}:{options.get('port', '5432')}/{name}"
