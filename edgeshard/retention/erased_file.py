"""The file ``erased.json``: which rows were ever erased from a store, by address.

It lies next to the master, not in it, because an older master may be put back: then the rows must go again. Its first
line is a JSON object with the number of erasures and a checksum of the rest; each further line is one for a stream:

    {"edgeshard": "erased", "format": 1, "number": 2, "sha256": "..."}
    {"stream": "<32 hex digits>", "agent": "door-3", "began_at": "...", "seqs": [[1, 3], [7, 7]]}

Addresses only: nothing of the rows is in it. It takes some 20 bytes for each run of erased rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard.errors import DamagedError, FormatError
from edgeshard.files import atomic_file, modes, paths
from edgeshard.files.os_errors import explain_os_error
from edgeshard.format.ranges import Range, union

_ACTION: Final = "read erased rows of"

_TAG, _FORMAT = "erased", 1

_REPAIR: Final = (
    "put back the file of a backup; or move it away: then rows that were erased can come back with an older master"
)


@attrs.frozen
class ErasedStream:
    """The erased rows of a stream.

    Attributes:
        stream_id: the stream.
        agent_id: the agent that wrote it.
        began_at: when it began, ISO 8601, or "".
        seqs: the rows, in order.
    """

    stream_id: bytes
    agent_id: str
    began_at: str
    seqs: tuple[Range, ...]


def number(root: Path) -> int:
    """Return the number of the last erasure, 0 if there was none; only the first line of the file is read.

    Raises:
        DamagedError, FormatError: the file cannot be understood.
        AccessError, StorageIOError: it cannot be read.
    """
    path = paths.erased(root)
    try:
        with path.open() as file:
            return _parse_head(path, file.readline())[0]
    except FileNotFoundError:
        return 0
    except UnicodeDecodeError as error:
        raise DamagedError(_ACTION, path, f"it is not text; {_REPAIR}") from error
    except OSError as error:
        raise explain_os_error(error, _ACTION, path) from error


def load(root: Path) -> tuple[int, list[ErasedStream]]:
    """Return the number of the last erasure, and all rows that were ever erased.

    Raises:
        DamagedError, FormatError: the file cannot be understood.
        AccessError, StorageIOError: it cannot be read.
    """
    path = paths.erased(root)
    try:
        head, _, rest = path.read_text().partition("\n")
    except FileNotFoundError:
        return 0, []
    except UnicodeDecodeError as error:
        raise DamagedError(_ACTION, path, f"it is not text; {_REPAIR}") from error
    except OSError as error:
        raise explain_os_error(error, _ACTION, path) from error
    last, checksum = _parse_head(path, head)
    if hashlib.sha256(rest.encode()).hexdigest() != checksum:
        raise DamagedError(_ACTION, path, f"its checksum differs; {_REPAIR}")
    return last, [_parse(json.loads(line)) for line in rest.splitlines()]


def save(root: Path, last: int, streams: Iterable[ErasedStream]) -> None:
    """Replace the file, durably.

    Raises:
        AccessError, DiskFullError, StorageIOError: it cannot be written; the old one is still there.
    """
    path = paths.erased(root)
    lines = [
        json.dumps(
            {
                "stream": each.stream_id.hex(),
                "agent": each.agent_id,
                "began_at": each.began_at,
                "seqs": [[part.first, part.last] for part in each.seqs],
            }
        )
        for each in streams
    ]
    rest = "".join(f"{line}\n" for line in lines)
    head = {"edgeshard": _TAG, "format": _FORMAT, "number": last, "sha256": hashlib.sha256(rest.encode()).hexdigest()}
    unfinished = paths.unfinished(str(path), secrets.token_hex(4))
    try:
        with open(modes.create_file(unfinished), "w") as file:
            file.write(json.dumps(head) + "\n" + rest)
        atomic_file.publish(unfinished, str(path), replace=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise explain_os_error(error, "save erased rows of", path) from error


def add(known: Iterable[ErasedStream], more: Iterable[ErasedStream]) -> list[ErasedStream]:
    """Return both together, each stream once."""
    found: dict[bytes, ErasedStream] = {}
    for each in [*known, *more]:
        before = found.get(each.stream_id)
        seqs = each.seqs if before is None else tuple(union([*before.seqs, *each.seqs]))
        found[each.stream_id] = attrs.evolve(each, seqs=seqs)
    return list(found.values())


def _parse_head(path: Path, line: str) -> tuple[int, str]:
    try:
        head: Mapping[str, Any] = json.loads(line)
        if head["edgeshard"] != _TAG:
            raise ValueError
        if head["format"] != _FORMAT:
            raise FormatError(_ACTION, path, f"it has format {head['format']!r:.20}; use the version that wrote it")
        return int(head["number"]), str(head["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(_ACTION, path, f"it is not the file that edgeshard wrote; {_REPAIR}") from error


def _parse(item: Mapping[str, Any]) -> ErasedStream:
    seqs = tuple(Range(first, last) for first, last in item["seqs"])
    return ErasedStream(bytes.fromhex(item["stream"]), item["agent"], item["began_at"], seqs)
