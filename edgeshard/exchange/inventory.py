"""What a database holds, as a small JSON document that travels to whoever wants to know what it lacks.

    {"edgeshard": "ranges", "format": 1, "database": "<32 hex digits>", "kind": "edgeshard", "generation": 17,
     "at": "2026-01-02T12:00:00+00:00", "streams": {"<32 hex digits>": [[1, 900], [1001, 1100]]},
     "gone": {"<32 hex digits>": [[1, 300]]}}

``streams`` is what the database has *ever* held: whoever exports to it leaves that out, so that a row that was pruned
there does not come back. ``gone`` is what of it is no longer there, and is left out where nothing is. Only the
difference, what is there *now*, is safe there, and may be deleted elsewhere. Where the ``kind`` is "postgresql", it is
what pushes brought there.

A document may come from a stranger: it is read up to a size, and whatever is not as above is refused.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from edgeshard import format
from edgeshard.errors import ConfigurationError, DamagedError, FormatError
from edgeshard.files.os_errors import explain_os_error
from edgeshard.format.ranges import Range, subtract
from edgeshard.master.receipts import KINDS

#: A document of 300,000 streams is this long.
BYTES_MAX: Final = 16 << 20

_ACTION = "read ranges"

_TAG, _FORMAT = "ranges", 1

_KEYS = {"edgeshard", "format", "database", "kind", "generation", "at", "streams"}

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

_COUNT_MAX = (1 << 63) - 1

Ranges = Mapping[bytes, tuple[Range, ...]]


@attrs.frozen
class Inventory:
    """What a database holds, and has held.

    Attributes:
        database_id: which database, 16 bytes.
        at: when it said so, by its own clock.
        generation: how often it had been merged into by then.
        streams: the seqs of each stream that it has ever held, by the stream's id.
        gone: those of them that it no longer has.
        kind: one of `KINDS`.
    """

    database_id: bytes
    at: datetime.datetime
    generation: int
    streams: Ranges
    gone: Ranges = attrs.Factory(dict)
    kind: str = KINDS[0]

    @property
    def held(self) -> Ranges:
        """What it has now, of each stream."""
        now = {stream: subtract(items, self.gone.get(stream, ())) for stream, items in self.streams.items()}
        return {stream: tuple(items) for stream, items in now.items() if items}

    def as_dict(self) -> dict[str, Any]:
        """The document as JSON-able values."""
        gone = {"gone": _as_lists(self.gone)} if self.gone else {}
        return {
            "edgeshard": _TAG,
            "format": _FORMAT,
            "database": self.database_id.hex(),
            "kind": self.kind,
            "generation": self.generation,
            "at": self.at.isoformat(),
            "streams": _as_lists(self.streams),
            **gone,
        }

    def to_json(self) -> str:
        """The document, on one line.

        Raises:
            ConfigurationError: it would be longer than anybody reads.
        """
        text = json.dumps(self.as_dict(), separators=(",", ":"))
        if len(text) > BYTES_MAX:
            cause = f"they would take more than {BYTES_MAX:,} bytes, and nobody reads that; export without them"
            raise ConfigurationError("write ranges", "", cause)
        return text


def _as_lists(ranges: Ranges) -> dict[str, list[list[int]]]:
    return {stream.hex(): [[item.first, item.last] for item in items] for stream, items in ranges.items()}


def load(path: str | os.PathLike[str]) -> Inventory:
    """Read a document from a file.

    Raises:
        ConfigurationError: there is no such file, or it is none of ours.
        FormatError: it is of a later format.
        DamagedError: it is not whole, or contradicts itself.
        AccessError, StorageIOError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigurationError(_ACTION, path, "there is no such file") from error
    except IsADirectoryError as error:
        raise ConfigurationError(
            _ACTION, path, "it is a folder; name the file that `edgeshard ranges` wrote"
        ) from error
    except OSError as error:
        raise explain_os_error(error, _ACTION, path) from error
    return parse(text, os.fspath(path))


def parse(text: bytes, path: str) -> Inventory:
    """Read a document.

    Args:
        text: the document.
        path: where it comes from, for errors.

    Raises:
        ConfigurationError, FormatError, DamagedError: see `load`.
    """
    if len(text) > BYTES_MAX:
        raise ConfigurationError(_ACTION, path, f"it is longer than {BYTES_MAX:,} bytes; this is no such document")
    try:
        read = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        cause = f"it is not whole, or not the JSON that `edgeshard ranges` writes ({str(error) or 'too deep':.120})"
        raise DamagedError(_ACTION, path, cause) from error
    return _Reader(path).holdings(read)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


@attrs.frozen
class _Reader:
    """Takes a document apart, and believes nothing.

    Attributes:
        path: where it comes from.
    """

    path: str

    def holdings(self, read: Any) -> Inventory:
        if not isinstance(read, dict) or read.get("edgeshard") != _TAG:
            cause = "it is JSON, but not what `edgeshard ranges` writes"
            raise ConfigurationError(_ACTION, self.path, cause)
        if read.get("format") != _FORMAT or type(read["format"]) is not int:
            cause = f"it has format {read.get('format')!r:.40}, this edgeshard reads format {_FORMAT}"
            raise FormatError(_ACTION, self.path, f"{cause}; use that version")
        if read.keys() - {"gone"} != _KEYS or read["kind"] not in KINDS:
            raise self.refuse("its keys are not those of such a document")
        streams = self.ranges(read["streams"], "streams")
        gone = self.ranges(read.get("gone", {}), "gone")
        if any(subtract(items, streams.get(stream, ())) for stream, items in gone.items()):
            raise self.refuse("what is gone from it was never there")
        database_id = self.id(read["database"], "database")
        at, generation = self.time(read["at"]), self.count(read["generation"])
        return Inventory(database_id, at, generation, streams, gone, read["kind"])

    def ranges(self, read: Any, key: str) -> Ranges:
        if not isinstance(read, dict):
            raise self.refuse(f"{key!r} is no object")
        return {self.id(stream, key): tuple(self.of_stream(items, stream)) for stream, items in read.items()}

    def of_stream(self, read: Any, stream: str) -> list[Range]:
        found: list[Range] = []
        if not isinstance(read, list):
            raise self.refuse(f"the seqs of stream {stream} are no list")
        for item in read:
            if not isinstance(item, list) or len(item) != 2 or not all(type(seq) is int for seq in item):
                raise self.refuse(f"the seqs of stream {stream} are not pairs of numbers")
            first, last = item
            before = found[-1].last if found else 0
            if not before < first <= last <= format.SEQ_MAX:
                raise self.refuse(f"stream {stream} has seqs that cannot be, or not in order: {first} to {last}")
            found.append(Range(first, last))
        return found

    def id(self, read: Any, key: str) -> bytes:
        if not isinstance(read, str) or not _ID.fullmatch(read):
            raise self.refuse(f"{read!r:.50} in {key!r} is not 32 hexadecimal digits")
        return bytes.fromhex(read)

    def time(self, read: Any) -> datetime.datetime:
        try:
            time = datetime.datetime.fromisoformat(read)
            if time.tzinfo is not None:
                return time.astimezone(datetime.UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise self.refuse(f"{read!r:.50} is not a time with its zone")

    def count(self, read: Any) -> int:
        if type(read) is not int or not 0 <= read <= _COUNT_MAX:
            raise self.refuse(f"{read!r:.50} is no generation")
        return read

    def refuse(self, what: str) -> DamagedError:
        return DamagedError(_ACTION, self.path, f"{what}; have `edgeshard ranges` write it again")
