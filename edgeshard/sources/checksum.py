"""The checksum of a bundle: a SHA-256 over the whole file, which the file itself carries.

The 32 bytes of the checksum count as zeros in it. Whoever writes a bundle puts a random mark in their place, finds the
mark in the finished file, and writes the checksum over it; whoever reads one takes the checksum out of its table, and
sums the file up with these bytes zeroed wherever they are. So any bit that changed is noticed, in the checksum as well.

It is against accidents. Whoever changes a bundle on purpose can write its checksum anew.
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
from edgeshard.sqlite import Connection, quote

SUM_BYTES: Final = 32

_ACTION = "read bundle"

_NOT_ITS_BYTES = (
    "its bytes are not those that were written (its checksum differs): it was damaged on its way, or something wrote "
    "to it. Nothing of it was merged; carry it here again, or export it again"
)


def new_mark() -> bytes:
    """What stands in the checksum's place until the file is finished."""
    return secrets.token_bytes(SUM_BYTES)


def digest(chunks: Iterable[bytes], hidden: bytes) -> bytes:
    """The SHA-256 of a file in which the bytes `hidden`, wherever they are, count as zeros."""
    total = hashlib.sha256()
    rest = b""
    for chunk in chunks:
        # what is hidden may begin in one chunk and end in the next
        part = (rest + chunk).replace(hidden, bytes(SUM_BYTES))
        total.update(part[: 1 - SUM_BYTES])
        rest = part[1 - SUM_BYTES :]
    total.update(rest)
    return total.digest()


def seal(path: str, mark: bytes) -> None:
    """Write the checksum over the mark in a finished bundle that nobody has open."""
    found = list(_places(path, mark))
    if len(found) != 1:
        raise AssertionError(f"{path}: the mark is in it {len(found)} times")  # 256 random bits
    with open(path, "rb+") as file:
        total = digest(iter(lambda: file.read(1 << 20), b""), mark)
        file.seek(found[0])
        file.write(total)


def _places(path: str, mark: bytes) -> Iterable[int]:
    with open(path, "rb") as file:
        rest, at = b"", 0
        while chunk := file.read(1 << 20):
            part = rest + chunk
            place = part.find(mark)
            if place >= 0:
                yield at + place
            rest = part[1 - SUM_BYTES :]
            at += len(part) - len(rest)


def ensure_whole(connection: Connection, schema: str, path: str) -> None:
    """Refuse an attached bundle whose bytes are not those that were written, or that does not stand alone.

    Raises:
        DamagedError: its bytes changed, or there is a log or a journal beside it.
        FormatError: it has no checksum.
    """
    with sqlite.translate_errors(_ACTION, path):
        if sqlite.header_says_wal(path):  # and has a log by now, which we made ourselves in opening it
            raise DamagedError(_ACTION, path, _NOT_ITS_BYTES)
    for suffix in (paths.WAL, paths.JOURNAL):
        if identity(path + suffix) is not None:
            # SQLite would read it as a part of the bundle
            cause = f"there is a file beside it with {suffix} to its name, and a bundle stands alone; move that away"
            raise DamagedError(_ACTION, path, cause)
    stored = _stored(connection, schema, path)
    with sqlite.translate_errors(_ACTION, path):
        if digest(sqlite.read_raw(path), stored) != stored:
            raise DamagedError(_ACTION, path, _NOT_ITS_BYTES)


def _stored(connection: Connection, schema: str, path: str) -> bytes:
    with sqlite.limit_steps_in_block(connection, sqlite.reading_steps(connection, schema)):
        listed = f"SELECT sql FROM {quote(schema)}.sqlite_schema WHERE type = 'table' AND name = ? AND rootpage > 0"
        text = sqlite.scalar(connection, listed, (format.CHECKSUM_TABLE,))
        if text != format.DDL[format.CHECKSUM_TABLE]:
            raise FormatError(_ACTION, path, "it is a bundle without a checksum; export it again")
        listed = f"SELECT sha256 FROM {quote(schema)}.{format.CHECKSUM_TABLE} LIMIT 2"
        rows = sqlite.fetch_typed(connection, path, (bytes,), listed)
    if len(rows) != 1 or len(rows[0][0]) != SUM_BYTES:
        raise DamagedError(_ACTION, path, _NOT_ITS_BYTES)
    stored: bytes = rows[0][0]
    return stored
