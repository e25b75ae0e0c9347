"""Accept the loss of rows: record those that are missing, or were deleted by hand, as written off.

1  take merge.lock, so that no merge brings rows meanwhile
2  record what other programs deleted, so that it is known by address (retention/by_hand)
3  find the rows, in one snapshot
4  record them, in transactions of a limited size; a kill leaves whole ones, and the next call continues
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Final

from edgeshard import format, sqlite
from edgeshard.errors import ConfigurationError, quoted
from edgeshard.files import paths
from edgeshard.format.ranges import Range, intersect, subtract
from edgeshard.master import blocked_rows, database, identity, row_states, streams, written_off
from edgeshard.master.row_states import StreamRows
from edgeshard.master.why import checked as checked_why
from edgeshard.merge import locks
from edgeshard.reports import AcceptLossReport, Gap
from edgeshard.retention import by_hand
from edgeshard.sqlite import Connection

_ACTION: Final = "accept loss in"

#: How many runs of rows one transaction records, so that it keeps a merger waiting for less than 50 ms.
_STEP_RUNS: Final = 2_000

#: How many digits of a stream's id may stand for it, if no other id begins with them.
_DIGITS_MIN: Final = 6

_SEQ: Final = re.compile("[0-9]{1,18}")


def accept_loss(
    root: Path,
    why: str,
    agent: str | None,
    stream: str | None,
    seqs: str | tuple[int, int] | None,
    *,
    dry_run: bool = False,
    lock_wait_s: float = sqlite.BUSY_TIMEOUT_S,
) -> AcceptLossReport:
    """Record rows as written off; see `Store.accept_loss`."""
    path = paths.master(root)
    wanted = _parse_seqs(seqs, path)
    why = checked_why(why, _ACTION, path)
    with (
        locks.merge_lock_held(root, lock_wait_s, lambda: False),
        contextlib.closing(database.open_master(path, writable=not dry_run)) as connection,
        database.translate_errors(_ACTION, path),
    ):
        if not dry_run:
            by_hand.settle(connection, path)
            by_hand.record_all(connection, path)
        with sqlite.read_snapshot(connection):
            found = list(_find(connection, path, agent, stream, wanted))
            numbers = streams.numbers_by_id(connection)
        if not dry_run:
            for start in range(0, len(found), _STEP_RUNS):
                with sqlite.immediate(connection):
                    identity.increment_generation(connection)  # a merger that watches looks for gaps again
                    for gap in found[start : start + _STEP_RUNS]:
                        number = numbers[bytes.fromhex(gap.stream)]
                        written_off.record(connection, number, [Range(gap.first, gap.last)], why)
    return AcceptLossReport(tuple(found), dry_run)


def _find(
    connection: Connection, path: Path, agent: str | None, stream: str | None, wanted: Range | None
) -> Iterator[Gap]:
    """Yield the rows whose loss there is to accept, in the caller's snapshot."""
    chosen = _choose(row_states.load(connection), path, agent, stream, has_seqs=wanted is not None)
    pending, numbers = blocked_rows.by_stream(connection), streams.numbers_by_id(connection)
    # what a dry run finds; otherwise all is recorded by now
    unrecorded = by_hand.unrecorded(connection)
    for item in chosen:
        missing = row_states.divide_absent(item, pending.get(item.stream_id, ())).missing
        unrecorded_here = unrecorded.get(numbers[item.stream_id], [])
        lost = [*missing, *subtract(item.by_hand, item.written_off), *unrecorded_here]
        for part in sorted(lost if wanted is None else intersect(lost, [wanted])):
            yield Gap(item.agent_id, item.stream_id.hex(), part.first, part.last)


def _choose(
    known: list[StreamRows], path: Path, agent: str | None, stream: str | None, *, has_seqs: bool
) -> list[StreamRows]:
    """Return the streams that are meant, by agent and stream.

    Raises:
        ConfigurationError: there is none, or several where one must be meant.
    """
    if not isinstance(stream, (str, NoneType)):
        raise ConfigurationError(
            _ACTION, path, f"stream must be the id of a stream, in hexadecimal, got {quoted(stream)}"
        )
    of_agent = [item for item in known if agent is None or item.agent_id == agent]
    if agent is not None and not of_agent:
        raise ConfigurationError(
            _ACTION, path, f"no row of an agent {quoted(agent, 220)} is known here; see its status"
        )
    chosen = [item for item in of_agent if stream is None or item.stream_id.hex().startswith(stream.lower())]
    if stream is not None and (len(chosen) != 1 or len(stream) < _DIGITS_MIN):
        what = f"{len(chosen)} known streams have an id that begins with {quoted(stream, 40)}"
        raise ConfigurationError(_ACTION, path, f"{what}; verify lists the ids: give {_DIGITS_MIN} digits or more")
    if has_seqs and len(chosen) != 1:
        cause = f"seqs belong to one stream, and {len(chosen)} are meant; name it (stream): verify lists it"
        raise ConfigurationError(_ACTION, path, cause)
    return sorted(chosen, key=lambda item: (item.agent_id, item.stream_id))


def _parse_seqs(seqs: str | tuple[int, int] | None, path: Path) -> Range | None:
    if seqs is None:
        return None
    ends: Sequence[object] = ()
    if isinstance(seqs, str):
        # no more digits than a seq has: Python converts a text of 5000 digits to no int
        ends = [int(end) if _SEQ.fullmatch(end) else end for end in seqs.split("-")]
    elif isinstance(seqs, (tuple, list)):
        ends = seqs
    match ends:
        case [int(first)]:
            last = first
        case [int(first), int(last)]:
            pass
        case _:
            first = last = 0
    if not 1 <= first <= last <= format.SEQ_MAX:
        cause = f"seqs must be like 73-82 or 73, from 1 to {format.SEQ_MAX}, got {quoted(seqs)}"
        raise ConfigurationError(_ACTION, path, cause)
    return Range(first, last)
