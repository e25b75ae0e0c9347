"""The checksum of a bundle: a SHA-256 over the whole file, stored in the file itself.

The 32 bytes of the checksum count as zeros in it. The writer of a bundle puts a random mark in their place, finds the
mark in the finished file, and overwrites it with the checksum. A reader takes the checksum from its table, and computes
it anew with these bytes zeroed wherever they occur. So every changed bit is detected, in the checksum as well.

It protects against accidents. An attacker who changes a bundle can write a new checksum.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Final

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, FormatError
from edgeshard.files import paths
from edgeshard.files.fingerprint import identity
from edgeshard.sources import bounds
from edgeshard.sqlite import Connection, quote

SUM_BYTES: Final = 32

_ACTION: Final = "read bundle"

_CHANGED: Final = (
    "its checksum differs: it was damaged on its way, or something wrote to it. Nothing of it was merged; copy it here "
    "again, or export it again"
)


# -- writing ----------------------------------------------------------------------------------------------------------


def write_mark(connection: Connection) -> bytes:
    """Put a random mark in the checksum's place in a new bundle, and return it; see `seal`."""
    mark = secrets.token_bytes(SUM_BYTES)
    connection.execute(f"INSERT INTO main.{format.CHECKSUM_TABLE} VALUES (?)", (mark,))
    return mark


def seal(path: str, mark: bytes) -> None:
    """Overwrite the mark in a finished bundle, which no connection has open, with the checksum."""
    places = list(_find(path, mark))
    if len(places) != 1:
        raise AssertionError(f"{path}: the mark is in it {len(places)} times")  # it has 256 random bits
    with open(path, "rb+") as file:
        checksum = digest(iter(lambda: file.read(1 << 20), b""), mark)
        file.seek(places[0])
        file.write(checksum)


def _find(path: str, mark: bytes) -> Iterable[int]:
    with open(path, "rb") as file:
        rest, offset = b"", 0
        while chunk := file.read(1 << 20):
            part = rest + chunk
            place = part.find(mark)
            if place >= 0:
                yield offset + place
            rest = part[1 - SUM_BYTES :]
            offset += len(part) - len(rest)


def digest(chunks: Iterable[bytes], hidden: bytes) -> bytes:
    """Return the SHA-256 of a file in which the bytes `hidden`, wherever they are, count as zeros."""
    total = hashlib.sha256()
    rest = b""
    for chunk in chunks:
        # the hidden bytes may begin in one chunk and end in the next
        part = (rest + chunk).replace(hidden, bytes(SUM_BYTES))
        total.update(part[: 1 - SUM_BYTES])
        rest = part[1 - SUM_BYTES :]
    total.update(rest)
    return total.digest()


# -- reading ----------------------------------------------------------------------------------------------------------


def verify(connection: Connection, schema: str, path: str) -> None:
    """Refuse an attached bundle whose bytes have changed, or that has a WAL or a journal next to it.

    Raises:
        DamagedError: its bytes changed, or there is a WAL or a journal next to it.
        FormatError: it has no checksum.
    """
    with sqlite.translate_errors(_ACTION, path):
        if sqlite.header_says_wal(path):  # so by now it has a WAL, which we made ourselves by opening it
            raise DamagedError(_ACTION, path, _CHANGED)
    for suffix in (paths.WAL, paths.JOURNAL):
        if identity(path + suffix) is not None:
            # SQLite would read it as a part of the bundle
            cause = f"there is a {suffix} file next to it, but a bundle stands alone; move the {suffix} file away"
            raise DamagedError(_ACTION, path, cause)
    stored = _read_stored(connection, schema, path)
    with sqlite.translate_errors(_ACTION, path):
        if digest(sqlite.read_raw(path), stored) != stored:
            raise DamagedError(_ACTION, path, _CHANGED)


def _read_stored(connection: Connection, schema: str, path: str) -> bytes:
    with bounds.bounded(connection, schema):
        sql = f"SELECT sql FROM {quote(schema)}.sqlite_schema WHERE type = 'table' AND name = ? AND rootpage > 0"
        if sqlite.scalar(connection, sql, (format.CHECKSUM_TABLE,)) != format.DDL[format.CHECKSUM_TABLE]:
            raise FormatError(_ACTION, path, "it is a bundle without a checksum; export it again")
        sql = f"SELECT sha256 FROM {quote(schema)}.{format.CHECKSUM_TABLE} LIMIT 2"
        rows = sqlite.fetch_typed(connection, path, (bytes,), sql)
    if len(rows) != 1 or len(rows[0][0]) != SUM_BYTES:
        raise DamagedError(_ACTION, path, _CHANGED)
    stored: bytes = rows[0][0]
    return stored
