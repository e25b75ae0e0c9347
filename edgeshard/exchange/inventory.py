"""An inventory: what a database holds, as a small JSON document to take to other stores.

    {"edgeshard": "ranges", "format": 1, "database": "<32 hex digits>", "kind": "edgeshard", "generation": 17,
     "at": "2026-01-02T12:00:00+00:00", "streams": {"<32 hex digits>": [[1, 900], [1001, 1100]]},
     "pruned": {"<32 hex digits>": [[1, 300]]}}

``streams`` is what the database has *ever* held. An export to it leaves these rows out, so that a row that was pruned
there does not come back. ``pruned`` is the part that it no longer has; the key is missing if there is none. Only the
difference, what it has *now*, is safe there, and may be deleted elsewhere. The ``kind`` "postgresql" means that the
rows were pushed there.

A document may come from a stranger. It is read up to a certain size, and anything that is not as above is refused.
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

#: The longest document that is read or written: enough for 300,000 streams.
BYTES_MAX: Final = 16 << 20

_ACTION = "read ranges"

_TAG, _FORMAT = "ranges", 1

_AGAIN: Final = "run `edgeshard ranges` again"

_KEYS = {"edgeshard", "format", "database", "kind", "generation", "at", "streams"}

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

_COUNT_MAX = (1 << 63) - 1

Ranges = Mapping[bytes, tuple[Range, ...]]


@attrs.frozen
class Inventory:
    """What a database holds, and has ever held.

    Attributes:
        database_id: the id of the database, 16 bytes.
        at: when the inventory was taken, by the clock of the database's machine.
        generation: the database's generation at that time, which grows with each merge and prune.
        streams: the seqs of each stream, by its id, that the database has ever held.
        pruned: the seqs of each stream that it no longer has.
        kind: one of `KINDS`.
    """

    database_id: bytes
    at: datetime.datetime
    generation: int
    streams: Ranges
    pruned: Ranges = attrs.Factory(dict)
    kind: str = KINDS[0]

    @property
    def held(self) -> Ranges:
        """The seqs of each stream that it has now."""
        now = {stream_id: subtract(seqs, self.pruned.get(stream_id, ())) for stream_id, seqs in self.streams.items()}
        return {stream_id: tuple(seqs) for stream_id, seqs in now.items() if seqs}

    def as_dict(self) -> dict[str, Any]:
        """Return the document as values that `json.dumps` takes."""
        pruned = {"pruned": _as_lists(self.pruned)} if self.pruned else {}
        return {
            "edgeshard": _TAG,
            "format": _FORMAT,
            "database": self.database_id.hex(),
            "kind": self.kind,
            "generation": self.generation,
            "at": self.at.isoformat(),
            "streams": _as_lists(self.streams),
            **pruned,
        }

    def to_json(self) -> str:
        """Return the document, on one line.

        Raises:
            ConfigurationError: it would be longer than `parse` accepts.
        """
        text = json.dumps(self.as_dict(), separators=(",", ":"))
        if len(text) > BYTES_MAX:
            cause = f"the document would exceed {BYTES_MAX:,} bytes, which no edgeshard reads; export without ranges"
            raise ConfigurationError("write ranges", "", cause)
        return text


def _as_lists(ranges: Ranges) -> dict[str, list[list[int]]]:
    return {stream_id.hex(): [[item.first, item.last] for item in seqs] for stream_id, seqs in ranges.items()}


def load(path: str | os.PathLike[str]) -> Inventory:
    """Read a document from a file.

    Raises:
        ConfigurationError: there is no such file, or it is not an inventory.
        FormatError: it has a later format.
        DamagedError: it is incomplete, or contradicts itself.
        AccessError, StorageIOError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigurationError(
            _ACTION, path, "there is no such file; `edgeshard ranges` prints what belongs in it"
        ) from error
    except IsADirectoryError as error:
        raise ConfigurationError(
            _ACTION, path, "it is a folder; name the file that `edgeshard ranges` wrote"
        ) from error
    except OSError as error:
        raise explain_os_error(error, _ACTION, path) from error
    return parse(text, os.fspath(path))


