"""An inventory: what a database holds, as a compact JSON document to take to other stores.

    {"edgeshard": "ranges", "format": 1, "database": "<32 hex digits>", "kind": "edgeshard", "generation": 17,
     "at": "2026-01-02T12:00:00+00:00", "sha256": "<64 hex digits>", "streams": "<base64>"}

``streams`` says which seqs of each stream the database has *ever* held, and which of them it has pruned since: the
bytes that `edgeshard.exchange.encoding` describes, compressed by zlib. An export to the database leaves out all that it
ever held, so that a row that was pruned there does not come back. Only what it has *now* is safe there, and may be
deleted elsewhere. The ``kind`` "postgresql" means that the rows were pushed there.

``sha256`` is the checksum of everything else: of the keys before it, as JSON without spaces, and of the bytes before
they were compressed. A single flipped bit would otherwise make a store believe that rows are safe elsewhere. It
protects against accidents only: whoever changes a document on purpose can compute it again.

A document may come from a stranger. What is read of it is bounded, and so is what it can expand to; anything that is
not as above is refused.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from edgeshard import units
from edgeshard.errors import ConfigurationError, DamagedError, FormatError
from edgeshard.exchange import encoding
from edgeshard.exchange.encoding import EncodedSeqs
from edgeshard.files.os_errors import explain_os_error
from edgeshard.format.ranges import Range
from edgeshard.master.receipts import KINDS

#: The longest document that is read: what `encoding.BYTES_MAX` becomes if nothing of it can be compressed.
BYTES_MAX: Final = encoding.BYTES_MAX // 3 * 4 + (1 << 20)

_ACTION = "read ranges"

_TAG, _FORMAT = "ranges", 1

_MAKER: Final = "Store.ranges().to_json() (`edgeshard ranges`)"

_AGAIN: Final = "take the ranges again: Store.ranges (`edgeshard ranges`)"

#: The keys that the checksum covers as they are, in their order in the document.
_HEAD: Final = ("edgeshard", "format", "database", "kind", "generation", "at")

_KEYS: Final = {*_HEAD, "sha256", "streams"}

#: A document has eight keys. JSON with more than this many delimiters could grow a thousandfold in memory.
_DELIMITERS_MAX: Final = 100

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

_COUNT_MAX = (1 << 63) - 1

#: How many bytes are compressed at a time.
_PIECE_BYTES: Final = 3 << 16


@attrs.frozen
class Inventory:
    """What a database holds, and has ever held.

    Attributes:
        database_id: the id of the database, 16 bytes.
        at: when the inventory was taken, by the clock of the database's machine.
        generation: the database's generation at that time, which grows with each merge and prune.
        seqs: the seqs of each stream that it has ever held, and which of them it has pruned.
        kind: one of `KINDS`.
    """

    database_id: bytes
    at: datetime.datetime
    generation: int
    seqs: EncodedSeqs
    kind: str = KINDS[0]

    @property
    def streams(self) -> Mapping[bytes, tuple[Range, ...]]:
        """The seqs of each stream, by its id, that the database has ever held."""
        return self.seqs.streams

    @property
    def pruned(self) -> Mapping[bytes, tuple[Range, ...]]:
        """The seqs of each stream that it no longer has."""
        return self.seqs.pruned

    @property
    def held(self) -> Mapping[bytes, tuple[Range, ...]]:
        """The seqs of each stream that it has now."""
        return self.seqs.held

    def to_json(self) -> str:
        """Return the document, on one line.

        Raises:
            ConfigurationError: it would be larger than `parse` accepts.
        """
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """Yield the document in pieces, so that a large one need not be in memory as a whole.

        Raises:
            ConfigurationError: it would be larger than `parse` accepts; nothing was yielded.
        """
        data = self.seqs.data
        if len(data) > encoding.BYTES_MAX or self.seqs.run_count > encoding.RUNS_MAX:
            cause = (
                f"it holds {self.seqs.run_count:,} runs of rows of {units.count(len(self.seqs), 'stream')}, more than "
                "any edgeshard reads; export without ranges"
            )
            raise ConfigurationError("write ranges", self.database_id.hex(), cause)
        head = {
            "edgeshard": _TAG,
            "format": _FORMAT,
            "database": self.database_id.hex(),
            "kind": self.kind,
            "generation": self.generation,
            "at": self.at.isoformat(),
        }
        yield f'{_compact({**head, "sha256": _checksum(head, data)})[:-1]},"streams":"'
        compressor, waiting = zlib.compressobj(), b""
        for start in range(0, len(data), _PIECE_BYTES):
            waiting += compressor.compress(data[start : start + _PIECE_BYTES])
            whole = len(waiting) // 3 * 3  # base64 turns three bytes into four characters
            yield base64.b64encode(waiting[:whole]).decode()
            waiting = waiting[whole:]
        yield f'{base64.b64encode(waiting + compressor.flush()).decode()}"}}'


def _compact(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _checksum(head: Mapping[str, Any], data: bytes) -> str:
    digest = hashlib.sha256(_compact({key: head[key] for key in _HEAD}).encode())
    digest.update(data)
    return digest.hexdigest()


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
        raise ConfigurationError(_ACTION, path, f"there is no such file; {_MAKER} makes what belongs in it") from error
    except IsADirectoryError as error:
        raise ConfigurationError(_ACTION, path, f"it is a folder; name a file with what {_MAKER} makes") from error
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
        cause = f"it has more than {units.size(BYTES_MAX)}; name a file with what {_MAKER} makes"
        raise ConfigurationError(_ACTION, path, cause)
    try:
        if sum(map(text.count, b"[{,:")) > _DELIMITERS_MAX:
            raise ValueError("it has more parts than such a document")
        read = json.loads(text.decode(), object_pairs_hook=_dict_of_unique_keys)
    except (ValueError, RecursionError) as error:
        cause = f"it is incomplete, or not the JSON of ranges ({error!s:.120}); {_AGAIN}"
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
            cause = f"it is JSON, but not of ranges; name a file with what {_MAKER} makes"
            raise ConfigurationError(_ACTION, self.path, cause)
        if read.get("format") != _FORMAT or type(read["format"]) is not int:
            cause = f"it has format {read.get('format')!r:.40}, and this edgeshard reads format {_FORMAT}"
            raise FormatError(_ACTION, self.path, f"{cause}; use the version that wrote it")
        if read.keys() != _KEYS or read["kind"] not in KINDS:
            raise self.refusal("it lacks a key, has an unknown one, or is of an unknown type of database")
        database_id = self.id(read["database"], "database")
        at, generation = self.time(read["at"]), self.count(read["generation"])
        data = self.expanded(read["streams"])
        if read["sha256"] != _checksum(read, data):
            raise self.refusal("its checksum is wrong: it was changed on its way")
        try:
            return Inventory(database_id, at, generation, encoding.decode(data), read["kind"])
        except ValueError as error:
            raise self.refusal(str(error)) from error

    def expanded(self, read: Any) -> bytes:
        """Return what was compressed, but at most one byte more than `encoding.decode` accepts."""
        try:
            if not isinstance(read, str):
                raise ValueError("they are not text")
            decompressor = zlib.decompressobj()
            data = decompressor.decompress(base64.b64decode(read, validate=True), encoding.BYTES_MAX + 1)
            if len(data) <= encoding.BYTES_MAX and (not decompressor.eof or decompressor.unused_data):
                raise ValueError("they are incomplete, or something follows them")
            return data
        except (ValueError, zlib.error) as error:
            raise self.refusal(f"its streams cannot be read ({error!s:.120})") from error

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