def parse(text: bytes, path: str) -> Inventory:
    """Parse a document.

    Args:
        text: the document.
        path: where it was read, for errors.

    Raises:
        ConfigurationError, FormatError, DamagedError: see `load`.
    """
    if len(text) > BYTES_MAX:
        cause = f"it has more than {BYTES_MAX:,} bytes; name a file that `edgeshard ranges` wrote"
        raise ConfigurationError(_ACTION, path, cause)
    try:
        read = json.loads(text.decode(), object_pairs_hook=_dict_of_unique_keys)
    except (ValueError, RecursionError) as error:
        detail = str(error) or "nested too deeply"
        cause = f"it is incomplete, or not the JSON that `edgeshard ranges` writes ({detail:.120}); {_AGAIN}"
        raise DamagedError(_ACTION, path, cause) from error
    return _Parser(path).inventory(read)


def _dict_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


@attrs.frozen
class _Parser:
    """Checks each value of a document before it is used.

    Attributes:
        path: where the document was read.
    """

    path: str

    def inventory(self, read: Any) -> Inventory:
        if not isinstance(read, dict) or read.get("edgeshard") != _TAG:
            cause = "it is JSON, but not what `edgeshard ranges` writes; name a file that it wrote"
            raise ConfigurationError(_ACTION, self.path, cause)
        if read.get("format") != _FORMAT or type(read["format"]) is not int:
            cause = f"it has format {read.get('format')!r:.40}, and this edgeshard reads format {_FORMAT}"
            raise FormatError(_ACTION, self.path, f"{cause}; use the version that wrote it")
        if read.keys() - {"pruned"} != _KEYS or read["kind"] not in KINDS:
            raise self.refusal("it lacks a key, has an unknown one, or is of an unknown type of database")
        streams = self.ranges(read["streams"], "streams")
        pruned = self.ranges(read.get("pruned", {}), "pruned")
        if any(subtract(seqs, streams.get(stream_id, ())) for stream_id, seqs in pruned.items()):
            raise self.refusal("it pruned rows that it never held")
        database_id = self.id(read["database"], "database")
        at, generation = self.time(read["at"]), self.count(read["generation"])
        return Inventory(database_id, at, generation, streams, pruned, read["kind"])

    def ranges(self, read: Any, key: str) -> Ranges:
        if not isinstance(read, dict):
            raise self.refusal(f"{key!r} is not an object")
        return {self.id(stream, key): tuple(self.seqs(items, stream)) for stream, items in read.items()}

    def seqs(self, read: Any, stream: str) -> list[Range]:
        found: list[Range] = []
        if not isinstance(read, list):
            raise self.refusal(f"the seqs of stream {stream} are not a list")
        for item in read:
            if not isinstance(item, list) or len(item) != 2 or not all(type(seq) is int for seq in item):
                raise self.refusal(f"the seqs of stream {stream} are not pairs of integers")
            first, last = item
            before = found[-1].last if found else 0
            if not before < first <= last <= format.SEQ_MAX:
                raise self.refusal(f"seqs {first} to {last} of stream {stream} are out of range, or not in order")
            found.append(Range(first, last))
        return found

    def id(self, read: Any, key: str) -> bytes:
        if not isinstance(read, str) or not _ID.fullmatch(read):
            raise self.refusal(f"{read!r:.50} in {key!r} is not 32 hexadecimal digits")
        return bytes.fromhex(read)

    def time(self, read: Any) -> datetime.datetime:
        try:
            time = datetime.datetime.fromisoformat(read)
            if time.tzinfo is not None:
                return time.astimezone(datetime.UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise self.refusal(f"{read!r:.50} is not a time with a time zone")

    def count(self, read: Any) -> int:
        if type(read) is not int or not 0 <= read <= _COUNT_MAX:
            raise self.refusal(f"{read!r:.50} is not a generation")
        return read

    def refusal(self, what: str) -> DamagedError:
        return DamagedError(_ACTION, self.path, f"{what}; {_AGAIN}")
